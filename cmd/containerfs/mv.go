package main

import (
	"errors"
	"path"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"
)

func mvCommand() *cli.Command {
	return &cli.Command{
		Name:      "mv",
		Usage:     "rename a container in its parent",
		ArgsUsage: "OLD NEW",
		Description: "NEW is the container's new path, not a directory to move it into; it must\n" +
			"not exist and must be in the same parent.\n\n" +
			"  containerfs mv /all/Charlie /all/Charlotte",
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, 2)
			if err != nil {
				return err
			}
			if err := checkPath(args[1]); err != nil {
				return err
			}
			return eachPath(c, args[:1], func(s *session, old string) error {
				return mv(s, old, args[1])
			})
		},
	}
}

var errOtherParent = errors.New("a container is renamed in its parent, not moved to another")

func mv(s *session, old, new string) error {
	oldDir, oldName, err := s.walkParent(old)
	if err != nil {
		return err
	}
	defer oldDir.Close()
	newDir, newName, err := s.walkParent(new)
	if err != nil {
		return &pathError{"to", new, err}
	}
	defer newDir.Close()
	switch err = oldDir.RenameAt(oldName, newDir, newName); {
	case errors.Is(err, linux.EIO) && path.Dir(clean(old)) != path.Dir(clean(new)):
		return &pathError{"to", new, errOtherParent} // the errno is SPEC's, and says nothing of this
	case errors.Is(err, linux.EEXIST), errors.Is(err, linux.EINVAL), errors.Is(err, linux.ENAMETOOLONG):
		return &pathError{"to", new, err}
	}
	return err
}
