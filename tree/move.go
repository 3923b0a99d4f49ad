package tree

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"syscall"
)

// move is an attach under way. It is used under changeMu; what is marked mu is
// also used by the events that come in meanwhile.
type move struct {
	actor   *Actor
	to      []*Container       // each of another hierarchy
	process *Process           // nil when one thread is moved
	tasks   []*moved           // mu
	many    map[*Task]struct{} // mu: those of tasks, when they are many
	procs   []*Process         // mu: those that are marked as moving
	hinted  bool               // the mirror has moved the whole process at once

	targets map[*Group][]*Group // mu: where tasks go to, and from where
	born    []*moved            // mu: forked into a target meanwhile
	alone   map[*Process]bool   // mu: see isAlone
	// A task that gets the number of one that has ended can be moved in its place. Until
	// it is put back its children are forked there, so these are mistaken as well. The model
	// has all of them where they are to be.
	numbers  map[int32]struct{} // mu: of those that have ended
	mistaken map[*Task]struct{} // mu
	undoing  bool               // mu: tasks are moved back, too
	// Without a mirror, forks stamped later than splitAt are in the new
	// containers. Their events, and all that follow, wait for the commit.
	splitAt   int64    // mu
	deferred  []func() // mu
	replaying bool     // mu: those that come meanwhile are behind them
}

// moved is a task in a move. What is done for it is undone in reverse.
type moved struct {
	task     *Task
	tid      int32 // when it was taken in
	start    Start
	from, to *Group
	born     bool // in to, by its fork
	inMirror bool
	missed   bool  // not found by the mirror
	movedAs  int32 // the tid by which the mirror moved it
	byHint   bool  // with its whole process
	undo     []func()
	undone   bool
}

func newMove(r AttachRequest) *move {
	return &move{actor: r.Actor, to: r.targets(), targets: make(map[*Group][]*Group), splitAt: math.MaxInt64}
}

// isThere reports whether tasks of a group are where the move goes.
func (m *move) isThere(g *Group) bool {
	return !slices.ContainsFunc(m.to, func(c *Container) bool { return g.container(c.h) != c })
}

// steps are the changes of container that the move means for a task: from, to.
func (mv *moved) steps(m *move) iter.Seq2[*Container, *Container] {
	return func(yield func(from, to *Container) bool) {
		for _, to := range m.to {
			if from := mv.from.container(to.h); from != to && !yield(from, to) {
				return
			}
		}
	}
}

// includeLocked takes a task into the move.
func (t *Tree) includeLocked(m *move, task *Task) *moved {
	to := t.groups.find(task.group, m.to...)
	t.keepGroupLocked(to)
	if !slices.Contains(m.targets[to], task.group) {
		m.targets[to] = append(m.targets[to], task.group)
	}
	mv := &moved{task: task, tid: task.TID(), start: task.start, from: task.group, to: to}
	m.add(mv)
	delete(m.mistaken, task) // what it forks from now on is where it is to be
	m.mark(task.proc)
	task.proc.mix() // from the mirror's move on
	return mv
}

// mark notes that the move has tasks of a process in hand. mu.
func (m *move) mark(p *Process) {
	if !p.moving {
		p.moving = true
		m.procs = append(m.procs, p)
	}
}

// perform has the effects of the move on some of its tasks: in the mirror, which
// decides, then on the host by the subsystems. A task that ends meanwhile is no
// error, unless it is the only one that the move is about.
func (t *Tree) perform(m *move, tasks []*moved) error {
	gone := func(mv *moved) bool { return m.process != nil || mv.task != m.tasks[0].task }
	atOnce := t.isWhole(m)
	for _, mv := range tasks {
		err := t.moveInMirror(m, mv, atOnce)
		if mv.missed = err == syscall.ESRCH && gone(mv); err != nil && !mv.missed {
			return err
		}
	}
	for _, mv := range tasks {
		if err := mv.takeEffect(m); err != nil && !(errors.Is(err, syscall.ESRCH) && gone(mv)) {
			return err
		}
	}
	return nil
}

