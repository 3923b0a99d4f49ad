package main

import (
	"io"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func readCommand() *cli.Command {
	return &cli.Command{
		Name:      "read",
		Usage:     "write control files' contents to standard output",
		ArgsUsage: "PATH...",
		Description: "Contents come as the server gives them, one file after the other.\n\n" +
			"  containerfs read /all/Charlie/tasks",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			return eachPath(c, args, func(s *session, path string) error {
				if !c.Bool("json") {
					return read(s, c.App.Writer, path)
				}
				text, err := s.readFile(path)
				if err != nil {
					return err
				}
				return writeJSON(c.App.Writer, struct {
					Path string `json:"path"`
					Text string `json:"text"`
				}{clean(path), text})
			})
		},
	}
}

func read(s *session, out io.Writer, path string) error {
	_, err := readWhich(s, out, path)
	return err
}

// readWhich is read, and tells which file it was: no other ever has its number, whatever has
// its path by now.
func readWhich(s *session, out io.Writer, path string) (p9.QID, error) {
	f, err := s.walk(path)
	if err != nil {
		return p9.QID{}, err
	}
	defer f.Close()
	qid, _, err := f.Open(p9.ReadOnly)
	if err != nil {
		return qid, err
	}
	buf := make([]byte, messageSize/2)
	for offset := int64(0); ; {
		n, err := f.ReadAt(buf, offset)
		if _, err := out.Write(buf[:n]); err != nil {
			return qid, err
		}
		offset += int64(n)
		// A lost connection is an io.EOF too, but a wrapped one: errors.Is
		// would take a server that died for the end of the file.
		if err == io.EOF {
			return qid, nil
		}
		if err != nil {
			return qid, err
		}
	}
}
