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
		Description: "A container with tasks or children is busy. With -p those above it are removed,\n" +
			"too, up to the hierarchy's root: the first that is busy is an error, and stays.\n\n" +
			"  containerfs rmdir /all/Charlie\n" +
			"  containerfs rmdir -p /all/vms/web",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "p", Usage: "remove the parents as well"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			if c.Bool("p") {
				return eachPath(c, args, rmdirAll)
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

// rmdirAll removes a container and those above it that can be removed.
func rmdirAll(s *session, path string) error {
	if err := rmdir(s, path); err != nil {
		return err
	}
	for up := parent(clean(path)); up != "/"; up = parent(up) {
		if _, err := s.attr(join(up, "release_agent")); err == nil {
			return nil // the hierarchy's root
		}
		if err := rmdir(s, up); err != nil {
			return &pathError{"parent", up, err}
		}
	}
	return nil
}
