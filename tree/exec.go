package tree

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
	if p == nil { // its last thread was taken for one that has ended, for another had its number
		t.mu.Unlock()
		if info, err := t.host.Task(tgid); err == nil {
			t.adopt(info)
		}
		t.mu.Lock()
		if p = t.procs[tgid]; p == nil {
			return
		}
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
	if t.mirror != nil {
		t.moving.mistakeHeirs(p)
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
		for k := p.threads; k != nil && err == nil && !t.isAt(heir, num); k = k.pnext {
			if t.isAt(k, num) {
				heir = k
			}
		}
		// Its own fork may have been read when it had this tid already.
		if g, _ := t.mirroredLocked(num, err); g != nil && !t.moving.has(heir) && !t.moving.misled(heir, g) {
			t.foundLocked(heir, g)
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

// isAt reports whether the mirror can have a task in the group with a number: where the model has
// it, or where it is moved to.
func (t *Tree) isAt(task *Task, num uint64) bool {
	return task.group.num == num || t.moving.hasMoved(task, num)
}
