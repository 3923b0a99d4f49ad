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

	type suspect struct {
		task  *Task
		tid   int32
		start Start
	}
	var gone []suspect
	t.Update(func() {
		// Exit events that were lost are owed no more. Where one comes all
		// the same, its tid is only looked up once more.
		clear(t.owed)
		for tid, task := range t.tasks {
			if _, ok := seen[tid]; !ok { // another of that tid: see adopt
				gone = append(gone, suspect{task, tid, task.start})
			}
		}
	})
	var heirs []*Task
	for _, s := range gone {
		// A listing can miss a thread while others end: ask again.
		if info, err := t.host.Task(s.tid); err == nil && s.start.is(info.Start) {
			continue
		}
		t.mu.Lock()
		if g, p := s.task.group, s.task.proc; g != nil {
			t.goneLocked(s.task)
			if first := t.tasks[p.tgid]; first != nil && first.group != g {
				heirs = append(heirs, first)
			}
		}
		t.mu.Unlock()
	}
	t.placeHeirs(heirs)

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

// placeHeirs asks the mirror for the places of first threads whose processes lost
// a thread in another group: that thread may have executed a program, and then
// has the first one's tid and start time.
func (t *Tree) placeHeirs(tasks []*Task) {
	if t.mirror == nil {
		return
	}
	for _, task := range tasks {
		num, err := t.mirror.Where(task.TID())
		t.Update(func() {
			if g, _ := t.mirroredLocked(num, err); g != nil && !task.proc.moving {
				t.regroupLocked(task, g)
			}
		})
	}
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

// adopt adds a task that the host shows, if the model lacks it. The caller is
// inside a change, or delivers the events.
func (t *Tree) adopt(info TaskInfo) *Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.tasks[info.TID]
	if old != nil {
		if old.start.is(info.Start) {
			old.start = old.start.refined(info.Start)
			t.parentLocked(old.proc, info.PPID)
			return old
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
	g := said
	if t.mirror != nil && len(t.groups.byNum) > 1 {
		t.mu.Unlock()
		num, err := t.mirror.Where(info.TID)
		t.mu.Lock()
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		known, stray := t.mirroredLocked(num, err)
		if known != nil {
			g = known
		}
		t.strayed = t.strayed || stray
		if task := t.tasks[info.TID]; task != nil {
			return task // its fork event came meanwhile
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
	if t.mirror != nil {
		t.moving.joined(child, parent, nil, said)
	}
	t.tellForkLocked(forker, child)
	return child
}

// Audit compares the model with the mirror, which wins: a task that somebody
// else moved is taken where it is, and one in a directory that is nobody's goes
// back to the root. It returns how many tasks it put right. Without a mirror
// there is nothing to compare.
func (t *Tree) Audit() int {
	if t.mirror == nil {
		return 0
	}
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	t.host.Drain()
	var suspects []int32
	for _, g := range t.mirrored() {
		suspects = append(suspects, t.differing(g)...)
	}
	if tids, err := t.mirror.Members(ForeignGroup); err == nil {
		suspects = append(suspects, tids...)
	}
	t.Update(func() { t.strayed = false })
	if len(suspects) == 0 {
		return 0
	}
	t.host.Drain()
	mended := 0
	for _, tid := range suspects {
		if t.mend(tid) {
			mended++
		}
	}
	return mended
}

// Strayed reports whether a task was seen in a directory of the mirror that is
// nobody's since the last Audit.
func (t *Tree) Strayed() (strayed bool) {
	t.View(func() { strayed = t.strayed })
	return strayed
}

// mirrored are the groups that have a directory, the root group aside.
func (t *Tree) mirrored() (gs []*Group) {
	t.View(func() {
		for _, g := range t.groups.byNum {
			if g.inMirror && g != t.groups.root {
				gs = append(gs, g)
			}
		}
	})
	return gs
}

// differing are the tids in which the directory of a group and its list differ.
func (t *Tree) differing(g *Group) (tids []int32) {
	members, err := t.mirror.Members(g.num)
	if err != nil {
		t.log.Warn("the members of a css group cannot be read from the mirror", "group", g.num, "err", err)
		return nil
	}
	in := make(map[int32]bool, len(members))
	for _, tid := range members {
		in[tid] = true
	}
	t.View(func() {
		for task := g.tasks; task != nil; task = task.next {
			if !in[task.TID()] {
				tids = append(tids, task.TID())
			}
		}
		for tid := range in {
			if task := t.tasks[tid]; task == nil || task.group != g {
				tids = append(tids, tid)
			}
		}
	})
	return tids
}

// mend puts the place of one task right.
func (t *Tree) mend(tid int32) bool {
	info, err := t.host.Task(tid)
	if err != nil {
		return false // gone, or on its way out
	}
	t.adopt(info)
	num, err := t.mirror.Where(tid)
	var task *Task
	var from, to *Group
	var stray bool
	t.View(func() {
		to, stray = t.mirroredLocked(num, err)
		if task = t.tasks[tid]; task != nil {
			from = task.group
		}
		if stray {
			to = t.groups.root
		}
	})
	if stray {
		if err := t.mirror.Move(0, tid, false); err != nil {
			if !errors.Is(err, syscall.ESRCH) {
				t.log.Error("a task cannot be taken out of a directory of the mirror that is nobody's", "tid", tid, "err", err)
			}
			return false
		}
	}
	if task == nil || to == nil || from == to {
		return stray
	}
	t.log.Warn("somebody else moved a task in the mirror", "tid", tid, "from", from.num, "to", to.num)
	t.Update(func() {
		task.proc.mix()
		if parent := t.procs[info.PPID]; parent != nil {
			parent.mixed = true
		}
		t.regroupLocked(task, to)
	})
	for _, h := range t.hierarchies {
		was, is := from.container(h), to.container(h)
		if was == is {
			continue
		}
		for _, b := range h.bound {
			if b.attach == nil {
				continue
			}
			if _, err := b.attach.Attach(task, was, is); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.log.Warn("a task that somebody else moved lacks an effect", "tid", tid, "subsystem", b.Name(), "err", err)
			}
		}
	}
	return true
}
