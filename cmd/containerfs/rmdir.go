package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func rmdirCommand() *cli.Command {
	return &cli.Command{
		Name:      "rmdir",
		Usage:     "remove containers that have no tasks and no children",
		ArgsUsage: "PATH...",
		Description: `A container with tasks or children is busy. With -r what is below it is removed first,
the deepest first: one that has tasks is an error, and stays with those above it. With
--kill every process in it and below is ended before, as by containerfs kill. Of a
hierarchy's root, which cannot be removed, nothing is.

With -p those above it are removed, too, up to the hierarchy's root: the first that is
busy is an error, and stays.

  containerfs rmdir /all/Charlie
  containerfs rmdir -r --kill /all/vms
  containerfs rmdir -p /all/vms/web`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "r", Usage: "remove what is below as well"},
			&cli.BoolFlag{Name: "kill", Usage: "with -r: end every process in it and below first"},
			&cli.BoolFlag{Name: "p", Usage: "remove the parents as well"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			if c.Bool("kill") && !c.Bool("r") {
				return usagef("--kill is for rmdir -r")
			}
			return eachPath(c, args, func(s *session, path string) error {
				var err error
				if c.Bool("r") {
					err = rmdirTree(s, c.App.ErrWriter, path, c.Bool("kill"))
				} else {
					err = rmdir(s, path)
				}
				if err == nil && c.Bool("p") {
					err = rmdirParents(s, path)
				}
				return err
			})
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

// rmdirParents removes the containers above one as long as they can be removed.
func rmdirParents(s *session, path string) error {
	for up := parent(clean(path)); up != "/" && !s.isRoot(up); up = parent(up) {
		if err := rmdir(s, up); err != nil {
			return &pathError{"parent", up, err}
		}
	}
	return nil
}

// isRoot reports whether a container is a hierarchy's root.
func (s *session) isRoot(path string) bool {
	_, err := s.attr(join(path, "release_agent"))
	return err == nil
}

// rmdirTree removes a container and all below it. A failure below is reported at once: what
// is above it stays, and the rest goes.
func rmdirTree(s *session, stderr io.Writer, path string, kill bool) error {
	if path = clean(path); path == "/" || s.isRoot(path) {
		return rmdir(s, path) // which is refused
	}
	if kill {
		if err := killIn(s, stderr, path); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
	}
	below := failures{stderr: stderr}
	var remove func(path string) error
	remove = func(path string) error {
		_, children, err := s.list(path)
		if err != nil {
			return err
		}
		stays := false
		for _, name := range children {
			child := join(path, name)
			err := remove(child)
			if err == nil || isGone(err) {
				continue
			}
			stays = true
			if below.add(&pathError{"rmdir", child, err}) {
				break
			}
		}
		if stays {
			return below.first
		}
		return rmdir(s, path)
	}
	return remove(path)
}
