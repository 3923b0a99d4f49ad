package tree

import (
	"errors"
	"fmt"
	"slices"
)

// Check verifies the invariants of the model and returns all violations, joined.
// It is for tests and for diagnosis: it looks at everything, with changes and
// events shut out meanwhile.
func (t *Tree) Check() error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := &checker{t: t}
	if t.moving != nil {
		c.errorf("an attach is under way outside of any change")
	}
	c.tasks()
	c.families()
	c.groups()
	c.subsystems()
	total := 0
	for _, h := range append(slices.Clone(t.hierarchies), t.def) {
		n := c.containers(h.root)
		if n != h.count {
			c.errorf("hierarchy %q counts %d containers, has %d", h.name, h.count, n)
		}
		if h != t.def {
			total += n
		}
	}
	if total != t.containers {
		c.errorf("the tree counts %d containers, has %d", t.containers, total)
	}
	return errors.Join(c.errs...)
}

// CheckMirror compares the model with the mirror. The tasks of the host must be
// at rest, or else ids must be limited to some that are.
func (t *Tree) CheckMirror(tids []int32) error {
	t.host.Drain()
	var errs []error
	for _, tid := range tids {
		num, err := t.mirror.Where(tid)
		if err != nil {
			errs = append(errs, fmt.Errorf("tid %d: %w", tid, err))
			continue
		}
		t.View(func() {
			switch task := t.tasks[tid]; {
			case task == nil:
				errs = append(errs, fmt.Errorf("tid %d is in group %d of the mirror, the model lacks it", tid, num))
			case task.group.num != num:
				errs = append(errs, fmt.Errorf("tid %d is in group %d of the mirror, %d of the model", tid, num, task.group.num))
			}
		})
	}
	return errors.Join(errs...)
}

type checker struct {
	t    *Tree
	errs []error
}

func (c *checker) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// tasks: each task is in its group's list and in its process's, once.
func (c *checker) tasks() {
	listed := make(map[*Task]int)
	for num, g := range c.t.groups.byNum {
		n := 0
		var prev *Task
		for k := g.tasks; k != nil; prev, k = k, k.next {
			if k.group != g || k.prev != prev {
				c.errorf("task %d is badly linked in group %d", k.TID(), num)
			}
			listed[k]++
			n++
		}
		if n != g.ntasks {
			c.errorf("group %d counts %d tasks, has %d", num, g.ntasks, n)
		}
	}
	for tid, k := range c.t.tasks {
		if k.TID() != tid {
			c.errorf("task %d is known as %d", k.TID(), tid)
		}
		if listed[k] != 1 {
			c.errorf("task %d is in %d groups", tid, listed[k])
		}
		delete(listed, k)
		if k.proc == nil || c.t.procs[k.proc.tgid] != k.proc {
			c.errorf("task %d has a process that is not known", tid)
		}
	}
	for k := range listed {
		c.errorf("group %d has task %d, which is not known", k.group.num, k.TID())
	}
	threads := 0
	for tgid, p := range c.t.procs {
		n := int32(0)
		var prev *Task
		for k := p.threads; k != nil; prev, k = k, k.pnext {
			if k.proc != p || k.pprev != prev {
				c.errorf("task %d is badly linked in process %d", k.TID(), tgid)
			}
			n++
		}
		if n != p.nthreads || n == 0 {
			c.errorf("process %d counts %d threads, has %d", tgid, p.nthreads, n)
		}
		threads += int(n)
	}
	if threads != len(c.t.tasks) {
		c.errorf("processes have %d threads, there are %d tasks", threads, len(c.t.tasks))
	}
}

// families: a process that is not mixed is of one group with its threads and
// those of all that are below it. That it is with its children, which are not mixed, and these
// with theirs, makes that so.
func (c *checker) families() {
	kids := make(map[*Process]int32)
	for tgid, p := range c.t.procs {
		if p.moving && c.t.moving == nil {
			c.errorf("process %d is still marked as moving", tgid)
		}
		a := p.Parent()
		if a != nil {
			kids[a]++
		}
		for k := p.threads; k != nil; k = k.pnext {
			if !p.mixed && k.group != p.group() {
				c.errorf("process %d has threads in several groups and is not mixed", tgid)
			}
			if a != nil && !a.mixed && (p.mixed || k.group != a.group()) {
				c.errorf("process %d is below %d, in another group or mixed, and that is not mixed", tgid, a.tgid)
			}
		}
	}
	for tgid, p := range c.t.procs {
		if p.kids != kids[p] {
			c.errorf("process %d counts %d children, has %d", tgid, p.kids, kids[p])
		}
	}
}

