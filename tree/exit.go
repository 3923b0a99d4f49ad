package tree

import (
	"errors"
	"syscall"
)

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
	// Whom a scan has shown as the first can have executed a program before that, as another.
	if d != nil || task.proc.scanned && tid == task.proc.tgid {
		t.mu.Unlock()
		info, err := t.host.Task(tid)
		t.mu.Lock()
		if task.group == nil {
			return
		}
		// Where the host cannot be looked at it is the one that is owed, if one is.
		if err == nil && task.start.is(info.Start) || d != nil && err != nil && !errors.Is(err, syscall.ESRCH) {
			t.paidLocked(d)
			return
		}
	}
	t.exitLocked(task)
	// It can be the first one's, told with the number of a thread that executes a program.
	if p := task.proc; p.guessed && p.nthreads == 1 && t.tasks[p.tgid] != nil {
		first := t.tasks[p.tgid]
		t.mu.Unlock()
		t.placeHeir(first)
		t.mu.Lock()
	}
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
		t.endLocked(p)
	} else {
		// The end of another can have been told in between, so mixed counts as well.
		p.guessed = p.guessed || p.nthreads == 1 && (p.mixed || p.group() != g)
		p.unmix()
		if task.TID() == p.tgid {
			p.first = task.start
		}
	}
}

// endLocked ends a process whose last thread has exited. The kernel gives its
// children to one of its ancestors, and does not say to which.
func (t *Tree) endLocked(p *Process) {
	delete(t.procs, p.tgid)
	if parent := p.ancestor(); parent != nil {
		parent.kids += p.kids - 1
		parent.adopted = parent.adopted || p.adopted
		parent.unmix()
	}
}
