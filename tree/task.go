package tree

import "sync/atomic"

// Task is a live thread of the host. Where it is, is guarded by mu.
type Task struct {
	tid atomic.Int32
	// forked is set when its fork event has been delivered. A task that a
	// scan found may have one on its way.
	forked bool
	start  Start

	group      *Group
	prev, next *Task // in group

	proc         *Process
	pprev, pnext *Task // threads of proc
}

// TID is the thread's number. It changes when a thread other than the first
// executes a program, which then has the process's number.
func (t *Task) TID() int32 { return t.tid.Load() }

// TGID is the number of the thread's process.
func (t *Task) TGID() int32 { return t.proc.tgid }

// Process is a process of the host, as long as it has live threads; after that
// only while its orphans refer to it.
type Process struct {
	tgid     int32
	nthreads int32
	threads  *Task

	// first is the start of its first thread, where that has ended before others: who executes
	// a program has it then.
	first Start

	// parent is the process that forked it. Where that has ended, ancestor
	// gives the nearest one that lives; the kernel may have given the orphan
	// to any other ancestor.
	parent *Process
	kids   int32 // live processes whose ancestor this is

	// adopted: it may have a child that kids does not count, see parentLocked.
	adopted bool
	// mixed: a thread, or a thread of a process below, may be in another group
	// than the process, so a fork event that names it may mean another forker.
	// Never wrongly false. Where it is set, it is set of all ancestors.
	mixed bool
	// guessed: a thread of it was gone before the mirror could be asked, or
	// another may be gone than was told, so it may be elsewhere than the
	// model has it.
	guessed bool
	// moving: an attach has a thread of it in hand.
	moving bool
	// scanned: a scan has shown it, which does not tell whether it executed a program before.
	scanned bool

	note any // see SetNote
}

// group is the group of a thread of p. When p is not mixed it is that of all.
func (p *Process) group() *Group { return p.threads.group }

// ancestor is Parent, and remembers it, which takes mu for writing.
func (p *Process) ancestor() *Process {
	p.parent = p.Parent()
	return p.parent
}

// Start is what is known of a task's start time, in clock ticks after boot. A
// fork event does not carry it, only a stamp taken a little later: then the
// ticks are an upper bound, and the value negative. When the host has shown the
// start time itself, the value is that and, in the lowest byte, how much later
// the bound was, so that ticks stays what it was.
type Start int64

const startDelta = 0xff

func startAt(ticks uint64) Start     { return Start(ticks << 8) }
func startAtMost(ticks uint64) Start { return -Start(ticks) }

// refined is s when the host shows ticks for the task.
func (s Start) refined(ticks uint64) Start {
	if s >= 0 {
		return s
	}
	return startAt(ticks) | min(-s-Start(ticks), startDelta)
}

// is reports whether the task that the host shows with a start time is the one
// that s was noted of. It is meant for a tid that is known to be either that
// task's or a later one's.
func (s Start) is(ticks uint64) bool {
	if s < 0 {
		return Start(ticks) <= -s
	}
	return s>>8 == Start(ticks)
}

// ticks is the start time or the bound of it, whichever was known first.
func (s Start) ticks() uint64 {
	if s < 0 {
		return uint64(-s)
	}
	return uint64(s>>8 + s&startDelta)
}

// addLocked makes a task and, with its first thread, its process.
func (t *Tree) addLocked(tid, tgid int32, start Start, parent *Process, g *Group) *Task {
	p := t.procs[tgid]
	if p == nil {
		p = &Process{tgid: tgid, parent: parent}
		if parent != nil {
			p.note = parent.note
		}
		t.procs[tgid] = p
		if a := p.ancestor(); a != nil {
			a.kids++
			if a.group() != g {
				a.mix()
			}
		}
	} else {
		if parent != nil && p.parent == nil {
			t.parentLocked(p, parent.tgid) // it was found by another thread
		}
		if p.group() != g {
			p.mix()
		}
	}
	task := &Task{start: start, proc: p}
	task.tid.Store(tid)
	t.tasks[tid] = task
	task.pnext = p.threads
	if task.pnext != nil {
		task.pnext.pprev = task
	}
	p.threads = task
	p.nthreads++
	t.enterLocked(task, g)
	return task
}

// enterLocked puts a task that is in no group into g.
func (t *Tree) enterLocked(task *Task, g *Group) {
	task.group = g
	task.prev, task.next = nil, g.tasks
	if task.next != nil {
		task.next.prev = task
	}
	g.tasks = task
	if g.ntasks++; g.ntasks == 1 {
		t.groups.link(g)
	}
}

func (t *Tree) leaveLocked(task *Task) {
	g := task.group
	if task.prev != nil {
		task.prev.next = task.next
	} else {
		g.tasks = task.next
	}
	if task.next != nil {
		task.next.prev = task.prev
	}
	task.prev, task.next, task.group = nil, nil, nil
	if g.ntasks--; g.ntasks == 0 {
		t.groups.unlink(g)
	}
}
