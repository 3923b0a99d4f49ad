package tree

import (
	"errors"
	"syscall"
)

// Resync compares the tasks of the model with those of the host: at start, after
// lost events, and at each poll where there are no events. Tasks that are gone
// leave; new ones are placed by the mirror, or where their parents are. It must
// be called in the order of the events, by who delivers them.
func (t *Tree) Resync() error {
	var infos []TaskInfo
	seen := make(map[int32]struct{})
	err := t.host.Tasks(0, func(i TaskInfo) bool {
		infos = append(infos, i)
		seen[i.TID] = struct{}{}
		return true
	})
	if err != nil {
		return opError("resync", "tasks", errnoOf(err))
	}

	var gone []Entry
	t.Update(func() {
		// Exit events that were lost are owed no more. Of a tid that is in
		// use again one may still come; if none does, it is only looked up
		// once more.
		for tid := range t.owed {
			if t.tasks[tid] == nil {
				delete(t.owed, tid)
			}
		}
		for tid, task := range t.tasks {
			task.proc.scanned = true
			if _, ok := seen[tid]; !ok { // another of that tid: see adopt
				gone = append(gone, task.Entry())
			}
		}
	})
	// A listing can miss a thread while others end: ask again.
	t.RemoveGone(t.notShown(gone)...)

	byTID := make(map[int32]*TaskInfo, len(infos))
	for i := range infos {
		byTID[infos[i].TID] = &infos[i]
	}
	for i := range infos {
		t.adoptAfterParent(&infos[i], byTID, 0)
	}
	parents := t.parents(infos)
	t.Update(func() {
		t.renewFamiliesLocked(parents)
		t.settleLocked()
	})
	return nil
}

// parents are the parents of the processes in a scan. A parent that has ended
// since is asked for again: the kernel has given its children to another.
func (t *Tree) parents(infos []TaskInfo) map[int32]int32 {
	parents := make(map[int32]int32, len(infos))
	for _, i := range infos {
		parents[i.TGID] = i.PPID
	}
	var orphans []int32
	t.View(func() {
		for tgid, ppid := range parents {
			if ppid != 0 && t.procs[ppid] == nil {
				orphans = append(orphans, tgid)
			}
		}
	})
	for _, tgid := range orphans {
		if info, err := t.host.Task(tgid); err == nil {
			parents[tgid] = info.PPID
		}
	}
	return parents
}

// adoptAfterParent adopts a task, its process's first thread and its ancestors
// before it.
func (t *Tree) adoptAfterParent(info *TaskInfo, byTID map[int32]*TaskInfo, depth int) {
	if info == nil || depth > len(byTID) {
		return
	}
	known := false
	t.View(func() {
		task := t.tasks[info.TID]
		known = task != nil && task.start.is(info.Start)
	})
	if known {
		return
	}
	if info.TID != info.TGID {
		t.adoptAfterParent(byTID[info.TGID], byTID, depth+1)
	} else {
		t.adoptAfterParent(byTID[info.PPID], byTID, depth+1)
	}
	t.adopt(*info)
}

// adoptInChange is adopt for who is inside a change and does not deliver the events: the
// exit may have been delivered since the look that info is of. Nil if the task is gone.
func (t *Tree) adoptInChange(info TaskInfo) *Task {
	task, added := t.adopt(info)
	if !added {
		return task
	}
	now, err := t.host.Task(info.TID)
	if errors.Is(err, syscall.ESRCH) || err == nil && now.Start != info.Start {
		t.RemoveGone(Entry{task, info.TID})
		return nil
	}
	return task
}

// adopt adds a task that the host shows, if the model lacks it: nil if it is gone. It is for
// who delivers the events, so that an exit that is on its way comes after it.
func (t *Tree) adopt(info TaskInfo) (task *Task, added bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.tasks[info.TID]
	if old != nil {
		if old.start.is(info.Start) {
			old.start = old.start.refined(info.Start)
			t.parentLocked(old.proc, info.PPID)
			return old, false
		}
		t.goneLocked(old)
	}
	parent := t.procs[info.PPID]
	if info.TID != info.TGID {
		parent = t.procs[info.TGID]
	}
	said := t.groups.root
	if parent != nil {
		said = parent.group()
	}
	if p, ok := t.places[info.TID]; ok && t.mirror == nil && p.Start.is(info.Start) {
		if g := t.groups.byNum[p.Group]; g != nil && !g.stale() {
			said = g
		}
	}
	g, mistaken := said, false
	if t.mirror != nil && len(t.groups.byNum) > 1 {
		t.mu.Unlock()
		num, err := t.mirror.Where(info.TID)
		t.mu.Lock()
		if errors.Is(err, syscall.ESRCH) {
			return nil, false
		}
		known, stray := t.mirroredLocked(num, err)
		if parent != nil {
			mistaken = t.moving.mistook(info.TID, info.TID != info.TGID, parent.threads, parent, known)
		}
		if known != nil && !(mistaken && t.moving.isEnd(known)) {
			g = known
		}
		t.strayed = t.strayed || stray
		if task := t.tasks[info.TID]; task != nil {
			return task, false // its fork event came meanwhile
		}
		if parent != nil && parent.nthreads == 0 {
			parent = nil
		}
		if t.groups.byNum[g.num] != g || g.stale() {
			g = t.groups.root // its parent's end was found out meanwhile
		}
	}
	var forker *Task
	if parent != nil {
		forker = parent.threads
	}
	child := t.addLocked(info.TID, info.TGID, startAt(info.Start), t.procs[info.PPID], g)
	child.proc.scanned = true
	if mistaken {
		t.moving.noteMistaken(child)
	}
	if t.mirror != nil {
		t.moving.joined(child, parent, nil, said)
	}
	t.tellForkLocked(forker, child)
	return child, true
}
