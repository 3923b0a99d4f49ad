package tree

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
)

// MaxPath is the longest path of a container, in bytes (SPEC §3).
const MaxPath = 4095

// Container is a node of a hierarchy. Its methods need View or Change, but for
// those that only return what never changes.
type Container struct {
	id     uint64
	h      *Hierarchy
	parent *Container

	// data is the front end's. It is set at mkdir and never changes.
	data any

	// The rest is guarded by mu; what is marked C is changed only inside
	// changes, so that Change is enough to read it.

	name     string     // C
	children *childList // C, nil without any
	states   []State    // C, indexed by Hierarchy.slots
	links    *link      // the css groups that contain it, nil for a root
	refs     atomic.Int32
	pins     atomic.Int32 // writes of File.Pass under way
	linked   int32        // length of links
	// populated is the number of css groups with tasks in this container or
	// below.
	populated   int32
	descendants int32   // C
	limits      *Limits // C, nil without any

	vacated         bool // see Vacated
	removed         bool // C
	notifyOnRelease bool // C
	releasable      bool
	served          bool  // a release of it has fired and is being served
	releases        uint8 // that have fired and are not done
}

// ID is unique among all containers of all hierarchies, for ever. Ids of
// siblings are in order of creation.
func (c *Container) ID() uint64 { return c.id }

// Hierarchy is the hierarchy that the container is in.
func (c *Container) Hierarchy() *Hierarchy { return c.h }

// Tree is the tree that the container is in.
func (c *Container) Tree() *Tree { return c.h.tree }

// Parent is nil for the root of a hierarchy.
func (c *Container) Parent() *Container { return c.parent }

// IsRoot reports whether the container is the root of its hierarchy.
func (c *Container) IsRoot() bool { return c.parent == nil }

// Data is what Mkdir was given for the front end.
func (c *Container) Data() any { return c.data }

// Name is empty for a root.
func (c *Container) Name() string { return c.name }

// Removed reports whether the container is gone: whatever is asked of it is
// ENODEV.
func (c *Container) Removed() bool { return c.removed }

// State is the state of a subsystem in the container. It panics when the
// subsystem is not bound to the container's hierarchy.
func (c *Container) State(id int) State { return c.states[c.h.slots[id]] }

// NumChildren is the number of child containers.
func (c *Container) NumChildren() int { return c.children.len() }

// Child returns the child of that name, or nil.
func (c *Container) Child(name string) *Container { return c.children.get(name) }

// Children yields the children in order of creation, those with an id above
// after. Finding the first one costs the logarithm of their number.
func (c *Container) Children(after uint64, yield func(*Container) bool) {
	c.children.each(after, yield)
}

// EachBelow calls enter for the containers below c, parents first and siblings in order of
// creation; those below one of which it says no are left out. View or Change.
func (c *Container) EachBelow(enter func(*Container) bool) {
	var each func(*Container) bool
	each = func(k *Container) bool {
		if enter(k) {
			k.Children(0, each)
		}
		return true
	}
	c.Children(0, each)
}

// Path is the path within the hierarchy, "/" for the root.
func (c *Container) Path() string { return string(c.AppendPath(nil)) }

// ServedPath is the path in the served name space, where each hierarchy has its name.
func (c *Container) ServedPath() string {
	if c.IsRoot() {
		return "/" + c.h.name
	}
	return "/" + c.h.name + c.Path()
}

// AppendPath appends the path to b.
func (c *Container) AppendPath(b []byte) []byte {
	if c.IsRoot() {
		return append(b, '/')
	}
	start := len(b)
	b = slices.Grow(b, c.pathLen())
	b = b[:start+c.pathLen()]
	end := len(b)
	for ; !c.IsRoot(); c = c.parent {
		end -= len(c.name)
		copy(b[end:], c.name)
		end--
		b[end] = '/'
	}
	return b
}

// pathLen is the length of the path, 0 for a root.
func (c *Container) pathLen() int {
	n := 0
	for ; !c.IsRoot(); c = c.parent {
		n += 1 + len(c.name)
	}
	return n
}

// IsBelow reports whether the container is a or a descendant of a.
func (c *Container) IsBelow(a *Container) bool {
	for c != nil && c != a {
		c = c.parent
	}
	return c != nil
}

func (t *Tree) newID() uint64 {
	t.nextID++
	return t.nextID
}

// MkdirRequest asks for a container.
type MkdirRequest struct {
	Actor  *Actor
	Parent *Container
	Name   string

	// Allow is the front end's permission check, made inside the change.
	Allow func() error

	// ForTasks has the subsystems' states prepared by their PostClone, so that tasks can
	// be attached at once.
	ForTasks bool

	// Data makes what the container carries for the front end.
	Data func() any
}

// Mkdir makes a container. Errors: ENODEV when the parent is removed, Allow's,
// EEXIST, ENAMETOOLONG, EAGAIN over a limit, and the first error of a subsystem's
// CanMkdir, Create or PostClone, after which those that were created are destroyed.
func (t *Tree) Mkdir(r MkdirRequest) (*Container, error) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	return t.mkdir(r)
}