// groups: unique, found by hash, linked exactly when they have tasks.
func (c *checker) groups() {
	gt := &c.t.groups
	for num, g := range gt.byNum {
		if g.num != num {
			c.errorf("group %d is known as %d", g.num, num)
		}
		found := 0
		for k := gt.byHash[g.hash]; k != nil; k = k.chain {
			if k == g {
				found++
			} else if slices.EqualFunc(k.links, g.links, func(a, b link) bool { return a.c == b.c }) {
				c.errorf("groups %d and %d are the same combination", k.num, g.num)
			}
		}
		if found != 1 {
			c.errorf("group %d is %d times in the hash table", num, found)
		}
		_, linked := gt.linked[g]
		_, idle := gt.idle[g]
		if g == gt.root {
			if linked || idle || len(g.links) != 0 {
				c.errorf("the root group is treated as an ordinary one")
			}
			continue
		}
		if linked != (g.ntasks > 0) || idle == linked {
			c.errorf("group %d with %d tasks: linked %v, idle %v", num, g.ntasks, linked, idle)
		}
		for i := range g.links {
			l := &g.links[i]
			if l.c.IsRoot() || l.group != g {
				c.errorf("group %d has a bad link", num)
			}
			if i > 0 && g.links[i-1].c.h.num >= l.c.h.num {
				c.errorf("group %d is not ordered by hierarchy", num)
			}
			if linked && (l.c.removed || !l.c.h.active) {
				c.errorf("group %d has tasks in the removed container %q", num, l.c.name)
			}
			if on := onList(l); on != linked {
				c.errorf("group %d: on the list of %q: %v", num, l.c.name, on)
			}
		}
	}
	if n := len(gt.linked) + len(gt.idle) + 1; n != len(gt.byNum) {
		c.errorf("%d groups are known, %d of them linked or idle", len(gt.byNum), n)
	}
}

func onList(l *link) bool {
	for k := l.c.links; k != nil; k = k.next {
		if k == l {
			return true
		}
	}
	return false
}

// subsystems: each bound exactly once.
func (c *checker) subsystems() {
	bound := make(map[*registered]int)
	for _, h := range append(slices.Clone(c.t.hierarchies), c.t.def) {
		for i, r := range h.bound {
			bound[r]++
			if r.hierarchy != h || int(h.slots[r.id]) != i {
				c.errorf("subsystem %s is badly bound to %q", r.Name(), h.name)
			}
		}
		if h != c.t.def && !h.active {
			c.errorf("hierarchy %q is listed and not active", h.name)
		}
	}
	for _, r := range c.t.subsystems {
		if bound[r] != 1 {
			c.errorf("subsystem %s is bound %d times", r.Name(), bound[r])
		}
	}
}

// containers checks a container and what is below it and counts them.
func (c *checker) containers(k *Container) int {
	if k.removed || len(k.states) != len(k.h.bound) {
		c.errorf("container %q: removed %v, %d states for %d subsystems", k.Path(), k.removed, len(k.states), len(k.h.bound))
	}
	links, tasks := int32(0), 0
	var prev *link
	for l := k.links; l != nil; prev, l = l, l.next {
		if l.c != k || l.prev != prev {
			c.errorf("container %q: bad link", k.Path())
		}
		links++
		tasks += l.group.ntasks
	}
	if links != k.linked || (k.IsRoot() && links > 0) {
		c.errorf("container %q counts %d css groups, has %d", k.Path(), k.linked, links)
	}
	n, populated := 1, links
	seen := make(map[string]bool)
	last := uint64(0)
	k.Children(0, func(child *Container) bool {
		if child.parent != k || child.h != k.h || child.id <= last || seen[child.name] {
			c.errorf("container %q: bad child %q", k.Path(), child.name)
		}
		last = child.id
		seen[child.name] = true
		if k.children.get(child.name) != child {
			c.errorf("container %q: child %q is not found by its name", k.Path(), child.name)
		}
		n += c.containers(child)
		populated += child.populated
		return true
	})
	if len(seen) != k.children.len() {
		c.errorf("container %q counts %d children, has %d", k.Path(), k.children.len(), len(seen))
	}
	if n != int(k.descendants)+1 {
		c.errorf("container %q counts %d descendants, has %d", k.Path(), k.descendants, n-1)
	}
	if populated != k.populated {
		c.errorf("container %q: populated by %d css groups, counts %d", k.Path(), populated, k.populated)
	}
	return n
}
