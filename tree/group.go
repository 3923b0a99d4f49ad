package tree

import (
	"cmp"
	"slices"
	"time"
)

// Group is a css group: one combination of containers, one per hierarchy,
// shared by all tasks that have it. Guarded by mu; what a Group is made of never
// changes.
type Group struct {
	num  uint64 // its number in the mirror, never used twice
	hash uint64
	// links has the containers that are not roots, ordered by hierarchy.
	links []link
	chain *Group // the next one with the same hash

	tasks  *Task // head of the list of its tasks
	ntasks int

	// inMirror: its directory was made. Changed with both locks held.
	inMirror bool
	// told is the Keeper's number of it, 0 before it was told; kept: that is on
	// disk.
	told uint64
	kept bool
	// idleSince is when the last task left, for the sweep.
	idleSince time.Time
}

// link is one place of a group: an element in the list of groups of c.
type link struct {
	c          *Container
	group      *Group
	prev, next *link // other groups that contain c; only of groups with tasks
}

// Num is the number of the group; 0 is the root group.
func (g *Group) Num() uint64 { return g.num }

// Tasks is the number of tasks that have this combination. View.
func (g *Group) Tasks() int { return g.ntasks }

// container is the container of h in the combination.
func (g *Group) container(h *Hierarchy) *Container {
	for i := range g.links {
		if g.links[i].c.h == h {
			return g.links[i].c
		}
	}
	return h.root
}

// stale reports whether a container of the combination was removed: no task can
// have it any more.
func (g *Group) stale() bool {
	for i := range g.links {
		if g.links[i].c.removed {
			return true
		}
	}
	return false
}

// groupTable finds groups by combination and by number. Guarded by mu; groups
// are made and forgotten only inside changes.
type groupTable struct {
	root   *Group
	byHash map[uint64]*Group
	byNum  map[uint64]*Group
	next   uint64
	linked map[*Group]struct{} // those with tasks, the root group aside
	idle   map[*Group]struct{} // those without, the root group aside
}

func (gt *groupTable) init() {
	gt.root = &Group{inMirror: true}
	gt.byHash = map[uint64]*Group{gt.root.hash: gt.root}
	gt.byNum = map[uint64]*Group{0: gt.root}
	gt.linked = make(map[*Group]struct{})
	gt.idle = make(map[*Group]struct{})
	gt.next = 1
}

// eachLinked calls f for every group that has tasks.
func (gt *groupTable) eachLinked(f func(*Group)) {
	if gt.root.ntasks > 0 {
		f(gt.root)
	}
	for g := range gt.linked {
		f(g)
	}
}

// find returns the group that has each of to in its hierarchy and is like g in all
// others, and makes it when there is none. A new group is idle.
func (gt *groupTable) find(g *Group, to ...*Container) *Group {
	var buf [16]*Container
	want := buf[:0]
	for i := range g.links {
		k := g.links[i].c
		if !slices.ContainsFunc(to, func(c *Container) bool { return c.h == k.h }) {
			want = append(want, k)
		}
	}
	for _, c := range to {
		if !c.IsRoot() {
			want = append(want, c)
		}
	}
	slices.SortFunc(want, func(a, b *Container) int { return cmp.Compare(a.h.num, b.h.num) })

	if k := gt.get(want); k != nil {
		return k
	}
	k := gt.make(gt.next, want)
	gt.next++
	return k
}

// get returns the group of a combination, nil if there is none.
func (gt *groupTable) get(want []*Container) *Group {
	for k := gt.byHash[hashContainers(want)]; k != nil; k = k.chain {
		if k.is(want) {
			return k
		}
	}
	return nil
}

// make makes the group of a combination that has none. It is idle.
func (gt *groupTable) make(num uint64, want []*Container) *Group {
	k := &Group{num: num, hash: hashContainers(want), links: make([]link, len(want)), idleSince: time.Now()}
	for i, c := range want {
		k.links[i] = link{c: c, group: k}
	}
	gt.insert(k)
	gt.idle[k] = struct{}{}
	return k
}

