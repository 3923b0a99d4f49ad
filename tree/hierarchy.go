package tree

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// Hierarchy is a tree of containers with the subsystems bound to it.
type Hierarchy struct {
	tree     *Tree
	num      uint64 // orders the containers of a css group
	noprefix bool
	root     *Container

	// users counts who holds the hierarchy (see Hold).
	users atomic.Int64

	// The rest is changed with both locks held.

	name      string
	named     bool          // name was given: it is not made of the options
	bound     []*registered // in order of registration
	slots     [MaxSubsystems]int8
	active    bool // in Tree.hierarchies
	published bool // mounted
	explicit  bool // by a mount of its own: stays published when nobody holds it
	count     int  // containers, the root included
}

// newHierarchy makes a hierarchy without subsystems.
func newHierarchy(t *Tree, num, rootID uint64, name string, noprefix bool) *Hierarchy {
	h := &Hierarchy{tree: t, num: num, noprefix: noprefix, name: name, count: 1}
	for i := range h.slots {
		h.slots[i] = -1
	}
	h.root = &Container{id: rootID, h: h}
	return h
}

// Name is the hierarchy's name, which is its attach name. View or Change.
func (h *Hierarchy) Name() string { return h.name }

// Tree is the tree that the hierarchy is in.
func (h *Hierarchy) Tree() *Tree { return h.tree }

// Root is the hierarchy's root container.
func (h *Hierarchy) Root() *Container { return h.root }

// Noprefix reports whether control files lack their subsystem's prefix.
func (h *Hierarchy) Noprefix() bool { return h.noprefix }

// Number is the hierarchy's own number, never 0 for one that can be mounted.
func (h *Hierarchy) Number() uint64 { return h.num }

// Containers is the number of its containers. View or Change.
func (h *Hierarchy) Containers() int { return h.count }

// Active reports whether the hierarchy is still there. View or Change.
func (h *Hierarchy) Active() bool { return h.active }

// Published reports whether the hierarchy is mounted. View or Change.
func (h *Hierarchy) Published() bool { return h.published }

// Subsystems are the ids of its subsystems, in order. View or Change.
func (h *Hierarchy) Subsystems() SubsystemSet {
	var set SubsystemSet
	for _, r := range h.bound {
		set |= 1 << r.id
	}
	return set
}

// bind gives h's root the state of r; both locks held, or h not yet published.
func (h *Hierarchy) bind(r *registered, s State) {
	i, _ := slices.BinarySearchFunc(h.bound, r.id, func(b *registered, id int) int { return b.id - id })
	h.bound = slices.Insert(h.bound, i, r)
	h.root.states = slices.Insert(h.root.states, i, s)
	h.number()
}

// unbind takes r from h's root and returns its state; both locks held.
func (h *Hierarchy) unbind(r *registered) State {
	i := int(h.slots[r.id])
	s := h.root.states[i]
	h.bound = slices.Delete(h.bound, i, i+1)
	h.root.states = slices.Delete(h.root.states, i, i+1)
	h.slots[r.id] = -1
	h.number()
	return s
}

// number fills in slots: where a subsystem's state is in Container.states.
func (h *Hierarchy) number() {
	for i, r := range h.bound {
		h.slots[r.id] = int8(i)
	}
}

// SubsystemSet is a set of subsystem ids.
type SubsystemSet uint64

// Has reports whether id is in the set.
func (s SubsystemSet) Has(id int) bool { return s&(1<<id) != 0 }

// SubsystemNames are the names of all subsystems; an index is an id.
func (t *Tree) SubsystemNames() []string {
	names := make([]string, len(t.subsystems))
	for i, r := range t.subsystems {
		names[i] = r.Name()
	}
	return names
}

// SubsystemID is the id of the subsystem of a name, -1 if there is none.
func (t *Tree) SubsystemID(name string) int {
	return slices.IndexFunc(t.subsystems, func(r *registered) bool { return r.Name() == name })
}

// Files are the control files of a subsystem.
func (t *Tree) Files(id int) []File { return t.subsystems[id].files }

// Names joins the names of the subsystems in set.
func (t *Tree) Names(set SubsystemSet, sep string) string {
	var names []string
	for _, r := range t.subsystems {
		if set.Has(r.id) {
			names = append(names, r.Name())
		}
	}
	return strings.Join(names, sep)
}

// Hierarchies yields the active hierarchies, oldest first. View or Change.
func (t *Tree) Hierarchies(yield func(*Hierarchy) bool) {
	for _, h := range t.hierarchies {
		if !yield(h) {
			return
		}
	}
}

// Published returns the mounted hierarchy of that name, or nil. View or Change.
func (t *Tree) Published(name string) *Hierarchy {
	for _, h := range t.hierarchies {
		if h.name == name && h.published {
			return h
		}
	}
	return nil
}

// Bound returns the hierarchy that a subsystem is bound to, nil for the default
// one. View or Change.
func (t *Tree) Bound(id int) *Hierarchy {
	if h := t.subsystems[id].hierarchy; h != t.def {
		return h
	}
	return nil
}

