package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/localhost"
)

func treeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tree",
		Usage:     "show containers with their processes",
		ArgsUsage: "[PATH]...",
		Description: `Each container with the numbers of its processes and tasks, its processes with their
command lines, where the server is on this host, and what is below it. The processes
of a hierarchy's root, which are the rest of the host's, are shown with -a only.
A container that you may not read is said to be so, and the rest is shown.

  containerfs tree
  containerfs tree -a /all/Charlie
  containerfs tree --depth 1 --no-processes /all`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "a", Usage: "show the processes of hierarchies' roots, too"},
			&cli.BoolFlag{Name: "no-processes", Usage: "show containers only"},
			&cli.IntFlag{Name: "depth", Usage: "show so many `LEVELS` below PATH", Value: -1, DefaultText: "all"},
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
				t := treeView{c: c, s: s, out: out, here: s.isHere(), failures: failures{stderr: c.App.ErrWriter}}
				err := t.show(path)
				if flushed := out.Flush(); err == nil {
					err = flushed
				}
				return cmp.Or(err, t.first)
			})
		},
	}
}

// treeNode is a container as tree shows it.
type treeNode struct {
	Path      string        `json:"path"`
	Tasks     int           `json:"tasks"` // in it, not below
	Processes []treeProcess `json:"processes"`

	name     string
	root     bool
	hidden   bool // we may not read it
	children []*treeNode
}

type treeProcess struct {
	PID     int    `json:"pid"`
	Command string `json:"command,omitempty"`
}

// treeView is what is shown, and how.
type treeView struct {
	c    *cli.Context
	s    *session
	out  *bufio.Writer
	here bool

	failures
}

func (t *treeView) show(path string) error {
	tops, err := t.s.tops(path)
	if err != nil {
		return err
	}
	for _, top := range tops {
		node, err := t.read(top, 0)
		if err != nil {
			return err
		}
		node.name = top
		if t.c.Bool("json") {
			err = t.json(node)
		} else {
			t.draw(node, "", "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads a container and what is below. One that is removed meanwhile is nil,
// unless it is the first.
func (t *treeView) read(path string, depth int) (*treeNode, error) {
	files, children, err := t.s.list(path)
	n := &treeNode{Path: path}
	if err == nil {
		n.root = isRoot(files)
		if !slices.Contains(files, "tasks") {
			return nil, fmt.Errorf("not a container: %w", linux.ENOTDIR)
		}
		var tids []int
		tids, err = t.s.numbers(join(path, "tasks"))
		n.Tasks = len(tids)
	}
	var pids []int
	if err == nil {
		pids, err = t.s.numbers(join(path, "procs"))
	}
	if err != nil {
		if depth > 0 && isGone(err) {
			return nil, nil
		}
		return nil, err
	}
	for _, pid := range pids {
		p := treeProcess{PID: pid}
		if t.here && t.shows(n) {
			p.Command = localhost.CommandLine(pid)
		}
		n.Processes = append(n.Processes, p)
	}
	if limit := t.c.Int("depth"); limit >= 0 && depth >= limit {
		return n, nil
	}
	for _, name := range children {
		child, err := t.read(join(path, name), depth+1)
		var at *pathError
		if err != nil && !errors.As(err, &at) {
			err = &pathError{"read", join(path, name), err}
		}
		if errors.Is(err, linux.EACCES) && !t.add(err) {
			child, err = &treeNode{Path: join(path, name), hidden: true}, nil
		}
		if err != nil {
			return nil, err
		}
		if child != nil {
			child.name = name
			n.children = append(n.children, child)
		}
	}
	return n, nil
}

// shows reports whether a container's processes are shown.
func (t *treeView) shows(n *treeNode) bool {
	return !t.c.Bool("no-processes") && (!n.root || t.c.Bool("a"))
}

func (t *treeView) json(n *treeNode) error {
	if n.hidden {
		return nil
	}
	if !t.shows(n) || n.Processes == nil {
		count := len(n.Processes)
		err := writeJSON(t.out, struct {
			Path  string `json:"path"`
			Tasks int    `json:"tasks"`
			Count int    `json:"process_count"`
		}{n.Path, n.Tasks, count})
		if err != nil {
			return err
		}
	} else if err := writeJSON(t.out, struct {
		*treeNode
		Count int `json:"process_count"`
	}{n, len(n.Processes)}); err != nil {
		return err
	}
	for _, child := range n.children {
		if err := t.json(child); err != nil {
			return err
		}
	}
	return nil
}

// draw draws a container behind an indentation, and what is below it behind
// another.
func (t *treeView) draw(n *treeNode, first, rest string) {
	if n.hidden {
		fmt.Fprintf(t.out, "%s%s (not to be read)\n", first, printable(n.name))
		return
	}
	fmt.Fprintf(t.out, "%s%s (%s, %s)\n", first, printable(n.name), counted(len(n.Processes), "process", "processes"), counted(n.Tasks, "task", "tasks"))
	var processes []treeProcess
	if t.shows(n) {
		processes = n.Processes
	}
	for i, p := range processes {
		mark := "├─"
		if i == len(processes)-1 && len(n.children) == 0 {
			mark = "└─"
		}
		fmt.Fprintf(t.out, "%s%s%s\n", rest, mark, strings.TrimSuffix(fmt.Sprintf("%d %s", p.PID, printable(p.Command)), " "))
	}
	for i, child := range n.children {
		if i == len(n.children)-1 {
			t.draw(child, rest+"└─", rest+"  ")
		} else {
			t.draw(child, rest+"├─", rest+"│ ")
		}
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
