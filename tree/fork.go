package tree

import "errors"

// ForkEvent is a fork as the kernel tells of it.
type ForkEvent struct {
	// ParentTID and ParentTGID name the real parent of the child, which is
	// not always the forking task.
	ParentTID, ParentTGID int32
	TID, TGID             int32

	Time     int64  // CLOCK_MONOTONIC, nanoseconds
	StartMax uint64 // no later than this did the child start, as TaskInfo.Start
}

// Fork adds a task that was forked. Events must be given in the order in which
// the kernel sent them, one at a time.
func (t *Tree) Fork(e ForkEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moving.defers(t, e) {
		t.moving.deferred = append(t.moving.deferred, func() { t.forkLocked(e) })
		return
	}
	t.forkLocked(e)
}

// forkLocked applies a fork event. It may let go of mu meanwhile.
func (t *Tree) forkLocked(e ForkEvent) {
	old := t.tasks[e.TID]
	if old != nil {
		if s := old.start.ticks(); !old.forked && s <= e.StartMax && e.StartMax-s <= forkSlack {
			if e.TID == e.TGID {
				t.parentLocked(old.proc, e.ParentTGID)
			}
			t.toldLocked(old, e)
			return
		}
		// An exit is told a little after the tid is free again.
		t.goneLocked(old)
	}
	parent, said, sure := t.inheritLocked(e)
	g := said
	ppid, guessed := e.ParentTGID, false
	var known *Group // to the mirror
	asked := !sure && t.mirror != nil
	if asked {
		t.mu.Unlock()
		num, err := t.mirror.Where(e.TID)
		if parent == nil {
			// The kernel has given it to somebody else, if it lives.
			if info, err := t.host.Task(e.TID); err == nil {
				ppid = info.PPID
			}
		}
		t.mu.Lock()
		if t.tasks[e.TID] != nil {
			t.parentLocked(t.tasks[e.TID].proc, ppid)
			t.toldLocked(t.tasks[e.TID], e) // an attach found it meanwhile
			return
		}
		var stray bool
		known, stray = t.mirroredLocked(num, err)
		t.strayed = t.strayed || stray
	}
	mistaken := t.mirror != nil && t.moving.mistook(e.TID, e.TID != e.TGID, parent, t.named(e), known)
	if asked {
		if known != nil && !(mistaken && t.moving.isEnd(known)) {
			g = known
		}
		guessed = g != known // one that is gone already is placed by its event alone
	}
	if t.groups.byNum[g.num] != g || g.stale() {
		g = t.groups.root // the child and its forker ended while mu was free
	}
	var from *Process
	if e.TID == e.TGID {
		from = t.procs[ppid]
	}
	child := t.addLocked(e.TID, e.TGID, startAtMost(e.StartMax), from, g)
	child.forked = true
	if child.proc.parent == nil { // a thread's event names its process's
		t.parentLocked(child.proc, ppid)
	}
	child.proc.guessed = child.proc.guessed || guessed
	if mistaken {
		t.moving.noteMistaken(child)
	}
	if asked {
		t.moving.joined(child, t.named(e), parent, said)
	}
	t.tellForkLocked(parent, child)
	t.observeLocked(Event{Kind: Forked, Time: e.Time, Task: child, Parent: from})
}

// forkSlack is how much later than its start time a task's fork event can be
// stamped, in clock ticks, when it is matched against a task that a scan found.
const forkSlack = 100

// mirroredLocked is the group that an answer of Mirror.Where means: nil if the
// task is gone, and stray if it is in a directory that is nobody's.
func (t *Tree) mirroredLocked(num uint64, err error) (g *Group, stray bool) {
	if err != nil {
		return nil, errors.Is(err, ErrForeignGroup)
	}
	if g := t.groups.byNum[num]; g != nil && !g.stale() {
		return g, false
	}
	return nil, true
}

func (t *Tree) tellForkLocked(parent, child *Task) {
	for _, r := range t.subsystems {
		if r.fork != nil {
			r.fork.Fork(parent, child, child.group.container(r.hierarchy))
		}
	}
}

// toldLocked applies the event of a fork of a task that was found before it.
func (t *Tree) toldLocked(task *Task, e ForkEvent) {
	if task.forked {
		return
	}
	task.forked = true
	var from *Process
	if e.TID == e.TGID {
		from = task.proc.parent
	}
	t.observeLocked(Event{Kind: Forked, Time: e.Time, Task: task, Parent: from})
	for _, r := range t.subsystems {
		if r.told != nil {
			r.told.ForkTold(task, task.group.container(r.hierarchy))
		}
	}
}

// inheritLocked finds what a fork event says of the child's place: the task
// that it names, the group that the child is in if that task forked it, and
// whether no other task can have.
func (t *Tree) inheritLocked(e ForkEvent) (parent *Task, g *Group, sure bool) {
	p := t.procs[e.ParentTGID]
	parent = t.tasks[e.ParentTID]
	if e.TID != e.TGID {
		// A thread: forked by a thread of its own process, whichever the
		// event names.
		p = t.procs[e.TGID]
		if p != nil && (parent == nil || parent.proc != p) {
			if parent = t.tasks[e.TGID]; parent == nil {
				parent = p.threads
			}
		}
	}
	if parent == nil && p != nil {
		parent = p.threads // the thread that is named ended
	}
	if parent == nil {
		return nil, t.groups.root, len(t.groups.byNum) == 1
	}
	return parent, parent.group, parent.proc == p && !p.mixed && !p.moving && !p.guessed
}
