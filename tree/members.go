package tree

import "slices"

// Who is where, as the front end and subsystems may see it. All of it needs View;
// a callback that is told that mu is held, and a File's Read, are inside one.

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

// CSSGroups is the number of css groups with tasks that contain it.
func (c *Container) CSSGroups() (n int) {
	c.EachCSSGroup(func(*Group) { n++ })
	return n
}

// NumTasks is the number of tasks in c.
func (c *Container) NumTasks() (n int) {
	c.EachCSSGroup(func(g *Group) { n += g.ntasks })
	return n
}

// EachTask calls f for the tasks in c, in no particular order.
func (c *Container) EachTask(f func(*Task)) {
	c.EachCSSGroup(func(g *Group) {
		for task := g.tasks; task != nil; task = task.next {
			f(task)
		}
	})
}

// AppendTasks appends the tids of the tasks in c, ascending.
func (c *Container) AppendTasks(tids []int32) []int32 {
	start := len(tids)
	c.EachTask(func(task *Task) { tids = append(tids, task.TID()) })
	slices.Sort(tids[start:])
	return tids
}

// AppendProcesses appends the tgids of the processes that have a thread in c,
// ascending.
func (c *Container) AppendProcesses(tgids []int32) []int32 {
	start := len(tgids)
	c.EachTask(func(task *Task) { tgids = append(tgids, task.proc.tgid) })
	slices.Sort(tgids[start:])
	return tgids[:start+len(slices.Compact(tgids[start:]))]
}

// Populated reports whether a task is in the container or below.
func (c *Container) Populated() bool {
	if c.IsRoot() {
		return len(c.h.tree.tasks) > 0 // all of them are somewhere in every hierarchy
	}
	return c.populated > 0
}

// AppendPIDs appends the tgids of all processes, ascending.
func (t *Tree) AppendPIDs(tgids []int32) []int32 {
	start := len(tgids)
	for tgid := range t.procs {
		tgids = append(tgids, tgid)
	}
	slices.Sort(tgids[start:])
	return tgids
}

// NumPIDs is how many AppendPIDs appends.
func (t *Tree) NumPIDs() int { return len(t.procs) }

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

// Task is the live task of that number, or nil.
func (t *Tree) Task(tid int32) *Task { return t.tasks[tid] }

// Process is the live process of that number, or nil. Its first thread can have ended. View.
func (t *Tree) Process(tgid int32) *Process { return t.procs[tgid] }

// Group is the css group of the task, nil when the task has ended.
func (t *Task) Group() *Group { return t.group }

// Container is the task's container in h, nil when the task has ended.
func (t *Task) Container(h *Hierarchy) *Container {
	if t.group == nil {
		return nil
	}
	return t.group.container(h)
}

// Live reports whether the task has not ended.
func (t *Task) Live() bool { return t.group != nil }

// Start tells the task from others of the same tid. It never changes.
func (t *Task) Start() uint64 { return t.start.ticks() }

// Is reports whether the task is the one that the host shows with its number:
// info may be of a later one.
func (t *Task) Is(info TaskInfo) bool {
	return t.group != nil && t.TID() == info.TID && t.start.is(info.Start)
}

// Moving reports whether an attach has a task of this one's process in hand: it
// has begun, and is neither committed nor undone.
func (t *Task) Moving() bool { return t.proc.moving }

// Forked reports whether the host told of the task's fork. A task that a scan
// found, at start or after lost events, may have been forked long ago.
func (t *Task) Forked() bool { return t.forked }

// Process is the task's process.
func (t *Task) Process() *Process { return t.proc }

// TGID is the number of the process.
func (p *Process) TGID() int32 { return p.tgid }

// NumThreads is how many live threads it has. View.
func (p *Process) NumThreads() int { return int(p.nthreads) }

// Thread is a live thread of it, nil when it has ended. View.
func (p *Process) Thread() *Task { return p.threads }

// FirstStart is Task.Start of its first thread when that has ended before the others, 0 when
// it was never known. View.
func (p *Process) FirstStart() uint64 { return p.first.ticks() }

// Parent is the process that forked it, or the nearest ancestor that lives; nil
// when none is known. The kernel may have given it another. View.
func (p *Process) Parent() *Process {
	a := p.parent
	for a != nil && a.nthreads == 0 {
		a = a.parent
	}
	return a
}
