package main

import (
	"fmt"
	"io"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func statCommand() *cli.Command {
	return &cli.Command{
		Name:        "stat",
		Usage:       "show attributes",
		ArgsUsage:   "PATH...",
		Description: "One line for each path: its type, mode, owner, link count, size and the\nserver's number for it.",
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			return eachPath(c, args, func(s *session, path string) error {
				return stat(s, c.App.Writer, path)
			})
		},
	}
}

func stat(s *session, out io.Writer, path string) error {
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	qid, _, attr, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return err
	}
	kind := "file"
	if attr.Mode.IsDir() {
		kind = "container"
	}
	_, err = fmt.Fprintf(out, "%s: %s mode=%04o uid=%d gid=%d nlink=%d size=%d path=%d\n",
		printable(path), kind, attr.Mode.Permissions(), attr.UID, attr.GID, attr.NLink, attr.Size, qid.Path)
	return err
}