// Remounts is how often a remount brought a subsystem to a hierarchy, where its files are new
// each time. View or Change.
func (t *Tree) Remounts(id int) int { return t.subsystems[id].remounts }

// Mount is what a mount asks for.
type Mount struct {
	Subsystems SubsystemSet
	Noprefix   bool
	Name       string // "": the canonical name, or the existing hierarchy's

	// Canonical says that Name is the canonical one, and not given: another set of
	// subsystems changes it.
	Canonical bool

	// Hold asks for a hierarchy that the caller holds (see Hold) instead of
	// a mount of its own, which only Unmount ends.
	Hold bool

	// Data makes what the root of a new hierarchy carries for the front end.
	Data func() any

	// Reuse decides whether a hierarchy that has exactly these subsystems
	// already is what is asked for.
	Reuse func(h *Hierarchy) error
}

// Mount activates a hierarchy with the subsystems asked for, or finds the one
// that has exactly these. Errors: EBUSY when a subsystem is bound elsewhere,
// when the name is another hierarchy's, or when the existing hierarchy has
// another name; EINVAL when no subsystem is asked for; the first of a subsystem's
// CanBind.
func (t *Tree) Mount(m Mount) (*Hierarchy, error) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	if m.Subsystems == 0 || !t.registers(m.Subsystems) {
		return nil, opError("mount", m.Name, syscall.EINVAL)
	}
	h, err := t.findMount(m)
	if err != nil {
		return nil, err
	}
	fresh, named := h == nil, m.Name != "" && !m.Canonical
	if fresh {
		if err := t.canBind(m.Subsystems, nil); err != nil {
			return nil, opError("mount", m.Name, err)
		}
		if m.Name == "" {
			m.Name = t.CanonicalName(m.Subsystems, m.Noprefix)
		}
		h = newHierarchy(t, t.nextHier, t.newID(), m.Name, m.Noprefix)
		t.nextHier++
		h.named = named
		if m.Data != nil {
			h.root.data = m.Data()
		}
	}
	t.mu.Lock()
	if fresh {
		t.rebindLocked(h, m.Subsystems)
		t.activateLocked(h)
	}
	if !h.published {
		t.observeLocked(Event{Kind: Mounted, Hierarchy: h})
	}
	h.published = true
	if m.Hold {
		h.Hold()
	} else {
		h.explicit = true
	}
	t.keepHierarchyLocked(h)
	t.mu.Unlock()
	if fresh {
		t.tellBound(m.Subsystems)
	}
	return h, nil
}

