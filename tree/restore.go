package tree

import (
	"cmp"
	"slices"
	"syscall"
)

// What was kept is put back by the functions Restore..., after New and before there
// are tasks: hierarchies first, then containers in the order of their ids, groups,
// and the numbers that are next. Nothing of it is observed, or kept again.

// RestoreHierarchy makes a hierarchy as it was kept. It is mounted if that was
// explicit: who held it otherwise is gone.
func (t *Tree) RestoreHierarchy(k KeptHierarchy) (*Hierarchy, error) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	if k.Subsystems == 0 || !t.registers(k.Subsystems) || k.Number == 0 {
		return nil, opError("restore", k.Name, syscall.EINVAL)
	}
	for _, r := range t.subsystems {
		if k.Subsystems.Has(r.id) && r.hierarchy != t.def {
			return nil, opError("restore", k.Name, syscall.EBUSY)
		}
	}
	for _, h := range t.hierarchies {
		if h.num >= k.Number || h.name == k.Name {
			return nil, opError("restore", k.Name, syscall.EEXIST)
		}
	}
	h := newHierarchy(t, k.Number, k.Root.ID, k.Name, k.Noprefix)
	t.nextID, t.nextHier = max(t.nextID, k.Root.ID), max(t.nextHier, k.Number+1)
	h.root.data = k.Root.Data
	h.root.notifyOnRelease, h.root.releasable = k.Root.NotifyOnRelease, k.Root.Releasable
	h.named, h.explicit, h.published = k.Named, k.Explicit, k.Explicit
	t.Update(func() {
		t.rebindLocked(h, k.Subsystems)
		t.activateLocked(h)
	})
	t.tellBound(k.Subsystems)
	return h, nil
}

// RestoreContainer makes a container as it was kept.
func (t *Tree) RestoreContainer(parent *Container, k Kept) (*Container, error) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	if k.ID <= parent.id || k.Name == "" || parent.children.get(k.Name) != nil {
		return nil, opError("restore", k.Name, syscall.EINVAL)
	}
	c := &Container{id: k.ID, h: parent.h, parent: parent, data: k.Data}
	t.nextID = max(t.nextID, k.ID)
	if err := t.createStates(c); err != nil {
		return nil, opError("restore", k.Name, err)
	}
	if err := t.restoreStates(c, k.States); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.setKeptLocked(k)
	c.name = k.Name
	t.addChildLocked(c)
	if k.Released {
		t.unreleased = append(t.unreleased, c)
	}
	return c, nil
}

// setKeptLocked sets what is kept of a container but for its name and its states. What has left it
// since has left it all the same.
func (c *Container) setKeptLocked(k Kept) {
	c.notifyOnRelease, c.releasable = k.NotifyOnRelease, c.releasable || k.Releasable
	c.SetLimits(k.Limits)
}

// RestoreRoot restores the root state of a subsystem.
func (t *Tree) RestoreRoot(id int, saved []byte) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	return t.restoreRoot(id, saved)
}

func (t *Tree) restoreRoot(id int, saved []byte) error {
	r := t.subsystems[id]
	if r.save == nil {
		return nil
	}
	if err := r.save.Restore(r.hierarchy.root, saved); err != nil {
		return opError("restore", "the root of "+r.Name(), err)
	}
	return nil
}

// RestoreGroup makes a css group of containers of several hierarchies, that tasks
// may be in. With exists the mirror has its directory.
func (t *Tree) RestoreGroup(num uint64, cs []*Container, exists bool) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	if exists {
		if err := t.mirror.Make(num); err != nil {
			return errnoOf(err)
		}
	}
	cs = slices.SortedFunc(slices.Values(cs), func(a, b *Container) int { return cmp.Compare(a.h.num, b.h.num) })
	for i, c := range cs {
		if c.IsRoot() || i > 0 && cs[i-1].h == c.h {
			return opError("restore", "a css group", syscall.EINVAL)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	gt := &t.groups
	if len(cs) == 0 || gt.get(cs) != nil || gt.byNum[num] != nil {
		return opError("restore", "a css group", syscall.EINVAL)
	}
	g := gt.make(num, cs)
	g.kept, g.inMirror = true, exists
	gt.next = max(gt.next, num+1)
	return nil
}

// RestoreNext sets which numbers are used next: none that ever was.
func (t *Tree) RestoreNext(n Next) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	t.Update(func() {
		t.nextID = max(t.nextID, n.Container-1)
		t.nextHier = max(t.nextHier, n.Hierarchy)
		t.groups.next = max(t.groups.next, n.Group)
	})
}

// Place is where a task is, and when it started, which tells it from others of its
// tid as long as the host runs.
type Place struct {
	Start Start
	Group uint64
}

// Places yields the places of tasks that are not in the roots, and of those that are, where
// others of their process, or of one that it comes from, are not. View.
func (t *Tree) Places(yield func(tid int32, p Place)) {
	for g := range t.groups.linked {
		for task := g.tasks; task != nil; task = task.next {
			yield(task.TID(), Place{task.start, g.num})
		}
	}
	root := t.groups.root
	if len(t.groups.linked) == 0 {
		return
	}
	known := make(map[*Process]bool) // of those with children
	var below []*Process             // of whom it is found out: p, and whom it comes from
	for _, p := range t.procs {
		outside := false
		below = below[:0]
		for a := p; a != nil && !outside; a = a.Parent() {
			if is, ok := known[a]; ok {
				outside = is
				break
			}
			outside = a.hasOutside(root)
			below = append(below, a)
		}
		for _, a := range below {
			if a.kids > 0 {
				known[a] = outside
			}
		}
		for k := p.threads; k != nil && outside; k = k.pnext {
			if k.group == root {
				yield(k.TID(), Place{k.start, root.num})
			}
		}
	}
}

