package tree

import (
	"errors"
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
	task.proc.moving = true
	task.proc.mix() // from the mirror's move on
	return mv
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
		mv.to.inMirror = true
	}
	if atOnce && !m.hinted {
		if err := t.mirror.Move(mv.to.num, m.process.tgid, true); err != nil {
			return errnoOf(err)
		}
		m.hinted = true
		for _, o := range m.tasks {
			o.inMirror, o.movedAs, o.byHint = true, o.tid, true
		}
		return nil
	}
	tid := mv.task.TID() // an exec may have changed it
	if err := t.mirror.Move(mv.to.num, tid, false); err != nil {
		return errnoOf(err)
	}
	mv.inMirror, mv.movedAs = true, tid
	return nil
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
	if !lives {
		return syscall.ESRCH
	}
	t.restore(m, mistaken)
	return nil
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
	if m.process != nil {
		for task := m.process.threads; task != nil; task = task.pnext {
			if !m.isThere(task.group) && !m.has(task) {
				late = append(late, t.includeLocked(m, task))
			}
		}
	}
	return late
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
	m.settle()
	t.replayLocked(m)
}

// settle takes back what was assumed of the families while tasks moved.
func (m *move) settle() {
	var last *Process
	for _, mv := range m.tasks {
		if mv.task.proc != last {
			last = mv.task.proc
			last.settle()
		}
	}
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

// undo takes back what was done, in reverse, also for the children that there
// are by now.
func (t *Tree) undo(m *move) {
	for round, done := 0, false; !done; round++ {
		t.host.Drain()
		t.Update(func() {
			m.undoing = true
			t.bornLocked(m)
			t.sweptLocked(m)
			t.replayLocked(m)
			done = !slices.ContainsFunc(m.tasks, func(mv *moved) bool { return !mv.undone }) || round == maxRounds
			if done {
				for _, mv := range m.tasks {
					t.regroupLocked(mv.task, mv.from)
				}
				m.settle()
			}
		})
		for _, mv := range slices.Backward(m.tasks) {
			if !mv.undone && !done {
				t.undoTask(m, mv)
			}
		}
	}
	t.restoreMistaken(m)
}

func (t *Tree) undoTask(m *move, mv *moved) {
	mv.undone = true
	for _, undo := range slices.Backward(mv.undo) {
		undo()
	}
	if mv.inMirror || (m.hinted && mv.task.proc == m.process) {
		var live bool
		t.View(func() { live = mv.task.group != nil })
		if live {
			t.putBack(mv.from, mv.task.TID())
		}
	}
	if !mv.born {
		return
	}
	// It has inherited the effects that its forker has got rid of.
	for from, to := range mv.steps(m) {
		for _, b := range to.h.bound {
			if b.attach == nil {
				continue
			}
			if _, err := b.attach.Attach(mv.task, to, from); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.log.Warn("a child of a task that a failed attach put back lacks an effect", "tid", mv.tid, "subsystem", b.Name(), "err", err)
			}
		}
	}
}

func (t *Tree) putBack(g *Group, tid int32) {
	if err := t.mirror.Move(g.num, tid, false); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.log.Error("a task could not be put back after a failed attach", "tid", tid, "group", g.num, "err", err)
		t.Update(func() { t.strayed = true })
	}
}

// restoreMistaken puts the tasks back that have the tids of those that a failed
// move was about, and may have been moved in their place.
func (t *Tree) restoreMistaken(m *move) {
	if t.mirror == nil {
		return
	}
	t.host.Drain()
	var tids []int32
	t.View(func() {
		for _, mv := range m.tasks {
			if now := t.tasks[mv.movedAs]; now != nil && mv.inMirror && !m.has(now) {
				tids = append(tids, mv.movedAs)
			}
		}
		if m.hinted {
			if p := t.procs[m.process.tgid]; p != nil && p != m.process {
				for k := p.threads; k != nil; k = k.pnext {
					tids = append(tids, k.TID())
				}
			}
		}
	})
	t.restore(m, tids)
}

// restore puts tasks back that the mirror moved by mistake, and the children
// that they have had meanwhile, also where these have survived them.
func (t *Tree) restore(m *move, tids []int32) {
	for _, tid := range tids {
		t.restoreTask(m, tid)
	}
	more := len(tids) > 0
	t.View(func() { more = more || len(m.mistaken) > 0 })
	restored := make(map[*Task]bool)
	for round := 0; more && round < maxRounds; round++ {
		n := len(restored)
		for _, g := range m.ends() {
			t.restoreMembers(m, g, restored)
		}
		more = len(restored) > n // which may have had more children until then
	}
}

// restoreMembers puts the tasks back that the mirror has in g and the model elsewhere, but
// for those that were restored.
func (t *Tree) restoreMembers(m *move, g *Group, restored map[*Task]bool) {
	members, err := t.mirror.Members(g.num)
	if err != nil {
		return
	}
	t.host.Drain()
	for _, tid := range members {
		var task *Task
		t.View(func() {
			if k := t.tasks[tid]; k != nil && k.group != g && !m.has(k) && !restored[k] {
				task = k
			}
		})
		if task != nil {
			restored[task] = true
			t.restoreTask(m, tid)
		}
	}
}

// restoreTask moves a task that the mirror moved by mistake to where the model has
// it.
func (t *Tree) restoreTask(m *move, tid int32) {
	for range maxRounds {
		t.host.Drain()
		var task *Task
		var g *Group
		t.View(func() {
			if task = t.tasks[tid]; task != nil {
				g = task.group
			}
		})
		if task == nil || m.has(task) {
			return
		}
		t.putBack(g, tid)
		var same bool
		t.host.Drain()
		t.View(func() { same = t.tasks[tid] == task })
		if same {
			return
		}
	}
}

