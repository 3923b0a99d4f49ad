package tree

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"
)

// An Auditor compares the model with the mirror a css group at a time, so that neither
// the host nor who wants to move a task has to wait for a look at all tasks at once.
// It is for one goroutine.
type Auditor struct {
	t    *Tree
	last uint64        // the group compared last in this round; 0 for a new one, which begins with what is nobody's
	owed time.Duration // that the last calls took beyond what was allowed

	gone map[Entry]time.Time // that the host did not show, since when
}

// Auditor makes an Auditor.
func (t *Tree) Auditor() *Auditor { return &Auditor{t: t, gone: make(map[Entry]time.Time)} }

// Audit compares for about as long as is allowed, from where it stopped the last time to
// the end of the round at most. A group is compared as a whole: what that takes beyond the
// allowance is taken off that of later calls, so that calls at intervals take no larger
// part of the time. If a task was seen in a directory that is nobody's, these directories
// are compared first.
//
// It puts right what Tree.Audit does. Besides, a task that the host has not shown at two
// looks, ExitDue apart, or that was on its way out at both, is removed, unless it is in the
// root group, which is not compared.
func (a *Auditor) Audit(allowed time.Duration) (mended int) {
	a.owed -= allowed
	if a.owed >= 0 && !a.t.Strayed() {
		return 0
	}
	mended = a.audit(func(took time.Duration) bool {
		a.owed += took
		return a.owed >= 0
	})
	a.owed = max(a.owed, 0)
	return mended
}

// audit goes on until enough says so, or the round ends, but not without one group.
func (a *Auditor) audit(enough func(took time.Duration) bool) (mended int) {
	t := a.t
	if t.mirror == nil {
		return 0
	}
	if a.last == 0 || t.Strayed() {
		n, took := a.compare(t.foreign)
		mended += n
		enough(took)
	}
	began := time.Now()
	groups := t.mirrored(a.last)
	enough(time.Since(began))
	for _, g := range groups {
		n, took := a.compare(func() []int32 { return t.differing(g) })
		mended += n
		a.last = g.num
		if enough(took) {
			return mended
		}
	}
	a.last = 0
	t.View(func() {
		maps.DeleteFunc(a.gone, func(e Entry, _ time.Time) bool { return !e.Live() })
	})
	return mended
}

// foreign are the tids in directories that are nobody's.
func (t *Tree) foreign() []int32 {
	t.Update(func() { t.strayed = false }) // what is seen from now on may not be listed
	tids, err := t.mirror.Members(ForeignGroup)
	if err != nil {
		t.Update(func() { t.strayed = true })
	}
	return tids
}

// Audit compares the model with the mirror, which wins: a task that somebody
// else moved is taken where it is, and one in a directory that is nobody's goes
// back to the root. It returns how many tasks it put right. Without a mirror
// there is nothing to compare.
func (t *Tree) Audit() int {
	return t.Auditor().audit(func(time.Duration) bool { return false })
}

// compare puts right what a look finds, and says how long that took. A look at many tasks
// takes long, so changes go on meanwhile, and what they move can seem to differ: each is
// looked at again where no change is under way.
func (a *Auditor) compare(look func() []int32) (mended int, took time.Duration) {
	began := time.Now()
	a.t.host.Drain()
	for suspects := range slices.Chunk(look(), maxMended) {
		mended += a.mendAll(suspects)
	}
	return mended, time.Since(began)
}

// maxMended bounds how long changes wait for those that are put right.
const maxMended = 64

// mendAll puts right those that differ. It returns how many did.
func (a *Auditor) mendAll(tids []int32) (mended int) {
	a.t.changeMu.Lock()
	defer a.t.changeMu.Unlock()
	a.t.host.Drain()
	for _, tid := range tids {
		if a.mend(tid) {
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

// mirrored are the groups above a number that have a directory, the root group aside,
// in order.
func (t *Tree) mirrored(above uint64) (gs []*Group) {
	t.View(func() {
		for _, g := range t.groups.byNum {
			if g.inMirror && g != t.groups.root && g.num > above {
				gs = append(gs, g)
			}
		}
	})
	slices.SortFunc(gs, func(a, b *Group) int { return cmp.Compare(a.num, b.num) })
	return gs
}

// differing are the tids in which the directory of a group and its list differ.
func (t *Tree) differing(g *Group) (tids []int32) {
	members, err := t.mirror.Members(g.num)
	if err != nil {
		t.log.Warn("the members of a css group cannot be read from the mirror", "group", g.num, "err", err)
		return nil
	}
	t.View(func() {
		here := 0
		for _, tid := range members {
			if task := t.tasks[tid]; task != nil && task.group == g {
				here++
			} else {
				tids = append(tids, tid)
			}
		}
		if here == g.ntasks {
			return
		}
		in := make(map[int32]bool, len(members))
		for _, tid := range members {
			in[tid] = true
		}
		for task := g.tasks; task != nil; task = task.next {
			if !in[task.TID()] {
				tids = append(tids, task.TID())
			}
		}
	})
	return tids
}

// mend puts the place of one task right.
func (a *Auditor) mend(tid int32) bool {
	t := a.t
	was := Entry{TID: tid}
	t.View(func() { was.Task = t.tasks[tid] })
	info, err := t.host.Task(tid)
	if err != nil {
		return was.Task != nil && errors.Is(err, syscall.ESRCH) && a.isOverdue(was) && t.RemoveGone(was) > 0
	}
	t.adoptInChange(info)
	num, err := t.mirror.Where(tid)
	if was.Task != nil && errors.Is(err, syscall.ESRCH) { // what the host shows is its end
		return a.isOverdue(was) && t.RemoveGone(was) > 0
	}
	delete(a.gone, was)
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
	t.Update(func() { t.foundLocked(task, to) })
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

// isOverdue reports whether the exit of a task that the host does not show any more should
// have been told by now.
func (a *Auditor) isOverdue(e Entry) bool {
	since, seen := a.gone[e]
	if !seen {
		a.gone[e] = time.Now()
		return false
	}
	if time.Since(since) < ExitDue {
		return false
	}
	a.t.log.Warn("a task has ended, and its exit was not told", "tid", e.TID)
	return true
}