// hasOutside reports whether a thread of p is not in g.
func (p *Process) hasOutside(g *Group) bool {
	if !p.mixed {
		return p.group() != g
	}
	for k := p.threads; k != nil; k = k.pnext {
		if k.group != g {
			return true
		}
	}
	return false
}

// RestoreTasks says where tasks were: those of them that the first Resync finds are
// there again, and all others where their parents are. It is for who has no mirror, and
// called before Host.Start.
func (t *Tree) RestoreTasks(places map[int32]Place) { t.places = places }

// EndRestore ends hierarchies that nobody holds any more: they were there by
// attaches only, and have no children.
func (t *Tree) EndRestore() {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	for _, h := range slices.Clone(t.hierarchies) {
		t.deactivateIdle(h)
	}
}

// settleLocked is the end of the first Resync: what restored groups have no tasks
// of any more has become releasable while nobody looked, and releases that were not done
// fire again.
func (t *Tree) settleLocked() {
	if t.settled {
		return
	}
	t.settled, t.places = true, nil
	for g := range t.groups.idle {
		if g.kept && !g.stale() {
			t.leftLocked(g)
		}
	}
	for _, c := range t.unreleased {
		t.releaseLocked(c)
	}
	t.unreleased = nil
}

// Settled reports whether the tasks that were there at the start have been found:
// before, a Fork is of one of these. View.
func (t *Tree) Settled() bool { return t.settled }

// Reversal is what of the model has to be put back since it could not be kept: each
// with what was kept of it, nil where nothing was.
type Reversal struct {
	Hierarchies map[*Hierarchy]*KeptHierarchy
	Containers  map[*Container]*Kept
	Roots       map[int][]byte
	Groups      []*Group // that were made and not kept
}

// Revert makes parts of the model again what they were: as they are kept. No task
// is in a container that was not kept, since a group is kept before it is entered.
// Inside a change. The error is of what could not be put back.
func (t *Tree) Revert(r Reversal) (errs []error) {
	byID := func(want bool) (cs []*Container) { // those that are removed or not
		for c := range r.Containers {
			if c.removed == want && !c.IsRoot() {
				cs = append(cs, c)
			}
		}
		slices.SortFunc(cs, func(a, b *Container) int { return cmp.Compare(a.id, b.id) })
		return cs
	}
	for _, c := range slices.Backward(byID(false)) {
		if r.Containers[c] == nil {
			t.unmake(c)
		}
	}
	t.revertHierarchies(r.Hierarchies)
	gone := byID(true)
	there := byID(false)
	// Names are free before they are given again.
	t.Update(func() {
		for _, c := range there {
			if c.name != r.Containers[c].Name {
				c.parent.children.rename(c, "\x00"+c.name)
			}
		}
		for _, c := range there {
			if k := r.Containers[c]; c.name != k.Name {
				c.parent.children.rename(c, k.Name)
			}
		}
	})
	for _, c := range gone {
		if k := r.Containers[c]; k != nil {
			if err := t.remake(c, *k); err != nil {
				errs = append(errs, opError("revert", c.name, err))
			}
		}
	}
	for _, c := range there {
		k := r.Containers[c]
		t.Update(func() {
			c.setKeptLocked(*k)
			c.vacateLocked() // what was measured by now is not kept
		})
		if err := t.restoreStates(c, k.States); err != nil {
			errs = append(errs, err)
		}
	}
	for id, saved := range r.Roots {
		if err := t.restoreRoot(id, saved); err != nil {
			errs = append(errs, err)
		}
	}
	t.Update(func() {
		for _, g := range r.Groups {
			if g.ntasks == 0 && t.groups.byNum[g.num] == g {
				t.groups.forget(g)
			}
		}
	})
	return errs
}

// unmake takes a container away again.
func (t *Tree) unmake(c *Container) {
	t.Update(func() { t.removeChildLocked(c) })
	c.destroyStates(len(c.states))
}

// remake gives back a container that was removed.
func (t *Tree) remake(c *Container, k Kept) error {
	if err := t.createStates(c); err != nil {
		return err
	}
	err := t.restoreStates(c, k.States)
	t.mu.Lock()
	defer t.mu.Unlock()
	c.setKeptLocked(k)
	c.removed = false
	c.name = k.Name
	t.addChildLocked(c)
	t.observeLocked(Event{Kind: Made, Container: c})
	return err
}

func (t *Tree) revertHierarchies(hs map[*Hierarchy]*KeptHierarchy) {
	var changed SubsystemSet
	t.Update(func() {
		for h, k := range hs { // what they have got is given back
			var keep SubsystemSet
			if k != nil {
				keep = k.Subsystems & h.Subsystems()
			}
			changed |= h.Subsystems() &^ keep
			t.rebindLocked(h, keep)
			if k == nil && h.active {
				t.retireLocked(h)
				h.published, h.explicit = false, false
				t.observeLocked(Event{Kind: Unmounted, Hierarchy: h})
			}
		}
		for h, k := range hs {
			if k == nil {
				continue
			}
			changed |= k.Subsystems &^ h.Subsystems()
			t.rebindLocked(h, k.Subsystems)
			if !h.active {
				t.activateLocked(h)
			}
			h.name, h.explicit = k.Name, k.Explicit
			h.published = k.Explicit || h.users.Load() > 0
			h.root.notifyOnRelease = k.Root.NotifyOnRelease
			t.observeLocked(Event{Kind: Mounted, Hierarchy: h})
		}
	})
	t.tellBound(changed)
}