func (t *Tree) endMoveLocked(m *move) {
	t.moving = nil
	for _, mv := range slices.Concat(m.tasks, m.born) {
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
	m.replaying = true // one of them may let go of mu
	for len(m.deferred) > 0 {
		apply := m.deferred[0]
		m.deferred = m.deferred[1:]
		apply()
	}
	m.replaying = false
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
func (m *move) deferring() bool { return m != nil && (m.replaying || len(m.deferred) > 0) }

// joined notes a task that the mirror has placed, if that is where the move
// goes and a moved task may have forked it. The process p is named as its
// parent, or is its own where it is a thread; of p's tasks forker is named, if any is;
// g is where that has it. Without a forker a scan found the task, where events are
// lost: then it is only p's who moves, and has no other task there that may have
// forked it. mu.
func (m *move) joined(task *Task, p *Process, forker *Task, g *Group) {
	if m == nil || p == nil || len(m.targets[task.group]) == 0 {
		return
	}
	if forker == nil && !(p.moving && m.isAlone(p, task)) {
		return
	}
	froms := m.targets[task.group]
	from := froms[0]
	if m.concerns(p) && slices.Contains(froms, g) {
		from = g
	} else if parent := m.bornTo(p, forker); parent != nil { // it is a grandchild
		from = parent.from
	} else if task.group == g || !m.concerns(p) {
		return
	}
	task.proc.moving = true
	m.born = append(m.born, &moved{
		task: task, tid: task.TID(), start: task.start, from: from, to: task.group,
		born: true, inMirror: true, movedAs: task.TID(),
	})
}

// bornTo finds the forker among those that were born, or without one any task of p.
func (m *move) bornTo(p *Process, forker *Task) *moved {
	is := func(mv *moved) bool {
		if forker != nil && forker.proc == p {
			return mv.born && mv.task == forker
		}
		return mv.born && mv.task.proc == p
	}
	for _, all := range [...][]*moved{m.tasks, m.born} {
		if i := slices.IndexFunc(all, is); i >= 0 {
			return all[i]
		}
	}
	return nil
}

// isAlone reports whether a process has no task where the move goes but those that
// move, or were forked by these: as it was when first asked, since nobody else moves any.
// A task that was found just now is not looked at. mu.
func (m *move) isAlone(p *Process, found *Task) bool {
	alone, known := m.alone[p]
	if known {
		return alone
	}
	born := make(map[*Task]bool, len(m.born))
	for _, mv := range m.born {
		born[mv.task] = true
	}
	alone = true
	for k := p.threads; k != nil && alone; k = k.pnext {
		alone = k == found || !m.isThere(k.group) || born[k] || m.has(k)
	}
	if m.alone == nil {
		m.alone = make(map[*Process]bool)
	}
	m.alone[p] = alone
	return alone
}

// concerns reports whether a fork that names p as its parent may be a moved
// task's. mu.
func (m *move) concerns(p *Process) bool {
	return p != nil && (p.moving ||
		slices.ContainsFunc(m.tasks, func(mv *moved) bool { return mv.task.proc.ancestor() == p }))
}

// freed notes that a task's number is free again, by its end or by an exec. mu.
func (m *move) freed(task *Task) {
	if m == nil || !m.has(task) && m.process != task.proc {
		return
	}
	if m.numbers == nil {
		m.numbers = make(map[int32]struct{})
	}
	m.numbers[task.TID()] = struct{}{}
	if m.process == task.proc {
		m.numbers[m.process.tgid] = struct{}{} // which the last thread frees
	}
}

// mistook reports whether a new task is mistaken. As its parent forker and p are named; g is
// where the mirror has it, nil if that was not asked. If the move leads there it is there by
// mistake, unless its parent is, too. mu.
func (m *move) mistook(tid int32, forker *Task, p *Process, g *Group) bool {
	if m == nil {
		return false
	}
	if _, ok := m.mistaken[forker]; ok {
		return true
	}
	_, ok := m.numbers[tid]
	return (ok || m.mistookKin(p, g)) && !m.concerns(p)
}

// mistookKin reports whether a new task in g, of which p is named as the parent, can have
// been forked by a mistaken one of p's family, and by no other: see "Fork events that can be
// wrong". mu.
func (m *move) mistookKin(p *Process, g *Group) bool {
	if len(m.mistaken) == 0 || p == nil || g == nil || !m.isEnd(g) {
		return false
	}
	isKin := func(k *Task) bool { return k.proc == p || k.proc.ancestor() == p }
	found := false
	for k := range m.mistaken {
		found = found || isKin(k)
	}
	for k := g.tasks; k != nil && found; k = k.next {
		found = !isKin(k)
	}
	return found
}

// noteMistaken notes a new task that is mistaken. mu.
func (m *move) noteMistaken(task *Task) {
	if m.mistaken == nil {
		m.mistaken = make(map[*Task]struct{})
	}
	m.mistaken[task] = struct{}{}
}

// misled reports whether a task that the mirror has in g may be there by mistake. mu.
func (m *move) misled(task *Task, g *Group) bool {
	if m == nil {
		return false
	}
	_, ok := m.mistaken[task]
	return ok && m.isEnd(g)
}

// ends are the groups that a task can have been moved to by mistake. mu or changeMu.
func (m *move) ends() (gs []*Group) {
	for to, froms := range m.targets {
		gs = append(gs, to)
		if m.undoing {
			gs = append(gs, froms...)
		}
	}
	return gs
}

func (m *move) isEnd(g *Group) bool { return slices.Contains(m.ends(), g) }

// errnoOf is the errno in an error that came from the host; EIO when it has
// none.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
