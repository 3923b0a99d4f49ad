package tree

import (
	"math"
	"slices"
)

// What the events that come in while a move is under way are to it.

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
	if concerned := m.concerns(p, task.proc == p); concerned && slices.Contains(froms, g) {
		from = g
	} else if parent := m.bornTo(p, forker); parent != nil { // it is a grandchild
		from = parent.from
	} else if task.group == g || !concerned {
		return
	}
	m.mark(task.proc)
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

// concerns reports whether a fork that names p as its parent, or of a thread of p, may be a
// moved task's. mu.
func (m *move) concerns(p *Process, thread bool) bool {
	return p != nil && (p.moving ||
		slices.ContainsFunc(m.tasks, func(mv *moved) bool { return mv.task.proc.mayFork(p, thread) }))
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

// mistook reports whether a new task is mistaken. As its parent forker and p are named, or p is
// its own process where it is a thread; g is where the mirror has it, nil if that was not asked.
// If the move leads there it is there by mistake, unless its parent is, too. mu.
func (m *move) mistook(tid int32, thread bool, forker *Task, p *Process, g *Group) bool {
	if m == nil {
		return false
	}
	if _, ok := m.mistaken[forker]; ok {
		return true
	}
	_, ok := m.numbers[tid]
	return (ok || m.mistookKin(p, thread, g)) && !m.concerns(p, thread)
}

// mistookKin reports whether a new task in g, of which p is named as the parent, or as a thread
// of p, can have been forked by a mistaken one of p's family, and by no other. mu.
func (m *move) mistookKin(p *Process, thread bool, g *Group) bool {
	if len(m.mistaken) == 0 || p == nil || g == nil || !m.isEnd(g) {
		return false
	}
	isKin := func(k *Task) bool { return k.proc.mayFork(p, thread) }
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

// mistakeHeirs notes those of a process who may get the number of its first thread, which moved
// and has ended, and are not to be moved: by that number each can have been. mu.
func (m *move) mistakeHeirs(p *Process) {
	if m == nil {
		return
	}
	if _, ok := m.numbers[p.tgid]; !ok {
		return
	}
	for k := p.threads; k != nil; k = k.pnext {
		if !m.has(k) {
			m.noteMistaken(k)
		}
	}
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

// hasMoved reports whether the mirror has moved a task by its own number to a group with a
// number. mu.
func (m *move) hasMoved(task *Task, num uint64) bool {
	return m != nil && slices.ContainsFunc(m.tasks, func(mv *moved) bool {
		return mv.task == task && mv.inMirror && mv.to.num == num
	})
}
