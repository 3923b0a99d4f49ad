package tree

import (
	"errors"
	"math"
	"strconv"
	"syscall"
)

// AttachRequest asks for a task, or all threads of a process, to be moved.
type AttachRequest struct {
	Actor *Actor
	To    *Container
	ID    int32 // a tid; of any thread when Process is set

	// Process asks for all threads of the process, those born meanwhile
	// included.
	Process bool

	// Allow is the front end's permission check for one task, made inside the
	// change, without mu.
	Allow func(task TaskInfo, from *Container) error
}

// maxRounds bounds how often an attach goes after tasks that were born while it
// ran.
const maxRounds = 32

// Attach moves a task, or a process, to a container: all or nothing. Errors, in
// this order: ENODEV when the container is removed, ESRCH when there is no such
// task, Allow's, the first of a subsystem's CanAttach, EINVAL for a task that
// the kernel does not move, the first of a subsystem's Attach, ESRCH when the
// task ended meanwhile, and EAGAIN when a process makes threads faster than they
// can be moved.
func (t *Tree) Attach(r AttachRequest) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	err := t.attach(r)
	var op *OpError
	if err != nil && !errors.As(err, &op) {
		err = opError("attach", strconv.Itoa(int(r.ID)), err)
	}
	return err
}

func (t *Tree) attach(r AttachRequest) error {
	if r.To.removed {
		return syscall.ENODEV
	}
	t.host.Drain()
	infos, err := t.resolve(r)
	if err != nil {
		return err
	}
	m := newMove(r)
	here, err := t.prepare(m, r, infos)
	if err != nil {
		return err
	}
	for _, task := range here {
		if err := t.reattach(task, r.To); err != nil {
			return err
		}
	}
	if len(m.tasks) == 0 {
		return nil
	}
	t.Update(func() { t.beginLocked(m) })
	err = t.carryOut(m)
	if err != nil {
		t.undo(m)
	}
	t.Update(func() { t.endMoveLocked(m) })
	return err
}

// resolve asks the host for the threads that r is about.
func (t *Tree) resolve(r AttachRequest) ([]TaskInfo, error) {
	info, err := t.host.Task(r.ID)
	if !r.Process {
		return []TaskInfo{info}, err
	}
	tgid := info.TGID
	if err != nil {
		tgid = r.ID // its first thread may have ended before the others
	}
	var infos []TaskInfo
	err = t.host.Tasks(tgid, func(i TaskInfo) bool { infos = append(infos, i); return true })
	if err == nil && len(infos) == 0 {
		err = syscall.ESRCH
	}
	return infos, err
}

// move is an attach under way. It is used under changeMu; what is marked mu is
// also used by the events that come in meanwhile.
type move struct {
	to      *Container
	id      int32
	process *Process // nil when one thread is moved
	tasks   []*moved
	hinted  bool // the mirror has moved the whole process at once

	targets map[*Group]*Group // mu: where tasks go to, and from where
	born    []*Task           // mu: forked into a target meanwhile
	// Without a mirror, forks stamped later than splitAt are in the new
	// containers. Their events, and all that follow, wait for the commit.
	splitAt  int64    // mu
	deferred []func() // mu
}

// moved is a task in a move. What is done for it is undone in reverse.
type moved struct {
	task     *Task
	tid      int32
	from, to *Group
	inMirror bool
	undo     []func()
}

func newMove(r AttachRequest) *move {
	return &move{to: r.To, id: r.ID, targets: make(map[*Group]*Group), splitAt: math.MaxInt64}
}