// mkdir is Mkdir inside a change.
func (t *Tree) mkdir(r MkdirRequest) (*Container, error) {
	p := r.Parent
	if p.removed {
		return nil, opError("mkdir", r.Name, syscall.ENODEV)
	}
	if r.Allow != nil {
		if err := r.Allow(); err != nil {
			return nil, err
		}
	}
	if p.children.get(r.Name) != nil {
		return nil, opError("mkdir", r.Name, syscall.EEXIST)
	}
	if p.pathLen()+1+len(r.Name) > MaxPath {
		return nil, opError("mkdir", r.Name, syscall.ENAMETOOLONG)
	}
	if err := t.roomBelow(p, r.ForTasks); err != nil {
		return nil, opError("mkdir", r.Name, err)
	}
	for _, b := range p.h.bound {
		if b.canMkdir != nil {
			if err := b.canMkdir.CanMkdir(r.Actor, p); err != nil {
				return nil, opError("mkdir", r.Name, err)
			}
		}
	}
	c := &Container{id: t.newID(), h: p.h, parent: p, name: r.Name, notifyOnRelease: p.notifyOnRelease}
	if err := t.createStates(c); err != nil {
		return nil, opError("mkdir", r.Name, err)
	}
	if r.ForTasks {
		if err := postClone(c); err != nil {
			c.destroyStates(len(c.states))
			return nil, opError("mkdir", r.Name, err)
		}
	}
	if r.Data != nil {
		c.data = r.Data()
	}
	t.Update(func() {
		t.addChildLocked(c)
		t.observeLocked(Event{Kind: Made, Container: c})
		t.Keep(c)
	})
	return c, nil
}

// addChildLocked puts c among its parent's children, and counts it.
func (t *Tree) addChildLocked(c *Container) {
	if c.parent.children == nil {
		c.parent.children = new(childList)
	}
	c.parent.children.add(c)
	t.countLocked(c, 1)
}

// removeChildLocked undoes addChildLocked, and marks c as removed.
func (t *Tree) removeChildLocked(c *Container) {
	c.removed = true
	c.parent.children.remove(c)
	if c.parent.children.len() == 0 {
		c.parent.children = nil
	}
	t.countLocked(c, -1)
	t.observeLocked(Event{Kind: Removed, Container: c})
}

// createStates makes the states of a container: all, or none.
func (t *Tree) createStates(c *Container) error {
	c.states = make([]State, len(c.h.bound))
	for i, s := range c.h.bound {
		state, err := s.Create(c)
		if err != nil {
			c.destroyStates(i)
			return err
		}
		c.states[i] = state
	}
	return nil
}

// destroyStates destroys the first n states, in reverse.
func (c *Container) destroyStates(n int) {
	for i := n - 1; i >= 0; i-- {
		c.h.bound[i].Destroy(c, c.states[i])
	}
}

// Rmdir removes a container. Errors: ENODEV when it is gone already, Allow's,
// and EBUSY for a root, with tasks, with children, with references held, and while a
// File.Pass is under way.
func (t *Tree) Rmdir(c *Container, allow func() error) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	return t.rmdir(c, allow)
}

// rmdir is Rmdir inside a change.
func (t *Tree) rmdir(c *Container, allow func() error) error {
	if c.removed {
		return opError("rmdir", c.name, syscall.ENODEV)
	}
	if allow != nil {
		if err := allow(); err != nil {
			return err
		}
	}
	if c.IsRoot() {
		return opError("rmdir", c.h.name, fmt.Errorf("the root of a hierarchy goes by umount: %w", syscall.EBUSY))
	}
	if err := t.inUse(c); err != nil {
		return opError("rmdir", c.name, err)
	}
	t.mu.Lock()
	if c.linked > 0 { // a fork that CLONE_PARENT or the mirror brought in since
		t.mu.Unlock()
		return opError("rmdir", c.name, errHasTasks)
	}
	t.removeChildLocked(c)
	c.parent.releasable = true
	t.releaseLocked(c.parent)
	t.Keep(c)
	t.mu.Unlock()
	c.destroyStates(len(c.states))
	t.deactivateIdle(c.h)
	return nil
}

var (
	errHasTasks    = fmt.Errorf("it has tasks: %w", syscall.EBUSY)
	errHasChildren = fmt.Errorf("it has children: %w", syscall.EBUSY)
	errIsHeld      = fmt.Errorf("a subsystem is at work in it: %w", syscall.EBUSY)
)

// inUse is what keeps c from being removed, in the order of SPEC §3. Under changeMu.
func (t *Tree) inUse(c *Container) error {
	switch {
	case t.hasTasks(c):
		return errHasTasks
	case c.children.len() > 0:
		return errHasChildren
	case c.refs.Load() > 0 || c.pins.Load() > 0:
		return errIsHeld
	}
	return nil
}

