// Package debug is the subsystem that shows the model's own bookkeeping (SPEC
// §13). It measures and limits nothing, which makes it the smallest example of a
// tree.Subsystem: no state, no effect, only files, and a table row for each.
//
// "Current" in a file's name was the reading process when the framework was part
// of a kernel. Here the task that serves the read is the server's, so these files
// tell of the first thread of the server's own process.
package debug

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"syscall"

	"containerfs/tree"
)

// Subsystem is the debug subsystem. It has no state: all is in the tree.
type Subsystem struct{}

// Name is tree.Subsystem's.
func (Subsystem) Name() string { return "debug" }

// Create is tree.Subsystem's.
func (Subsystem) Create(*tree.Container) (tree.State, error) { return nil, nil }

// Destroy is tree.Subsystem's.
func (Subsystem) Destroy(*tree.Container, tree.State) {}

// Files is tree.Subsystem's.
func (Subsystem) Files() []tree.File { return files }

var files = []tree.File{
	{Name: "container_refcount", Read: number(refcount)},
	{Name: "taskcount", Read: number(func(c *tree.Container) (uint64, error) { return uint64(c.NumTasks()), nil })},
	{Name: "current_css_group", Read: number(currentGroup)},
	{Name: "current_css_group_refcount", Read: number(currentGroupRefcount)},
	{Name: "css_groups", Read: readGroups},
}

// number makes the reader of a file with one number.
func number(value func(*tree.Container) (uint64, error)) func(*tree.Container, []byte) ([]byte, error) {
	return func(c *tree.Container, b []byte) ([]byte, error) {
		n, err := value(c)
		if err != nil {
			return b, err
		}
		return append(strconv.AppendUint(b, n, 10), '\n'), nil
	}
}

// refcount counts what holds a container: each css group with tasks that contains
// it, and each reference that a subsystem took.
func refcount(c *tree.Container) (uint64, error) { return uint64(c.CSSGroups() + c.Refs()), nil }

// current is the css group of the server. ESRCH where the model does not have
// the server's task yet, or lost it.
func current(c *tree.Container) (*tree.Group, error) {
	if task := c.Tree().Task(int32(os.Getpid())); task != nil {
		return task.Group(), nil
	}
	return nil, syscall.ESRCH
}

// currentGroup is the number that the mirror has the group under.
func currentGroup(c *tree.Container) (uint64, error) {
	g, err := current(c)
	if err != nil {
		return 0, err
	}
	return g.Num(), nil
}

// currentGroupRefcount counts tasks: only they hold a css group.
func currentGroupRefcount(c *tree.Container) (uint64, error) {
	g, err := current(c)
	if err != nil {
		return 0, err
	}
	return uint64(g.Tasks()), nil
}

// readGroups lists the css groups with tasks in c: number and tasks of each,
// oldest first.
func readGroups(c *tree.Container, b []byte) ([]byte, error) {
	var groups []*tree.Group
	c.EachCSSGroup(func(g *tree.Group) { groups = append(groups, g) })
	slices.SortFunc(groups, func(g, o *tree.Group) int { return cmp.Compare(g.Num(), o.Num()) })
	for _, g := range groups {
		b = strconv.AppendUint(b, g.Num(), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(g.Tasks()), 10)
		b = append(b, '\n')
	}
	return b, nil
}