// prepare checks everything that can be checked without an effect and fills in
// m. It returns the tasks that are in the container already.
func (t *Tree) prepare(m *move, r AttachRequest, infos []TaskInfo) (here []*Task, err error) {
	for _, info := range infos {
		t.adopt(info)
		var from *Container
		t.View(func() {
			if task := t.tasks[info.TID]; task != nil {
				from = task.group.container(m.to.h)
			}
		})
		if from == nil {
			return nil, syscall.ESRCH
		}
		if r.Allow != nil {
			if err := r.Allow(info, from); err != nil {
				return nil, err
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, info := range infos {
		task := t.tasks[info.TID]
		if task == nil {
			if r.Process {
				continue // ended since
			}
			return nil, syscall.ESRCH
		}
		from := task.group.container(m.to.h)
		if from == m.to {
			here = append(here, task)
			continue
		}
		for _, b := range m.to.h.bound {
			if b.canAttach == nil {
				continue
			}
			if err := b.canAttach.CanAttach(r.Actor, task, from, m.to); err != nil {
				return nil, err
			}
		}
		if r.Process {
			m.process = task.proc
		}
		t.includeLocked(m, task)
		if parent := t.procs[info.PPID]; parent != nil && parent != task.proc {
			parent.mixed = true
		}
	}
	if len(here)+len(m.tasks) == 0 {
		return nil, syscall.ESRCH
	}
	return here, nil
}

// includeLocked takes a task into the move.
func (t *Tree) includeLocked(m *move, task *Task) *moved {
	to := t.groups.find(task.group, m.to)
	m.targets[to] = task.group
	mv := &moved{task: task, tid: task.TID(), from: task.group, to: to}
	m.tasks = append(m.tasks, mv)
	p := task.proc
	p.moving = true
	// From now on a child or another thread of p may be elsewhere than p.
	if p.kids > 0 || p.adopted || (m.process == nil && p.nthreads > 1) {
		p.mixed = true
	}
	if a := p.ancestor(); a != nil {
		a.mixed = true
	}
	return mv
}

// carryOut does what prepare found possible, and commits it.
func (t *Tree) carryOut(m *move) error {
	if err := t.perform(m, m.tasks); err != nil {
		return err
	}
	for round := 0; ; round++ {
		if t.mirror == nil {
			t.Update(func() { t.splitLocked(m) })
		}
		t.host.Drain()
		if err := t.verify(m); err != nil {
			return err
		}
		var late []*moved
		t.Update(func() {
			if late = t.latecomersLocked(m); len(late) == 0 {
				t.commitLocked(m)
			}
		})
		if len(late) == 0 {
			return nil
		}
		if round == maxRounds {
			return syscall.EAGAIN
		}
		if err := t.perform(m, late); err != nil {
			return err
		}
	}
}

// perform has the effects of the move on some of its tasks: in the mirror, which
// decides, then on the host by the subsystems. A task that ends meanwhile is no
// error, unless it is the only one that the move is about.
func (t *Tree) perform(m *move, tasks []*moved) error {
	gone := func(mv *moved) bool { return m.process != nil || mv.task != m.tasks[0].task }
	for _, mv := range tasks {
		if err := t.moveInMirror(m, mv); err != nil && !(err == syscall.ESRCH && gone(mv)) {
			return err
		}
	}
	for _, mv := range tasks {
		from := mv.from.container(m.to.h)
		for _, b := range m.to.h.bound {
			if b.attach == nil {
				continue
			}
			undo, err := b.attach.Attach(mv.task, from, m.to)
			if errors.Is(err, syscall.ESRCH) && gone(mv) {
				break
			}
			if err != nil {
				return err
			}
			if undo != nil {
				mv.undo = append(mv.undo, undo)
			}
		}
	}
	return nil
}

// moveInMirror moves one task to its group's directory, or its whole process if
// that shares a css group.
func (t *Tree) moveInMirror(m *move, mv *moved) error {
	if t.mirror == nil || mv.inMirror {
		return nil
	}
	if !mv.to.inMirror {
		if err := t.mirror.Make(mv.to.num); err != nil {
			return errnoOf(err)
		}
		mv.to.inMirror = true
	}
	if m.process != nil && !m.hinted && len(m.targets) == 1 && len(m.tasks) == int(m.process.nthreadsNow(t)) {
		if err := t.mirror.Move(mv.to.num, m.process.tgid, true); err != nil {
			return errnoOf(err)
		}
		m.hinted = true
		for _, o := range m.tasks {
			o.inMirror = true
		}
		return nil
	}
	if err := t.mirror.Move(mv.to.num, mv.tid, false); err != nil {
		return errnoOf(err)
	}
	mv.inMirror = true
	return nil
}

func (p *Process) nthreadsNow(t *Tree) (n int32) {
	t.View(func() { n = p.nthreads })
	return n
}

// verify finds out whether the task that was asked for is still the one that
// was moved: a tid that was used again names another.
func (t *Tree) verify(m *move) error {
	if m.process != nil {
		return nil
	}
	mv := m.tasks[0]
	info, err := t.host.Task(mv.tid)
	if err != nil {
		return errnoOf(err)
	}
	var same bool
	t.View(func() { same = mv.task.group != nil && mv.task.start.is(info.Start) })
	if !same {
		return syscall.ESRCH
	}
	return nil
}

// latecomersLocked takes in the tasks that the move must cover since they were
// born while it ran: children of moved tasks that the mirror has in the new
// group, which lack the effects; and threads of a moved process.
func (t *Tree) latecomersLocked(m *move) (late []*moved) {
	for _, task := range m.born {
		if task.group == nil {
			continue
		}
		task.proc.moving = true
		from := m.targets[task.group]
		mv := &moved{task: task, tid: task.TID(), from: from, to: task.group, inMirror: true}
		m.tasks = append(m.tasks, mv)
		late = append(late, mv)
	}
	m.born = nil
	if m.process != nil {
		for task := m.process.threads; task != nil; task = task.pnext {
			if task.group.container(m.to.h) != m.to && !m.has(task) {
				late = append(late, t.includeLocked(m, task))
			}
		}
	}
	return late
}

func (m *move) has(task *Task) bool {
	for _, mv := range m.tasks {
		if mv.task == task {
			return true
		}
	}
	return false
}

// commitLocked is the instant at which the model shows the move.
func (t *Tree) commitLocked(m *move) {
	for _, mv := range m.tasks {
		if mv.task.group == nil {
			continue
		}
		from := mv.from.container(m.to.h)
		t.regroupLocked(mv.task, mv.to)
		t.observeLocked(Event{Kind: Attached, Task: mv.task, From: from, Container: m.to})
		from.releasable = true
		t.releaseLocked(from)
	}
	t.replayLocked(m)
}

// regroupLocked switches a task, if it lives, to another group.
func (t *Tree) regroupLocked(task *Task, g *Group) {
	if task.group == nil || task.group == g {
		return
	}
	t.leaveLocked(task)
	t.enterLocked(task, g)
}

// undo takes back what was done, in reverse.
func (t *Tree) undo(m *move) {
	t.host.Drain() // the children that there are now go back too
	t.Update(func() {
		t.latecomersLocked(m)
		t.replayLocked(m)
	})
	for i := len(m.tasks) - 1; i >= 0; i-- {
		mv := m.tasks[i]
		for j := len(mv.undo) - 1; j >= 0; j-- {
			mv.undo[j]()
		}
		if !mv.inMirror {
			continue
		}
		// The tid may have been another task's when it was moved.
		back := mv.from
		t.View(func() {
			if now := t.tasks[mv.tid]; now != nil && now != mv.task {
				back = now.group
			}
		})
		if err := t.mirror.Move(back.num, mv.tid, false); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.log.Error("a task could not be put back after a failed attach", "tid", mv.tid, "group", back.num, "err", err)
			t.Update(func() { t.strayed = true })
		}
	}
	t.Update(func() {
		for _, mv := range m.tasks {
			t.regroupLocked(mv.task, mv.from)
		}
	})
}

func (t *Tree) reattach(task *Task, c *Container) error {
	for _, b := range c.h.bound {
		if b.reattach != nil {
			if err := b.reattach.Reattach(task, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Tree) beginLocked(m *move) { t.moving = m }

func (t *Tree) endMoveLocked(m *move) {
	t.moving = nil
	for _, mv := range m.tasks {
		mv.task.proc.moving = false
	}
}

// splitLocked decides, without a mirror, the instant that divides the forks of
// the moved tasks between old and new containers.
func (t *Tree) splitLocked(m *move) {
	t.replayLocked(m)
	m.splitAt = t.host.Now()
}

// replayLocked applies the events that were deferred.
func (t *Tree) replayLocked(m *move) {
	m.splitAt = math.MaxInt64
	events := m.deferred
	m.deferred = nil
	for _, apply := range events {
		apply()
	}
}

// defers reports whether a fork event has to wait for the commit. A nil move
// defers nothing. mu.
func (m *move) defers(t *Tree, e ForkEvent) bool {
	if m.deferring() {
		return true
	}
	if m == nil || e.Time <= m.splitAt {
		return false
	}
	tgid := e.ParentTGID
	if e.TID != e.TGID {
		tgid = e.TGID
	}
	p := t.procs[tgid]
	return p != nil && p.moving
}

// deferring reports whether events wait for the commit, so that all that follow
// have to. mu.
func (m *move) deferring() bool { return m != nil && len(m.deferred) > 0 }

// joined notes a task that the mirror has placed, if that is where the move
// goes. mu.
func (m *move) joined(task *Task) {
	if m != nil && m.targets[task.group] != nil {
		m.born = append(m.born, task)
	}
}

// mistook reports whether a new task has the tid that is being moved: it is then
// in the mirror where the move put it, not where it was forked. mu.
func (m *move) mistook(tid int32) bool { return m != nil && m.process == nil && m.tasks[0].tid == tid }

// errnoOf is the errno in an error that came from the host; EIO when it has
// none.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
