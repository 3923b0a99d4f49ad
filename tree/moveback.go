package tree

import (
	"errors"
	"slices"
	"syscall"
)

// How a move that failed is taken back, and tasks that it has moved by mistake.

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
		if live && t.putBack(mv.from, mv.task.TID()) == syscall.ESRCH {
			t.putHeirBack(mv)
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

// putBack moves a task back in the mirror. Its error is ESRCH, or nil.
func (t *Tree) putBack(g *Group, tid int32) error {
	err := t.mirror.Move(g.num, tid, false)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return syscall.ESRCH
	case err != nil:
		t.log.Error("a task could not be put back after a failed attach", "tid", tid, "group", g.num, "err", err)
		t.Update(func() { t.strayed = true })
	}
	return nil
}

// putHeirBack puts a task back that its number does not show any more, if it executes a program
// and has the number of its process: that is where the move has led, and the model has nobody
// with that number there.
func (t *Tree) putHeirBack(mv *moved) {
	p := mv.task.proc
	num, err := t.mirror.Where(p.tgid)
	is := false
	t.Update(func() {
		first := t.tasks[p.tgid]
		is = err == nil && num == mv.to.num && t.procs[p.tgid] == p && (first == nil || first.group != mv.to)
		p.guessed = p.guessed || is // its exec is still to be told
	})
	if is {
		t.putBack(mv.from, p.tgid)
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
