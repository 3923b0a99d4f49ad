package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list containers and control files",
		ArgsUsage: "[PATH]...",
		Description: "Names come one a line in the server's order: common files, files of\n" +
			"subsystems, child containers. A control file lists itself. -l shows mode,\n" +
			"uid, gid and name. Without PATH the hierarchies are listed.\n\n" +
			"  containerfs ls -l /all/Charlie",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "l", Usage: "show mode and owner"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 0, -1)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{"/"}
			}
			out := bufio.NewWriter(c.App.Writer)
			return eachPath(c, args, func(s *session, path string) error {
				var err error
				if c.Bool("json") {
					err = lsJSON(s, out, path)
				} else {
					err = ls(s, out, path, len(args) > 1, c.Bool("l"))
				}
				if flushed := out.Flush(); err == nil {
					err = flushed
				}
				return err
			})
		},
	}
}

func ls(s *session, out *bufio.Writer, path string, titled, long bool) error {
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, attr, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return err
	}
	if !attr.Mode.IsDir() {
		lsLine(out, path, attr, long)
		return nil
	}
	entries, err := readdir(f)
	if err != nil {
		return err
	}
	if titled {
		fmt.Fprintf(out, "%s:\n", printable(path))
	}
	for _, e := range entries {
		var attr p9.Attr
		if long {
			_, file, _, a, err := f.WalkGetAttr([]string{e.Name})
			if errors.Is(err, linux.ENOENT) || errors.Is(err, linux.ENODEV) {
				continue // removed since it was listed
			}
			if err != nil {
				return err
			}
			file.Close()
			attr = a
		}
		lsLine(out, e.Name, attr, long)
	}
	return nil
}

// lsJSON lists a path as stat shows what is in it.
func lsJSON(s *session, out *bufio.Writer, path string) error {
	files, children, err := s.list(path)
	if errors.Is(err, linux.ENOTDIR) {
		return statJSON(s, out, path)
	}
	if err != nil {
		return err
	}
	for _, name := range slices.Concat(files, children) {
		if err := statJSON(s, out, join(path, name)); err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func lsLine(out *bufio.Writer, name string, attr p9.Attr, long bool) {
	if long {
		fmt.Fprintf(out, "%s %d %d ", attr.Mode.OSMode(), attr.UID, attr.GID)
	}
	fmt.Fprintf(out, "%s\n", printable(name))
}

// readdir lists a directory without its . and .. entries.
func readdir(dir p9.File) ([]p9.Dirent, error) {
	// An opened fid cannot walk any more, and the caller's still has to.
	_, d, err := dir.Walk(nil)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if _, _, err := d.Open(p9.ReadOnly); err != nil {
		return nil, err
	}
	var all []p9.Dirent
	seen := make(map[string]int)
	for offset := uint64(0); ; {
		entries, err := d.Readdir(offset, messageSize/2) // a count of bytes
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return all, nil
		}
		next := entries[len(entries)-1].Offset
		if next == offset {
			return nil, errors.New("the server's directory offsets do not advance")
		}
		offset = next
		for _, e := range entries {
			if e.Name == "." || e.Name == ".." {
				continue
			}
			// Between two answers a container can be removed, or renamed, and another get its name.
			if i, ok := seen[e.Name]; ok {
				all[i] = e
				continue
			}
			seen[e.Name] = len(all)
			all = append(all, e)
		}
	}
}
