package main

import (
	"fmt"
	"io"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/ops"
)

// maxCommand is over what a control file takes (4096 bytes, the server's to refuse)
// and under what the library sends in one Twrite, and a server looks at in one.
const maxCommand = 8 << 10

func writeCommand() *cli.Command {
	return &cli.Command{
		Name:      "write",
		Usage:     "write one command or value to a control file",
		ArgsUsage: "PATH VALUE",
		Description: "VALUE is written with a newline after it, as `echo VALUE > PATH` in a mount\n" +
			"does. With - for VALUE, standard input is written as it is. Either way it is\n" +
			"one write, which is one command: all of it is done or nothing.\n\n" +
			"  containerfs write /all/Charlie/cpuset.cpus 0-1",
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, 2)
			if err != nil {
				return err
			}
			path, value := args[0], []byte(args[1]+"\n")
			if args[1] == "-" {
				if value, err = io.ReadAll(io.LimitReader(c.App.Reader, maxCommand+1)); err != nil {
					return &pathError{"read", "standard input", err}
				}
			}
			return eachPath(c, []string{path}, func(s *session, path string) error {
				return write(s, path, value)
			})
		},
	}
}

func write(s *session, path string, value []byte) error {
	if len(value) > maxCommand {
		return fmt.Errorf("a command has at most %d bytes: %w", ops.MaxWrite, linux.E2BIG)
	}
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.WriteOnly); err != nil {
		return err
	}
	n, err := f.WriteAt(value, 0)
	if err == nil && n < len(value) {
		err = io.ErrShortWrite
	}
	return err
}
