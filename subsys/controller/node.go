package controller

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// A node is the kernel directory of a container. Its name is the container's id,
// so that no user's name gets into the kernel.
type node struct {
	t      *trunk
	id     uint64
	parent *node // nil for the base
	c      *tree.Container

	set   settings
	tasks [2]taskLimit // by who limits (see Limits)

	// Guarded by changeMu.
	refs       int  // subsystems that have it as their state
	controlled bool // version 2: its controllers are handed down
	adopted    bool // its directory was there
	drift      int  // of its tasks, when last said
}

// maxStep is the longest path that is opened at once: less than the kernel's
// 4096.
const maxStep = 4000

// path is the way from the base, "." for that.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	name := strconv.FormatUint(n.id, 10)
	if n.parent.parent == nil {
		return name
	}
	return n.parent.path() + "/" + name
}

// place is where the node's own tasks are, from the base.
func (n *node) place() string {
	switch {
	case n.t.version == 1:
		return n.path()
	case n.parent == nil:
		return leaf
	}
	return n.path() + "/" + leaf
}

// open opens the directory. No lock is needed.
func (n *node) open() (*kernfs.Dir, error) { return n.t.openBelow(n.path()) }

// openBelow opens a directory by its way from the base.
func (t *trunk) openBelow(path string) (*kernfs.Dir, error) {
	base := t.baseDir.Load()
	if base == nil {
		return nil, unix.ENODEV
	}
	dir, err := base.Open(cut(&path))
	for err == nil && path != "" {
		var next *kernfs.Dir
		next, err = dir.Open(cut(&path))
		dir.Close()
		dir = next
	}
	return dir, err
}

// cut takes as many whole elements from the path as can be opened at once.
func cut(path *string) string {
	p := *path
	if len(p) <= maxStep {
		*path = ""
		return p
	}
	i := maxStep
	for p[i] != '/' {
		i--
	}
	*path = p[i+1:]
	return p[:i]
}

// state is the node of a container, for one more subsystem. Under changeMu.
func (t *trunk) state(c *tree.Container, parent *node) (*node, error) {
	if n := t.nodes[c.ID()]; n != nil {
		n.refs++
		return n, nil
	}
	n := &node{t: t, id: c.ID(), parent: parent, c: c, refs: 1}
	err := t.establish(n)
	if kernfs.IsGone(err) {
		if err = t.revive(parent); err == nil {
			err = t.establish(n)
		}
	}
	if err != nil {
		t.remove(n)
		return nil, err
	}
	t.tree.Update(func() { t.nodes[n.id] = n })
	return n, nil
}

// establish makes a node's directory in its parent's, or finds it there.
func (t *trunk) establish(n *node) error {
	above, err := n.parent.open()
	if err != nil {
		return err
	}
	defer above.Close()
	if t.version == 2 && n.parent.parent != nil && !n.parent.controlled {
		if err := t.control(above, t.bound()); err != nil {
			return err
		}
		n.parent.controlled = true
	}
	name := strconv.FormatUint(n.id, 10)
	if err := above.Make(name); errors.Is(err, unix.EEXIST) {
		n.adopted = true
	} else if err != nil {
		return err
	}
	if t.version == 2 {
		dir, err := above.Open(name)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := dir.Make(leaf); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// bound are the controllers that are bound to the hierarchy.
func (t *trunk) bound() (names []string) {
	for _, s := range t.subs {
		if s.bound && s.name != Core {
			names = append(names, s.name)
		}
	}
	return names
}

// revive makes the directories of a node and of those above it again, where
// somebody else has removed them, with what clients have set there. Under changeMu.
func (t *trunk) revive(n *node) error {
	if n.parent == nil {
		dir, err := t.parent.Open(t.baseName)
		if err == nil {
			dir.Close()
			if dir, err = t.openBelow(n.place()); err == nil {
				dir.Close()
				return nil
			}
		}
		t.log.Warn("somebody else removed the base of the kernel directories: made again", "name", t.baseName)
		err = t.makeBase()
		if err == nil {
			n.setAgain()
		}
		return err
	}
	if dir, err := t.openBelow(n.place()); err == nil {
		dir.Close()
		return nil
	}
	if err := t.revive(n.parent); err != nil {
		return err
	}
	t.log.Warn("somebody else removed a container's kernel directory: made again, with what was set there", "path", n.path())
	n.controlled = false
	n.parent.controlled = false
	err := t.establish(n)
	if err == nil {
		n.setAgain()
	}
	return err
}

// release ends the use of a node by one subsystem; the last one removes the
// directory. Under changeMu.
func (t *trunk) release(n *node) {
	if n.refs--; n.refs > 0 {
		return
	}
	t.tree.Update(func() { delete(t.nodes, n.id) })
	t.remove(n)
}

// remove removes a node's directory, now or, while the kernel has tasks there
// that are on their way out, later.
func (t *trunk) remove(n *node) {
	err := t.tryRemove(n)
	for i := 0; i < 4 && errors.Is(err, unix.EBUSY); i++ {
		time.Sleep(100 * time.Microsecond << i)
		err = t.tryRemove(n)
	}
	if errors.Is(err, unix.EBUSY) {
		t.late = append(t.late, n)
	} else if err != nil {
		t.log.Warn("a container's kernel directory is left over", "path", n.path(), "err", err)
	}
}

func (t *trunk) tryRemove(n *node) error {
	above, err := n.parent.open()
	if kernfs.IsGone(err) {
		return nil
	} else if err != nil {
		return err
	}
	defer above.Close()
	name := strconv.FormatUint(n.id, 10)
	if t.version == 2 {
		if dir, err := above.Open(name); err == nil {
			err = dir.Remove(leaf)
			dir.Close()
			if err != nil && !kernfs.IsGone(err) {
				return err
			}
		}
	}
	if err := above.Remove(name); err != nil && !kernfs.IsGone(err) {
		return err
	}
	return nil
}

// evict removes the directory of a container that is gone, with whatever somebody
// else has put there.
func (t *trunk) evict(n *node) error {
	above, err := n.parent.open()
	if kernfs.IsGone(err) {
		return nil
	} else if err != nil {
		return err
	}
	defer above.Close()
	return above.Clear(strconv.FormatUint(n.id, 10), t.list(), func(id int32) error {
		t.log.Warn("somebody else moved a task to a removed container's kernel directory: it goes to the base", "id", id, "path", n.path())
		return t.toBase(id)
	})
}

// toBase moves a task, in version 2 a process, to the base.
func (t *trunk) toBase(id int32) error {
	dir, err := t.openBelow(t.base.place())
	if err != nil {
		return err
	}
	defer dir.Close()
	return t.move(dir, id)
}