func (g *Group) is(containers []*Container) bool {
	if len(g.links) != len(containers) {
		return false
	}
	for i, c := range containers {
		if g.links[i].c != c {
			return false
		}
	}
	return true
}

// hashContainers is FNV-1a over the ids; the root group's is 0.
func hashContainers(cs []*Container) uint64 {
	if len(cs) == 0 {
		return 0
	}
	h := uint64(14695981039346656037)
	for _, c := range cs {
		for id, i := c.id, 0; i < 8; i++ {
			h = (h ^ id&0xff) * 1099511628211
			id >>= 8
		}
	}
	return h
}

func (gt *groupTable) insert(g *Group) {
	g.chain = gt.byHash[g.hash]
	gt.byHash[g.hash] = g
	gt.byNum[g.num] = g
}

func (gt *groupTable) forget(g *Group) {
	p := gt.byHash[g.hash]
	if p == g {
		if g.chain == nil {
			delete(gt.byHash, g.hash)
		} else {
			gt.byHash[g.hash] = g.chain
		}
	} else {
		for p.chain != g {
			p = p.chain
		}
		p.chain = g.chain
	}
	g.chain = nil
	delete(gt.byNum, g.num)
	delete(gt.idle, g)
}

// link puts a group that gets its first task into the lists of its containers.
func (gt *groupTable) link(g *Group) {
	if g == gt.root {
		return
	}
	delete(gt.idle, g)
	gt.linked[g] = struct{}{}
	for i := range g.links {
		l := &g.links[i]
		l.next = l.c.links
		if l.next != nil {
			l.next.prev = l
		}
		l.c.links = l
		l.c.linked++
		for c := l.c; c != nil; c = c.parent {
			c.populated++
		}
	}
}

// unlink undoes link when a group has lost its last task.
func (gt *groupTable) unlink(g *Group) {
	if g == gt.root {
		return
	}
	delete(gt.linked, g)
	gt.idle[g] = struct{}{}
	g.idleSince = time.Now()
	for i := range g.links {
		l := &g.links[i]
		if l.prev != nil {
			l.prev.next = l.next
		} else {
			l.c.links = l.next
		}
		if l.next != nil {
			l.next.prev = l.prev
		}
		l.prev, l.next = nil, nil
		l.c.linked--
		for c := l.c; c != nil; c = c.parent {
			c.populated--
			c.vacated = true
		}
	}
}

// keepReleasesLocked has the Keeper keep which containers of a group it is not done with. The group
// itself is kept until then, so that they are found to be idle.
func (t *Tree) keepReleasesLocked(g *Group) {
	for i := range g.links {
		if c := g.links[i].c; c.releases > 0 && !c.removed {
			t.Keep(c)
		}
	}
}

// Sweep forgets the css groups that have had no task for the time given, and
// removes their directories from the mirror. A group whose directory the kernel
// still has tasks in stays: fork events of these are yet to come, or somebody
// moved them there, which Audit finds.
func (t *Tree) Sweep(idleFor time.Duration) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	since := time.Now().Add(-idleFor)
	var old []*Group
	t.View(func() {
		for g := range t.groups.idle {
			if !g.idleSince.After(since) {
				old = append(old, g)
			}
		}
	})
	if len(old) == 0 {
		return
	}
	busy := make(map[uint64]bool)
	if t.mirror != nil {
		var made []uint64
		for _, g := range old {
			if g.inMirror {
				made = append(made, g.num)
			}
		}
		for _, num := range t.mirror.Remove(made) {
			busy[num] = true
		}
	}
	t.Update(func() {
		for _, g := range old {
			// A group can have come alive since: by a fork that the mirror
			// placed. Its directory was busy then.
			if g.ntasks == 0 && !busy[g.num] {
				t.groups.forget(g)
				if t.keeper != nil && (g.told != 0 || g.kept) {
					t.keepReleasesLocked(g)
					t.keeper.KeepGroup(g, true)
				}
			}
		}
	})
}
