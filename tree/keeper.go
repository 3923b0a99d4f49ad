package tree

import "slices"

// Keeper keeps what outlives the server. The methods Keep... are called with mu
// held, at the end of each change, with what is now as they find it: they must not
// block.
type Keeper interface {
	// KeepContainer: c was made, renamed or removed, or something was set in it.
	KeepContainer(c *Container)

	// KeepHierarchy: h was mounted, remounted or unmounted, or has ended.
	KeepHierarchy(h *Hierarchy)

	// KeepGroup: g was made, or with gone was forgotten.
	KeepGroup(g *Group, gone bool) (number uint64)

	// Await returns when the change is kept to which KeepGroup gave the number, or
	// with the error why it cannot be. Then the change was undone by Revert; or it
	// will be, if Await is called inside of a change.
	Await(number uint64, inside bool) error
}

// Keep tells the Keeper, if any, that a setting of c has changed: by the front end,
// or by a subsystem in another container than the one that is written to. Update,
// inside a change.
func (t *Tree) Keep(c *Container) {
	if t.keeper != nil {
		t.keeper.KeepContainer(c)
	}
}

func (t *Tree) keepHierarchyLocked(h *Hierarchy) {
	if t.keeper != nil {
		t.keeper.KeepHierarchy(h)
	}
}

// keepGroupLocked has the Keeper keep a group before a task is in it: when the
// server is gone, the mirror has the group's number only.
func (t *Tree) keepGroupLocked(g *Group) {
	if t.keeper != nil && g != t.groups.root && !g.kept && g.told == 0 {
		g.told = t.keeper.KeepGroup(g, false)
	}
}

// unkept are the groups that tasks are to be moved to and that are not kept yet.
// Under changeMu.
func (t *Tree) unkept(m *move) (gs []*Group) {
	if t.keeper == nil {
		return nil
	}
	t.View(func() {
		for g := range m.targets {
			if !g.kept && g != t.groups.root {
				gs = append(gs, g)
			}
		}
	})
	return gs
}

// awaitGroups waits until groups are kept.
func (t *Tree) awaitGroups(gs []*Group, inside bool) error {
	for _, g := range gs {
		if err := t.keeper.Await(g.told, inside); err != nil {
			return err
		}
	}
	t.Update(func() {
		for _, g := range gs {
			g.kept = true
		}
	})
	return nil
}

// Containers are those that a group is made of, but for roots.
func (g *Group) Containers() (cs []*Container) {
	for i := range g.links {
		cs = append(cs, g.links[i].c)
	}
	return cs
}

// Kept is what a Keeper kept of a container, or of a hierarchy's root.
type Kept struct {
	ID              uint64
	Name            string
	NotifyOnRelease bool
	Releasable      bool
	Released        bool // a release has fired that is not done
	Limits          Limits
	Data            any

	// States is what Savers saved, in the order of the hierarchy's subsystems.
	// Those of a root are kept apart: see RestoreRoot.
	States [][]byte
}

// KeptHierarchy is what a Keeper kept of a hierarchy.
type KeptHierarchy struct {
	Number             uint64
	Name               string
	Named              bool // the name was given
	Noprefix, Explicit bool
	Subsystems         SubsystemSet
	Root               Kept
}

// Kept is what has to be kept of a container. Data is as it is, and not a copy.
// View.
func (c *Container) Kept() Kept {
	k := Kept{
		ID: c.id, Name: c.name, NotifyOnRelease: c.notifyOnRelease, Releasable: c.releasable, Released: c.releases > 0,
		Limits: c.Limits(), Data: c.data,
	}
	if c.IsRoot() {
		return k
	}
	k.States = make([][]byte, len(c.states))
	for i, r := range c.h.bound {
		if r.save != nil {
			k.States[i] = r.save.Save(c, nil)
		}
	}
	return k
}

// Kept is what has to be kept of a hierarchy. View.
func (h *Hierarchy) Kept() KeptHierarchy {
	return KeptHierarchy{
		Number: h.num, Name: h.name, Named: h.named, Noprefix: h.noprefix, Explicit: h.explicit,
		Subsystems: h.Subsystems(), Root: h.root.Kept(),
	}
}

// Vacated reports whether of the container, or of one below, since ForgetVacated a css group has
// lost its last task, a release has fired or was done, or what was to be kept was not: it can be
// another than is kept, though nobody is there now. View.
func (c *Container) Vacated() bool { return c.vacated }

// vacateLocked makes it so.
func (c *Container) vacateLocked() {
	for ; c != nil; c = c.parent {
		c.vacated = true
	}
}

// ForgetVacated is for a Keeper that keeps what was measured until now. Update.
func (c *Container) ForgetVacated() { c.vacated = false }

// SaveRoot is what has to be kept of the root state of a subsystem, wherever it is
// bound. View.
func (t *Tree) SaveRoot(id int) []byte {
	if r := t.subsystems[id]; r.save != nil {
		return r.save.Save(r.hierarchy.root, nil)
	}
	return nil
}

// Next are the numbers that are used next. View, or inside a change.
type Next struct{ Container, Hierarchy, Group uint64 }

// Next are the numbers that are used next.
func (t *Tree) Next() Next { return Next{t.nextID + 1, t.nextHier, t.groups.next} }

// restoreStates has Savers restore the states of c. Under changeMu.
func (t *Tree) restoreStates(c *Container, saved [][]byte) error {
	for i, r := range slices.Clone(c.h.bound) {
		if r.save == nil || i >= len(saved) {
			continue
		}
		if err := r.save.Restore(c, saved[i]); err != nil {
			return opError("restore", c.name+" "+r.Name(), err)
		}
	}
	return nil
}