// takeEffect has the subsystems do what a task's move means on the host.
func (mv *moved) takeEffect(m *move) error {
	for from, to := range mv.steps(m) {
		for _, b := range to.h.bound {
			if b.attach == nil {
				continue
			}
			undo, err := b.attach.Attach(mv.task, from, to)
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
func (t *Tree) moveInMirror(m *move, mv *moved, atOnce bool) error {
	if t.mirror == nil || mv.isThere() {
		return nil
	}
	if !mv.to.inMirror {
		if err := t.mirror.Make(mv.to.num); err != nil {
			return errnoOf(err)
		}
		t.Update(func() { mv.to.inMirror = true })
	}
	if atOnce && !m.hinted {
		if err := t.mirror.Move(mv.to.num, m.process.tgid, true); err != nil {
			return unmoved(err)
		}
		m.hinted = true
		for _, o := range m.tasks {
			o.inMirror, o.movedAs, o.byHint = true, o.tid, true
		}
		return nil
	}
	tid := mv.task.TID() // an exec may have changed it
	if err := t.mirror.Move(mv.to.num, tid, false); err != nil {
		return unmoved(err)
	}
	mv.inMirror, mv.movedAs = true, tid
	return nil
}

// unmoved is the error of a task that the mirror did not move.
func unmoved(err error) error {
	if err = errnoOf(err); err == syscall.EINVAL {
		return fmt.Errorf("it is a kernel thread, which the kernel does not move: %w", err)
	}
	return err
}

// isThere reports whether the mirror has moved the task, and not only one that has the number
// that it had before an exec.
func (mv *moved) isThere() bool {
	return mv.inMirror && (mv.born || mv.byHint || mv.movedAs == mv.task.TID())
}

// isWhole reports whether a move takes all threads of a process to one css group.
// Those that they make from now on are forked into it.
func (t *Tree) isWhole(m *move) (whole bool) {
	if m.process == nil {
		return false
	}
	t.View(func() {
		n := int32(0)
		for _, mv := range m.tasks {
			if mv.task.group != nil && mv.task.proc == m.process {
				n++
			}
		}
		whole = len(m.targets) == 1 && n == m.process.nthreads
	})
	return whole
}

// verify waits until the Tree was told what happened, and finds out whether the tasks
// that were moved are still those that were meant: a tid that was used again names
// another. Where a thread of a process was mistaken it is put back, and the move goes on
// with the others.
func (t *Tree) verify(m *move) error {
	if m.process != nil {
		t.host.Drain()
	}
	lives := false
	var mistaken []int32
	for _, mv := range m.tasks {
		if alone := mv.inMirror && !mv.byHint; mv.born || lives && !alone {
			continue
		}
		info, err := t.lookAgain(m, mv.task)
		if errno := errnoOf(err); err != nil && errno != syscall.ESRCH {
			return errno
		}
		if err == nil && t.isStill(mv, info) {
			lives = true
		} else if err == nil && mv.inMirror && m.process != nil && !mv.byHint {
			mistaken = append(mistaken, mv.movedAs)
		}
		if m.process == nil {
			break
		}
	}
	if !lives && !t.takeOver(m) {
		return syscall.ESRCH
	}
	t.restore(m, mistaken)
	return nil
}

// takeOver gives the number of the first thread of the move's process to another that executes
// a program, and has it on the host already, if that is why the model has no first thread any
// more: the Tree is told when the program is loaded. It reports whether that is so, and what the
// move is about lives.
func (t *Tree) takeOver(m *move) (lives bool) {
	p := m.tasks[0].task.proc
	info, err := t.host.Task(p.tgid)
	t.Update(func() {
		// The number comes with the first one's start time.
		if err != nil || t.procs[p.tgid] != p {
			return
		}
		if now := t.tasks[p.tgid]; now != nil { // which is not in the move, or its end is not told
			lives = m.process != nil && !m.has(now) && now.start.is(info.Start)
			return
		}
		if !p.first.is(info.Start) {
			return
		}
		t.takeOverLocked(p)
		heir := t.tasks[p.tgid]
		lives = heir != nil && (m.process != nil || heir == m.tasks[0].task)
	})
	return lives
}

// lookAgain looks a task of a move up, for a whole process after a Drain.
func (t *Tree) lookAgain(m *move, task *Task) (TaskInfo, error) {
	if m.process != nil {
		return t.host.Task(task.TID())
	}
	tid := task.TID()
	info, err := t.look(tid)
	if now := task.TID(); now != tid { // by an exec, of which the Tree was told just now
		return t.host.Task(now)
	}
	return info, err
}

// isStill reports whether what the host shows is the task of mv.
func (t *Tree) isStill(mv *moved, info TaskInfo) (same bool) {
	t.View(func() {
		start := mv.start
		if mv.task.TID() != mv.tid {
			start = mv.task.start // by an exec
		}
		same = mv.task.group != nil && start.is(info.Start) && mv.task.TGID() == info.TGID
	})
	return same
}

// latecomersLocked takes in the tasks that the move must cover since they were
// born while it ran: children of moved tasks that the mirror has in the new
// group, which lack the effects; and threads of a moved process. A thread that
// the mirror did not find, or took another for, since an exec changed its number,
// comes again.
func (t *Tree) latecomersLocked(m *move) (late []*moved) {
	if t.mirror != nil {
		for _, mv := range m.tasks {
			if !mv.isThere() && mv.task.group != nil {
				late = append(late, mv)
			}
		}
	}
	late = append(late, t.bornLocked(m)...)
	return append(late, t.includeOthersLocked(m)...)
}

// includeOthersLocked takes in the threads of a moved process that are to be moved and were not
// taken in before.
func (t *Tree) includeOthersLocked(m *move) (others []*moved) {
	if m.process == nil {
		return nil
	}
	for task := m.process.threads; task != nil; task = task.pnext {
		if !m.isThere(task.group) && !m.has(task) {
			others = append(others, t.includeLocked(m, task))
		}
	}
	return others
}

// removeOverdue takes those of a process away that have ended, and of whose exits nobody was
// told for long. Where its first thread alone is shown one of them may be that, by an exec.
func (t *Tree) removeOverdue(m *move, late []*moved) {
	if m.process == nil {
		return
	}
	var entries []Entry
	t.View(func() {
		for _, mv := range late {
			if mv.task.Live() && mv.task.proc == m.process {
				entries = append(entries, mv.task.Entry())
			}
		}
	})
	gone := t.notShown(entries)
	t.host.Drain()
	if !t.seemsExecuted(m.process.tgid, func(TaskInfo) bool { return true }) {
		t.removeAll(gone, map[*Process]bool{m.process: false})
	}
}

func (t *Tree) bornLocked(m *move) (late []*moved) {
	for _, mv := range m.born {
		if mv.task.group == nil || m.has(mv.task) {
			continue
		}
		m.add(mv)
		late = append(late, mv)
	}
	m.born = nil
	return late
}

// sweptLocked takes in the threads that were born before the mirror moved their
// whole process, and so moved with it, and of which the move did not know.
func (t *Tree) sweptLocked(m *move) {
	if !m.hinted {
		return
	}
	for task := m.process.threads; task != nil; task = task.pnext {
		if !m.has(task) {
			m.add(&moved{
				task: task, tid: task.TID(), start: task.start, from: task.group, to: task.group,
				inMirror: true, movedAs: task.TID(),
			})
		}
	}
}

// fewTasks are found by looking at each.
const fewTasks = 32

// add takes a task in.
func (m *move) add(mv *moved) {
	m.tasks = append(m.tasks, mv)
	switch {
	case m.many != nil:
		m.many[mv.task] = struct{}{}
	case len(m.tasks) > fewTasks:
		m.many = make(map[*Task]struct{})
		for _, mv := range m.tasks {
			m.many[mv.task] = struct{}{}
		}
	}
}

func (m *move) has(task *Task) bool {
	if m != nil && m.many != nil {
		_, ok := m.many[task]
		return ok
	}
	return m != nil && slices.ContainsFunc(m.tasks, func(mv *moved) bool { return mv.task == task })
}

// livesLocked reports whether what was asked for is still there to be moved.
func (m *move) livesLocked() bool {
	if m.process != nil {
		return m.process.nthreads > 0
	}
	return m.tasks[0].task.group != nil
}

// commitLocked is the instant at which the model shows the move.
func (t *Tree) commitLocked(m *move) {
	for _, mv := range m.tasks {
		if mv.task.group == nil || mv.born {
			continue
		}
		t.regroupLocked(mv.task, mv.to)
		for from, to := range mv.steps(m) {
			t.observeLocked(Event{Kind: Attached, Task: mv.task, From: from, Container: to, Actor: m.actor})
			from.releasable = true
			t.releaseLocked(from)
		}
	}
	t.replayLocked(m)
}

// regroupLocked switches a task, if it lives, to another group.
func (t *Tree) regroupLocked(task *Task, g *Group) {
	from := task.group
	if from == nil || from == g {
		return
	}
	t.leaveLocked(task)
	t.enterLocked(task, g)
	task.proc.mix()
	for _, r := range t.subsystems {
		if r.move == nil {
			continue
		}
		if was, is := from.container(r.hierarchy), g.container(r.hierarchy); was != is {
			r.move.Move(task, was, is)
		}
	}
}

// foundLocked switches a task, if it lives, to the group where the mirror has it. Whom the model
// had where it was has ended, or was moved by somebody else.
func (t *Tree) foundLocked(task *Task, g *Group) {
	from := task.group
	t.regroupLocked(task, g)
	if from != nil && from.ntasks == 0 {
		t.leftLocked(from)
	}
}

// endMoveLocked takes back what was assumed of the families while tasks moved.
func (t *Tree) endMoveLocked(m *move) {
	t.moving = nil
	for _, p := range m.procs {
		p.moving = false
		p.settle()
	}
}