// canBind asks the subsystems in set whether they may be bound to h, nil for one
// that is to be made. Under changeMu.
func (t *Tree) canBind(set SubsystemSet, h *Hierarchy) error {
	for _, r := range t.subsystems {
		if set.Has(r.id) && r.canBind != nil {
			if err := r.canBind.CanBind(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// registers reports whether all of set are subsystems.
func (t *Tree) registers(set SubsystemSet) bool { return set>>len(t.subsystems) == 0 }

// CanonicalName is the name of a hierarchy that was given none (SPEC §1).
func (t *Tree) CanonicalName(set SubsystemSet, noprefix bool) string {
	name := t.Names(set, "+")
	if noprefix {
		name += "+noprefix"
	}
	return name
}

// findMount returns the active hierarchy that m describes, nil if there is none
// and a new one may be made. Under changeMu.
func (t *Tree) findMount(m Mount) (*Hierarchy, error) {
	for _, h := range t.hierarchies {
		if h.Subsystems() == m.Subsystems && h.noprefix == m.Noprefix {
			if m.Name != "" && m.Name != h.name {
				return nil, opError("mount", m.Name+", which is "+h.name, syscall.EBUSY)
			}
			if m.Reuse != nil {
				if err := m.Reuse(h); err != nil {
					return nil, opError("mount", h.name, err)
				}
			}
			return h, nil
		}
	}
	name := m.Name
	if name == "" {
		name = t.CanonicalName(m.Subsystems, m.Noprefix)
	}
	for _, h := range t.hierarchies {
		if h.name == name {
			return nil, opError("mount", name+", another's name", syscall.EBUSY)
		}
	}
	for _, r := range t.subsystems {
		if m.Subsystems.Has(r.id) && r.hierarchy != t.def {
			return nil, opError("mount", name+", as "+r.Name()+" is in "+r.hierarchy.name, syscall.EBUSY)
		}
	}
	return nil, nil
}

// rebindLocked gives h exactly the subsystems in set; those added come from the
// default hierarchy and those removed go back there, with their root states.
func (t *Tree) rebindLocked(h *Hierarchy, set SubsystemSet) {
	for _, r := range t.subsystems {
		switch has := r.hierarchy == h; {
		case set.Has(r.id) && !has:
			h.bind(r, t.def.unbind(r))
			r.hierarchy = h
		case !set.Has(r.id) && has:
			t.def.bind(r, h.unbind(r))
			r.hierarchy = t.def
		}
	}
}

// tellBound calls Bind for the subsystems in set. Under changeMu.
func (t *Tree) tellBound(set SubsystemSet) {
	for _, r := range t.subsystems {
		if set.Has(r.id) && r.bind != nil {
			r.bind.Bind(r.hierarchy.root)
		}
	}
}

// RemountRequest asks for other subsystems for a hierarchy.
type RemountRequest struct {
	Hierarchy  *Hierarchy
	Subsystems SubsystemSet
	Noprefix   bool

	// Done, if any, is called with both locks held when it is done.
	Done func()
}

// Remount gives a hierarchy the subsystems asked for, and with them a new name
// if it was not given one. Errors, in this order: ENOENT when it is not active,
// EINVAL when noprefix differs, EBUSY when a subsystem is bound elsewhere, EBUSY
// when the root has a child, the first of a subsystem's CanBind, EBUSY when the new
// name is another hierarchy's.
func (t *Tree) Remount(q RemountRequest) error {
	h, set := q.Hierarchy, q.Subsystems
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	switch {
	case !h.active:
		return opError("remount", h.name, syscall.ENOENT)
	case set == 0 || !t.registers(set):
		return opError("remount", h.name, syscall.EINVAL)
	case q.Noprefix != h.noprefix:
		return opError("remount", h.name, fmt.Errorf("noprefix stays as it is: %w", syscall.EINVAL))
	}
	for _, r := range t.subsystems {
		if set.Has(r.id) && r.hierarchy != t.def && r.hierarchy != h {
			return opError("remount", h.name+", as "+r.Name()+" is in "+r.hierarchy.name, syscall.EBUSY)
		}
	}
	if h.root.children.len() > 0 {
		return opError("remount", h.name, errHasChildren)
	}
	if err := t.canBind(set&^h.Subsystems(), h); err != nil {
		return opError("remount", h.name, err)
	}
	name := h.name
	if !h.named {
		name = t.CanonicalName(set, h.noprefix)
	}
	for _, o := range t.hierarchies {
		if o != h && o.name == name {
			return opError("remount", name, syscall.EBUSY)
		}
	}
	changed := h.Subsystems() ^ set
	t.mu.Lock()
	for _, r := range t.subsystems {
		if set.Has(r.id) && r.hierarchy != h {
			r.remounts++ // not when one that took it away is undone
		}
	}
	t.rebindLocked(h, set)
	h.name = name
	if q.Done != nil {
		q.Done()
	}
	t.observeLocked(Event{Kind: Remounted, Hierarchy: h})
	t.keepHierarchyLocked(h)
	t.mu.Unlock()
	t.tellBound(changed)
	return nil
}

// Unmount ends the mount of h, whoever still holds it. With children h stays
// active, unpublished; without any it is deactivated.
func (t *Tree) Unmount(h *Hierarchy) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	if !h.active || !h.published {
		return opError("unmount", h.name, syscall.ENOENT)
	}
	t.mu.Lock()
	h.published, h.explicit = false, false
	t.observeLocked(Event{Kind: Unmounted, Hierarchy: h})
	t.keepHierarchyLocked(h)
	t.mu.Unlock()
	t.deactivateIdle(h)
	return nil
}

// Hold keeps h mounted until Release. It may be called by who holds h already,
// or in View after a look at Published.
func (h *Hierarchy) Hold() { h.users.Add(1) }

// Release undoes one Hold. The last one unmounts h, unless it has a mount of
// its own. It must not be called inside View, Update or Change.
func (h *Hierarchy) Release() {
	if h.users.Add(-1) > 0 {
		return
	}
	t := h.tree
	idle := true
	t.View(func() { idle = !h.active || h.explicit })
	if idle {
		return // there is nothing to unmount; who changes that does it
	}
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	t.mu.Lock()
	if h.published && !h.explicit && h.users.Load() == 0 {
		h.published = false
		t.observeLocked(Event{Kind: Unmounted, Hierarchy: h})
	}
	t.mu.Unlock()
	t.deactivateIdle(h)
}

// deactivateIdle gives h's subsystems back when h is not published and has no
// children. Who has a fid in it finds its root removed. Under changeMu.
func (t *Tree) deactivateIdle(h *Hierarchy) {
	if !h.active || h.published || h.root.children.len() > 0 {
		return
	}
	set := h.Subsystems()
	t.mu.Lock()
	t.rebindLocked(h, 0)
	t.retireLocked(h)
	t.keepHierarchyLocked(h)
	t.mu.Unlock()
	t.tellBound(set)
}

// activateLocked puts h among those that are active.
func (t *Tree) activateLocked(h *Hierarchy) {
	h.active, h.root.removed = true, false
	t.hierarchies = append(t.hierarchies, h)
	slices.SortFunc(t.hierarchies, func(a, b *Hierarchy) int { return cmp.Compare(a.num, b.num) })
	t.containers++
}

// retireLocked undoes that, when h has given its subsystems back.
func (t *Tree) retireLocked(h *Hierarchy) {
	h.active = false
	h.root.removed = true
	t.hierarchies = slices.DeleteFunc(t.hierarchies, func(x *Hierarchy) bool { return x == h })
	t.containers--
}
