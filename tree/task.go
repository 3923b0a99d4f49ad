package tree

import (
	"errors"
	"sync/atomic"
	"syscall"
)

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

	// parent is the process that forked it. Where that has ended, ancestor
	// gives the nearest one that lives; the kernel may have given the orphan
	// to any other ancestor.
	parent *Process
	kids   int32 // live processes whose ancestor this is

	// adopted: it may have got orphans that kids does not count.
	adopted bool
	// mixed: a thread, or a thread of a child, may be in another group than
	// the process, so a fork event that names it may mean another forker.
	// Never wrongly false.
	mixed bool
	// guessed: a thread of it was gone before the mirror could be asked, or
	// another may be gone than was told, so it may be elsewhere than the
	// model has it.
	guessed bool
	// moving: an attach has a thread of it in hand.
	moving bool

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
			old.forked = true
			if e.TID == e.TGID {
				t.parentLocked(old.proc, e.ParentTGID)
			}
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
			t.tasks[e.TID].forked = true // an attach found it meanwhile
			t.parentLocked(t.tasks[e.TID].proc, ppid)
			return
		}
		var stray bool
		known, stray = t.mirroredLocked(num, err)
		t.strayed = t.strayed || stray
	}
	mistaken := t.mirror != nil && t.moving.mistook(e.TID, parent, t.named(e), known)
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
				a.mixed = true
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

// Exit removes a task. One that is not known is ignored.
func (t *Tree) Exit(tid int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moving.deferring() {
		t.moving.deferred = append(t.moving.deferred, func() { t.exitTIDLocked(tid) })
		return
	}
	t.exitTIDLocked(tid)
}

// exitTIDLocked applies an exit event. It may let go of mu meanwhile.
func (t *Tree) exitTIDLocked(tid int32) {
	task, d := t.tasks[tid], t.owed[tid]
	delete(t.owed, tid)
	if task == nil {
		t.paidLocked(d)
		if p := t.procs[tid]; p != nil {
			t.lookAtThreadsLocked(p)
		}
		return
	}
	if d != nil {
		t.mu.Unlock()
		info, err := t.host.Task(tid)
		t.mu.Lock()
		if task.group == nil {
			return
		}
		// Where the host cannot be looked at it is the one that is owed.
		if err == nil && task.start.is(info.Start) || err != nil && !errors.Is(err, syscall.ESRCH) {
			t.paidLocked(d)
			return
		}
	}
	t.exitLocked(task)
}

// goneLocked removes a task that was found to be gone before its exit event came.
func (t *Tree) goneLocked(task *Task) {
	tid := task.TID()
	t.oweLocked(t.debtLocked(tid), 1, tid)
	t.exitLocked(task)
}

func (t *Tree) exitLocked(task *Task) {
	for _, r := range t.subsystems {
		if r.exit != nil {
			r.exit.Exit(task, task.group.container(r.hierarchy))
		}
	}
	p, g := task.proc, task.group
	t.moving.freed(task)
	t.observeLocked(Event{Kind: Exited, Task: task})
	t.leaveLocked(task)
	if g.ntasks == 0 {
		t.leftLocked(g)
	}
	delete(t.tasks, task.TID())
	if task.pprev != nil {
		task.pprev.pnext = task.pnext
	} else {
		p.threads = task.pnext
	}
	if task.pnext != nil {
		task.pnext.pprev = task.pprev
	}
	task.pprev, task.pnext = nil, nil
	if p.nthreads--; p.nthreads == 0 {
		t.endLocked(p, g)
	} else {
		// This exit can be the first one's, told with the number of a thread that executes.
		p.guessed = p.guessed || p.nthreads == 1 && p.group() != g
		p.unmix()
	}
}

// endLocked ends a process whose last thread, in g, has exited. The kernel
// gives its children to one of its ancestors, and does not say to which.
func (t *Tree) endLocked(p *Process, g *Group) {
	delete(t.procs, p.tgid)
	parent := p.ancestor()
	if p.kids > 0 || p.adopted {
		for a := parent; a != nil; a = a.ancestor() {
			a.adopted = true
			if p.mixed || a.group() != g {
				a.mixed = true
			}
		}
	}
	if parent != nil {
		parent.kids += p.kids - 1
		parent.unmix()
	}
}

// unmix clears mixed when nobody is left who could fork in p's name.
func (p *Process) unmix() {
	if p.kids == 0 && p.nthreads == 1 && !p.adopted {
		p.mixed = false
	}
}

// mix notes that a thread of p is in another group than others of its family.
func (p *Process) mix() {
	p.mixed = true
	if a := p.ancestor(); a != nil {
		a.mixed = true
	}
}

// Exec tells that a process has executed a program. When another thread than
// the first did, that thread has the first one's tid from then on, and all
// others are gone.
func (t *Tree) Exec(tgid int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moving.deferring() {
		t.moving.deferred = append(t.moving.deferred, func() { t.execLocked(tgid) })
		return
	}
	t.execLocked(tgid)
}

// execLocked applies an exec event. It may let go of mu meanwhile.
func (t *Tree) execLocked(tgid int32) {
	p := t.procs[tgid]
	if p == nil {
		return
	}
	if t.tasks[tgid] == nil || p.nthreads > 1 || p.guessed {
		t.takeOverLocked(p)
	}
	task := t.tasks[tgid]
	if task == nil {
		return
	}
	for _, r := range t.subsystems {
		if r.exec != nil {
			r.exec.Exec(task, task.group.container(r.hierarchy))
		}
	}
	t.observeLocked(Event{Kind: Execed, Task: task})
}

// takeOverLocked gives the number of a process to the thread of it that has
// executed a program, if that was not the first. It may let go of mu meanwhile.
func (t *Tree) takeOverLocked(p *Process) {
	tgid := p.tgid
	first := t.tasks[tgid]
	heir := p.threads
	if first != nil {
		heir = first
	}
	if (p.nthreads > 1 || p.mixed || p.moving || p.guessed) && t.mirror != nil {
		t.mu.Unlock()
		num, err := t.mirror.Where(tgid)
		t.mu.Lock()
		if t.procs[tgid] != p || p.nthreads == 0 || t.tasks[tgid] != first {
			return // Rmdir looked, and found it gone
		}
		if heir.group == nil {
			heir = p.threads
		}
		for k := p.threads; k != nil && err == nil && heir.group.num != num; k = k.pnext {
			if k.group.num == num {
				heir = k
			}
		}
		// Its own fork may have been read when it had this tid already.
		if g, _ := t.mirroredLocked(num, err); g != nil && !t.moving.has(heir) && !t.moving.misled(heir, g) {
			t.regroupLocked(heir, g)
		}
	}
	// Of the threads that are left all but one are gone, their exit events
	// yet to come, the first one's too. The one that took over the tid has
	// none. Without a mirror nobody knows which that is.
	var tids []int32
	for k := p.threads; k != nil; k = k.pnext {
		tids = append(tids, k.TID())
	}
	t.oweLocked(t.debtLocked(tgid), len(tids)-1, tids...)
	for k := p.threads; k != nil; {
		next := k.pnext
		if k != heir {
			t.exitLocked(k)
		}
		k = next
	}
	if heir != first {
		t.moving.freed(heir)
		delete(t.tasks, heir.TID())
		heir.tid.Store(tgid)
		// With another tid: a fork with this one is of the next task.
		heir.forked = true
		heir.start = startAtMost(heir.start.ticks()) // it has the first one's now
		t.tasks[tgid] = heir
	}
}