// hasTasks reports whether a task is in c. An exit that has happened but is
// not yet known is found out: the events are drained, and then the members
// looked up on the host. Under changeMu.
func (t *Tree) hasTasks(c *Container) bool {
	linked := func() bool {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return c.linked > 0
	}
	if !linked() {
		// A fork that the model lacks has its forker in the model, in c.
		return false
	}
	if t.host.Drain(); !linked() {
		return false
	}
	for range maxRounds {
		var members []Entry
		t.View(func() {
			c.EachTask(func(m *Task) {
				if len(members) < maxRecheck {
					members = append(members, m.Entry())
				}
			})
		})
		if t.anyListed(members) {
			return true
		}
		// What they forked before they ended is placed as theirs.
		t.host.Drain()
		t.RemoveGone(members...)
		if !linked() {
			return false
		}
	}
	return true
}

// maxRecheck bounds how many members rmdir looks up on the host at once.
const maxRecheck = 4096

// RenameRequest asks for a new name in place.
type RenameRequest struct {
	Parent   *Container
	Old, New string
	Allow    func(c *Container) error

	// Also, if any, changes of the container what is kept with its new name. It is called in
	// Update.
	Also func(c *Container)
}

// Rename gives a child of Parent another name. Errors: ENODEV when the parent
// is removed, Allow's, ENOENT, EEXIST, and ENAMETOOLONG for the longest path
// below.
func (t *Tree) Rename(r RenameRequest) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	p := r.Parent
	if p.removed {
		return opError("rename", r.Old, syscall.ENODEV)
	}
	c := p.children.get(r.Old)
	if c == nil {
		return opError("rename", r.Old, syscall.ENOENT)
	}
	if r.Allow != nil {
		if err := r.Allow(c); err != nil {
			return err
		}
	}
	if r.New == r.Old {
		return nil
	}
	if p.children.get(r.New) != nil {
		return opError("rename", r.New, syscall.EEXIST)
	}
	if len(r.New) > len(r.Old) && c.pathLen()-len(r.Old)+len(r.New)+c.longestBelow() > MaxPath {
		return opError("rename", r.New, syscall.ENAMETOOLONG)
	}
	t.mu.Lock()
	p.children.rename(c, r.New)
	if r.Also != nil {
		r.Also(c)
	}
	t.observeLocked(Event{Kind: Renamed, Container: c, Name: r.Old})
	t.Keep(c)
	t.mu.Unlock()
	return nil
}

// longestBelow is the length of the longest path below c, from c on, in bytes.
func (c *Container) longestBelow() int {
	longest := 0
	c.Children(0, func(k *Container) bool {
		longest = max(longest, 1+len(k.name)+k.longestBelow())
		return true
	})
	return longest
}

// ReadFile reads a control file of a subsystem. ENODEV when c is removed or the
// subsystem is not bound to its hierarchy any more, EINVAL when the file cannot
// be read.
func (t *Tree) ReadFile(c *Container, f *File, b []byte) ([]byte, error) {
	if f.Fetch != nil {
		v, err := f.Fetch(c)
		if err != nil {
			return b, opError("read", f.Name, err)
		}
		return append(b, v...), nil
	}
	if f.Prepare != nil {
		if err := f.Prepare(c); err != nil {
			return b, opError("read", f.Name, err)
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return c.ReadFile(f, b)
}

// ReadFile is Tree.ReadFile inside a View, for who has called Prepare.
func (c *Container) ReadFile(f *File, b []byte) ([]byte, error) {
	switch {
	case f.Read == nil:
		return b, opError("read", f.Name, syscall.EINVAL)
	case !c.has(f):
		return b, opError("read", f.Name, syscall.ENODEV)
	}
	return f.Read(c, b)
}

// WriteFile writes a control file of a subsystem: one command. Errors are as
// ReadFile's.
func (t *Tree) WriteFile(a *Actor, c *Container, f *File, data []byte) error {
	if f.Pass != nil {
		return t.passFile(a, c, f, data)
	}
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	switch {
	case f.Write == nil:
		return opError("write", f.Name, syscall.EINVAL)
	case !c.has(f):
		return opError("write", f.Name, syscall.ENODEV)
	}
	err := f.Write(a, c, data)
	if err == nil && t.keeper != nil {
		t.Update(func() { t.Keep(c) })
	}
	return err
}

// passFile is WriteFile of a file with Pass.
func (t *Tree) passFile(a *Actor, c *Container, f *File, data []byte) error {
	err := t.Change(func() error {
		if !c.has(f) {
			return opError("write", f.Name, syscall.ENODEV)
		}
		c.pins.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	defer c.pins.Add(-1)
	if err := f.Pass(a, c, data); err != nil {
		return opError("write", f.Name, err)
	}
	if t.keeper == nil {
		return nil
	}
	return t.Change(func() error {
		if c.has(f) {
			t.Update(func() { t.Keep(c) })
		}
		return nil
	})
}

// has reports whether a file of the container is there: a remount takes the
// subsystem's away.
func (c *Container) has(f *File) bool { return !c.removed && c.h.slots[f.subsystem] >= 0 }
