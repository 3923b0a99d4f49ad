package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/terminal"
	"containerfs/ops"
)

func saveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write hierarchies and their settings to standard output",
		ArgsUsage: "[PATH]",
		Description: `For apply: the containers of PATH, or of all hierarchies, with their settings, owners
and modes, in TOML. Which process is where is not saved, nor are release agents, which root
names at the server, nor hierarchies that are not mounted. A container whose name is not UTF-8
is left out with what is below it, which is said: exit code 6.

  containerfs save > containers.toml
  containerfs save /all/Charlie > charlie.toml`,
		Action: func(c *cli.Context) error {
			args, err := paths(c, 0, 1)
			if err != nil {
				return err
			}
			path := append(args, "/")[0]
			if err := checkPath(path); err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				out := bufio.NewWriter(c.App.Writer)
				stderr := c.App.ErrWriter
				if _, same := terminal.Is(c.App.Writer); same {
					stderr = nil // what is written is seen
				}
				f := failures{stderr: c.App.ErrWriter}
				saved := 0
				err := newProgress(stderr, printable("save "+path)).during(func() (err error) {
					saved, err = save(s, out, clean(path), &f)
					return err
				})
				if err != nil {
					return &pathError{"save", path, err}
				}
				if err := out.Flush(); err != nil {
					return err
				}
				return f.after(saved)
			})
		},
	}
}

// save writes what there is of a path, and returns of how many containers that is. One whose name
// TOML cannot have is a failure, with what is below it, and the others are saved: any user can
// have such a one.
func save(s *session, out *bufio.Writer, path string, f *failures) (saved int, err error) {
	w, err := s.world()
	if err != nil {
		return 0, err
	}
	tops, err := s.tops(path)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "schema = %d\n", savedSchema)
	for _, top := range tops {
		h := w.hierarchy(split(top)[0])
		if h == nil {
			return 0, linux.ENOENT
		}
		// Agents are root's to name, at the server.
		fmt.Fprintf(out, "\n[[hierarchy]]\nname = %s\noptions = %s\n", tomlString(h.Name), tomlString(withoutAgent(h.Options)))
	}
	for _, top := range tops {
		unnamed := "" // that was left out last
		err := s.containers(top, func(path string, depth int, files []string) error {
			if !utf8.ValidString(path) {
				if unnamed == "" || !strings.HasPrefix(path, unnamed+"/") {
					unnamed = path
					f.add(&pathError{"save", path, errNotUTF8})
				}
				return nil
			}
			c, err := s.saved(path, files)
			if err != nil {
				if isGone(err) && depth > 0 {
					return nil
				}
				return err
			}
			saved++
			return writeSaved(out, c)
		})
		if err != nil {
			return saved, err
		}
	}
	return saved, nil
}

// volatile are control files that can be read and written, and are no settings: they
// count, or do something. A name before which there is a star is an ending. Without its
// prefix, as noprefix has it, a file is the same.
var volatile = []string{
	"release_agent", "cgroup.event_control", "cgroup.freeze", "freezer.state", "cpuacct.usage",
	"*failcnt", "*max_usage_in_bytes", "*maxheld", "*minheld", "*.peak", "*.pressure", "*.oom_control", "*reset_stats",
}

// isSetting reports whether save writes a control file's value.
func isSetting(name string, mode p9.FileMode, root bool) bool {
	if mode&0o444 == 0 || mode&0o222 == 0 || slices.Contains(notValues, name) {
		return false
	}
	// A root's are what the machine has.
	if root && slices.Contains([]string{"cpuset.cpus", "cpuset.mems", "cpus", "mems"}, name) {
		return false
	}
	return !slices.ContainsFunc(volatile, func(v string) bool {
		end, isEnd := strings.CutPrefix(v, "*")
		if isEnd {
			return strings.HasSuffix("."+name, end)
		}
		return strings.HasSuffix("."+v, "."+name)
	})
}

// saved is a container as it is now.
func (s *session) saved(path string, files []string) (*savedContainer, error) {
	attr, err := s.attr(path)
	if err != nil {
		return nil, err
	}
	c := &savedContainer{Path: path, savedOwner: ownerOf(attr), Set: make(map[string]string), File: make(map[string]savedOwner)}
	root := isRoot(files)
	for _, name := range files {
		file := join(path, name)
		a, err := s.attr(file)
		if err != nil {
			return nil, err
		}
		mode := a.Mode.Permissions()
		if isUnusual(name, mode) || a.UID != attr.UID || a.GID != attr.GID {
			c.File[name] = ownerOf(a)
		}
		if !isSetting(name, mode, root) {
			continue
		}
		value, err := s.readFile(file)
		if errors.Is(err, linux.EINVAL) || errors.Is(err, linux.EOPNOTSUPP) {
			continue // the kernel's own way of having no value
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c.Set[name] = strings.TrimSuffix(value, "\n")
	}
	return c, nil
}

// isUnusual reports whether a control file has a mode that it was not made with.
func isUnusual(name string, mode p9.FileMode) bool {
	if name == "events" {
		return mode != 0o440
	}
	return mode != 0o644 && mode != 0o444 && mode != 0o200
}

func ownerOf(a p9.Attr) savedOwner {
	mode, uid, gid := modeBits(a.Mode), uint32(a.UID), uint32(a.GID)
	return savedOwner{&mode, &uid, &gid}
}

var errNotUTF8 = errors.New("its name is not UTF-8, which TOML is")

// writeSaved writes a container as TOML.
func writeSaved(out *bufio.Writer, c *savedContainer) error {
	fmt.Fprintf(out, "\n[[container]]\npath = %s\n", tomlString(c.Path))
	writeOwner(out, c.savedOwner)
	if len(c.Set) > 0 {
		fmt.Fprint(out, "[container.set]\n")
	}
	for _, name := range ops.SettingOrder(c.Set) {
		if !utf8.ValidString(c.Set[name]) {
			return fmt.Errorf("%s: %s is not UTF-8, which TOML is", printable(c.Path), name)
		}
		fmt.Fprintf(out, "%s = %s\n", tomlString(name), tomlString(c.Set[name]))
	}
	for _, name := range ops.SettingOrder(c.File) {
		fmt.Fprintf(out, "[container.file.%s]\n", tomlString(name))
		writeOwner(out, c.File[name])
	}
	return nil
}

func writeOwner(out *bufio.Writer, o savedOwner) {
	fmt.Fprintf(out, "mode = %s\nuid = %d\ngid = %d\n", tomlString(*o.Mode), *o.UID, *o.GID)
}
