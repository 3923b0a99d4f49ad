package main

import (
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func rmdirCommand() *cli.Command {
	return &cli.Command{
		Name:      "rmdir",
		Usage:     "remove containers that have no tasks and no children",
		ArgsUsage: "PATH...",
		Description: "A container with tasks or children is busy.\n\n" +
			"  containerfs rmdir /all/Charlie",
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			return eachPath(c, args, rmdir)
		},
	}
}

func rmdir(s *session, path string) error {
	dir, name, err := s.walkParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.UnlinkAt(name, unix.AT_REMOVEDIR)
}
