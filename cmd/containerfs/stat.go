package main

import (
	"fmt"
	"io"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func statCommand() *cli.Command {
	return &cli.Command{
		Name:      "stat",
		Usage:     "show attributes",
		ArgsUsage: "PATH...",
		Description: "One line for each path: its type, mode, owner, link count, size and the\nserver's number for it.\n\n" +
			"  containerfs stat --json /all/Charlie",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			return eachPath(c, args, func(s *session, path string) error {
				if c.Bool("json") {
					return statJSON(s, c.App.Writer, path)
				}
				return stat(s, c.App.Writer, path)
			})
		},
	}
}

func stat(s *session, out io.Writer, path string) error {
	qid, attr, err := s.stat(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s mode=%04o uid=%d gid=%d nlink=%d size=%d qid=%d\n",
		printable(path), kindOf(attr), attr.Mode.Permissions(), attr.UID, attr.GID, attr.NLink, attr.Size, qid.Path)
	return err
}

func kindOf(attr p9.Attr) string {
	if attr.Mode.IsDir() {
		return "container"
	}
	return "file"
}

func statJSON(s *session, out io.Writer, path string) error {
	qid, attr, err := s.stat(path)
	if err != nil {
		return err
	}
	return writeJSON(out, struct {
		Path   string `json:"path"`
		Kind   string `json:"kind"`
		Mode   string `json:"mode"`
		UID    uint32 `json:"uid"`
		GID    uint32 `json:"gid"`
		NLink  uint64 `json:"nlink"`
		Size   uint64 `json:"size"`
		Number uint64 `json:"number"`
	}{path, kindOf(attr), modeBits(attr.Mode), uint32(attr.UID), uint32(attr.GID), uint64(attr.NLink), attr.Size, qid.Path})
}
