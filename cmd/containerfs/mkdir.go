package main

import (
	"errors"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func mkdirCommand() *cli.Command {
	return &cli.Command{
		Name:      "mkdir",
		Usage:     "make containers",
		ArgsUsage: "PATH...",
		Description: "They have no tasks yet, and the values that their subsystems begin with.\n\n" +
			"  containerfs mkdir -p /all/vms/web",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "p", Usage: "make missing parents; what exists is no error"},
			&cli.StringFlag{Name: "m", Usage: "octal `MODE` of the container", DefaultText: "0777 without the umask"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			mode := 0o777 &^ p9.FileMode(umask())
			parents := mode | 0o300 // its maker must be able to go on inside
			if m := c.String("m"); c.IsSet("m") {
				var ok bool
				if mode, ok = octalMode(m); !ok {
					return usagef("mode %q: want octal up to 777", m)
				}
			}
			return eachPath(c, args, func(s *session, path string) error {
				if c.Bool("p") {
					return mkdirAll(s, path, parents, mode)
				}
				return mkdir(s, path, mode)
			})
		},
	}
}

func umask() int {
	mask := syscall.Umask(0) // the only way to read it is to set it
	syscall.Umask(mask)
	return mask
}

func mkdir(s *session, path string, mode p9.FileMode) error {
	dir, name, err := s.walkParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return mkdirIn(dir, name, mode)
}

func mkdirIn(dir p9.File, name string, mode p9.FileMode) error {
	_, err := dir.Mkdir(name, mode, p9.NoUID, p9.NoGID)
	return err
}

func mkdirAll(s *session, path string, parents, mode p9.FileMode) error {
	names := split(path)
	dir, err := walk(s.root, nil)
	if err != nil {
		return err
	}
	defer func() { dir.Close() }()
	for i, name := range names {
		_, next, err := dir.Walk(names[i : i+1])
		if errors.Is(err, linux.ENOENT) {
			perm := parents
			if i == len(names)-1 {
				perm = mode
			}
			// Somebody else may have made it meanwhile, which serves as well.
			if err := mkdirIn(dir, name, perm); err != nil && !errors.Is(err, linux.EEXIST) {
				return err
			}
			_, next, err = dir.Walk(names[i : i+1])
		}
		if err != nil {
			return err
		}
		dir.Close()
		dir = next
	}
	if _, _, attr, err := dir.GetAttr(p9.AttrMaskAll); err != nil || !attr.Mode.IsDir() {
		return errors.Join(err, linux.EEXIST)
	}
	return nil
}
