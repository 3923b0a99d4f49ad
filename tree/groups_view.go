package tree

// What subsystems may see of who is where. All of it needs View; a callback that
// is told that mu is held, and a File's Read, are inside one.

// Task is the live task of that number, or nil.
func (t *Tree) Task(tid int32) *Task { return t.tasks[tid] }

// Group is the css group of the task, nil when the task has ended.
func (t *Task) Group() *Group { return t.group }

// Container is the task's container in h, nil when the task has ended.
func (t *Task) Container(h *Hierarchy) *Container {
	if t.group == nil {
		return nil
	}
	return t.group.container(h)
}

// Moving reports whether an attach has a task of this one's process in hand: it
// has begun, and is neither committed nor undone.
func (t *Task) Moving() bool { return t.proc.moving }

// Forked reports whether the host told of the task's fork. A task that a scan
// found, at start or after lost events, may have been forked long ago.
func (t *Task) Forked() bool { return t.forked }

// Is reports whether the task is the one that the host shows with its number:
// info may be of a later one.
func (t *Task) Is(info TaskInfo) bool {
	return t.group != nil && t.TID() == info.TID && t.start.is(info.Start)
}

// EachProcess calls f for every process, in no particular order, with a thread
// of it: the first, unless that has ended before the others.
func (t *Tree) EachProcess(f func(p *Process, thread *Task)) {
	for tgid, p := range t.procs {
		thread := t.tasks[tgid]
		if thread == nil {
			thread = p.threads
		}
		f(p, thread)
	}
}

// EachTask calls f for the tasks in c, in no particular order.
func (c *Container) EachTask(f func(*Task)) { c.eachTask(f) }

// EachCSSGroup calls f for the css groups with tasks that contain c, in no
// particular order. For a root that is a walk over all of them.
func (c *Container) EachCSSGroup(f func(*Group)) {
	if !c.IsRoot() {
		for l := c.links; l != nil; l = l.next {
			f(l.group)
		}
		return
	}
	c.h.tree.groups.eachLinked(func(g *Group) {
		if g.container(c.h) == c {
			f(g)
		}
	})
}
