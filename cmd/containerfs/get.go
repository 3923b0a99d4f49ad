package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

// notValues are files that get shows only when they are asked for by name: lists of
// tasks, and logs.
var notValues = []string{"tasks", "procs", "events", "cgroup.procs", "cgroup.threads"}

func getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "show values of a container",
		ArgsUsage: "PATH [NAME]...",
		Description: `One line name=value for each control file named, or for each that can be read
but lists of tasks and logs. Further lines of a value begin with a tab. -v shows
the values only, as the server gives them.

  containerfs get /all/Charlie cpuset.cpus cpuset.mems
  containerfs get -v /all/Charlie cpuacct.usage
  containerfs get --json /all/Charlie`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "v", Usage: "show values only"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			for _, name := range args[1:] {
				if err := checkFileName(name); err != nil {
					return err
				}
			}
			if err := checkPath(args[0]); err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				return get(c, s, args[0], args[1:])
			})
		},
	}
}

// checkFileName refuses what is no name of a control file.
func checkFileName(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return usagef("%q is no name of a control file", name)
	}
	return nil
}

func get(c *cli.Context, s *session, path string, names []string) error {
	f := failures{stderr: c.App.ErrWriter}
	named := len(names) > 0
	if !named {
		files, _, err := s.list(path)
		if err != nil {
			return &pathError{c.Command.Name, path, err}
		}
		names = files
	}
	for _, name := range names {
		file := join(path, name)
		if !named {
			attr, err := s.attr(file)
			if err == nil && (attr.Mode.Permissions()&0o444 == 0 || slices.Contains(notValues, name)) {
				continue
			}
		}
		value, err := s.readFile(file)
		if !named && (errors.Is(err, linux.EINVAL) || errors.Is(err, linux.EOPNOTSUPP)) {
			continue // of a kernel's controller, which only says so when it is read
		}
		if err == nil {
			err = showValue(c, path, name, value)
		}
		if err != nil {
			if f.add(&pathError{c.Command.Name, file, err}) {
				break
			}
		}
	}
	return f.first
}

func showValue(c *cli.Context, path, name, value string) (err error) {
	out := c.App.Writer
	switch {
	case c.Bool("json"):
		return writeJSON(out, struct {
			Path  string `json:"path"`
			Name  string `json:"name"`
			Value string `json:"value"`
		}{path, name, strings.TrimSuffix(value, "\n")})
	case c.Bool("v"):
		_, err = io.WriteString(out, value)
		return err
	}
	text := name + "="
	for i, line := range strings.Split(strings.TrimSuffix(value, "\n"), "\n") {
		if i > 0 {
			text += "\n\t"
		}
		text += printableValue(line)
	}
	_, err = fmt.Fprintln(out, text)
	return err
}

// printableValue is printable but for tabs, which are in tables.
func printableValue(line string) string {
	return strings.Join(slices.Collect(func(yield func(string) bool) {
		for part := range strings.SplitSeq(line, "\t") {
			if !yield(printable(part)) {
				return
			}
		}
	}), "\t")
}

func setCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "set values of a container",
		ArgsUsage: "PATH NAME=VALUE...",
		Description: `The values are written in the order given. All is done or nothing: when the
server refuses one, those before it are put back.

  containerfs set /all/Charlie cpuset.cpus=0-1 cpuset.mems=0
  containerfs set /all/Charlie notify_on_release=1`,
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, -1)
			if err != nil {
				return err
			}
			if err := checkPath(args[0]); err != nil {
				return err
			}
			values, err := parseSettings(args[1:])
			if err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				return setAll(s, args[0], values)
			})
		},
	}
}

// setting is a control file's name with a value to be written.
type setting struct{ name, value string }

func parseSettings(args []string) ([]setting, error) {
	var all []setting
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, usagef("%q: want NAME=VALUE", arg)
		}
		if err := checkFileName(name); err != nil {
			return nil, err
		}
		if len(value) >= maxCommand {
			return nil, usagef("the value of %s is too long", name)
		}
		all = append(all, setting{name, value})
	}
	return all, nil
}

// setAll writes all values or none.
func setAll(s *session, path string, values []setting) error {
	var undo undoList
	if err := setEach(s, path, values, &undo); err != nil {
		return undo.after(err)
	}
	return nil
}

// setEach writes values one after the other, and adds how each is taken back.
func setEach(s *session, path string, values []setting, undo *undoList) error {
	var old []string
	for _, v := range values {
		file := join(path, v.name)
		attr, err := s.attr(file)
		if err == nil && len(values) > 1 && attr.Mode.Permissions()&0o444 == 0 {
			// What it does cannot be taken back.
			return usagef("%s can only be written: set it by itself", file)
		}
		was := ""
		if err == nil && attr.Mode.Permissions()&0o444 != 0 {
			was, err = s.readFile(file)
		}
		if err != nil {
			return &pathError{"set", file, err}
		}
		old = append(old, was)
	}
	for i, v := range values {
		file := join(path, v.name)
		if err := s.writeFile(file, v.value); err != nil {
			return &pathError{"set", file, err}
		}
		undo.add("set "+file, func() error { return s.resetFile(file, old[i]) })
	}
	return nil
}

// modeBits is a mode as it is written.
func modeBits(m p9.FileMode) string { return fmt.Sprintf("%04o", m.Permissions()) }
