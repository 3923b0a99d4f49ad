package tree

import "time"

// entry is a task under the number that it had: an exec can have given it another since.
type entry struct {
	task  *Task
	tid   int32
	start Start
}

// entry is that of a task now. With mu.
func (t *Task) entry() entry { return entry{t, t.TID(), t.start} }

// isListed reports whether the host has a thread that has not begun to exit.
func (t *Tree) isListed(e entry) (listed bool) {
	info, err := t.host.Task(e.tid)
	if err != nil || !e.start.is(info.Start) {
		return false
	}
	err = t.host.Tasks(info.TGID, func(i TaskInfo) bool {
		listed = i.TID == e.tid && e.start.is(i.Start)
		return !listed
	})
	return listed || err != nil
}

// ExitDue is how long after its end a task's exit can be told: it tells of that itself, when
// nothing shows it any more, and can be kept from the processor before.
const ExitDue = time.Second / 2

// removeGone removes a task that the host does not show any more before its exit is told,
// unless the model knows better by now. A thread that executes a program has its process's
// number before that is told, which is then the one that is shown. The caller is inside a
// change, or delivers the events.
func (t *Tree) removeGone(e entry) (removed bool) {
	var tgid int32
	t.View(func() {
		if e.isKnown() {
			tgid = e.task.TGID()
		}
	})
	shown := false
	if tgid != e.tid && tgid != 0 {
		_, err := t.host.Task(tgid)
		shown = err == nil
	}
	var heir *Task
	t.Update(func() {
		if !e.isKnown() {
			return
		}
		removed = true
		p, g := e.task.proc, e.task.group
		first := t.tasks[p.tgid]
		if shown && first == nil {
			t.takeOverLocked(p)
			return
		}
		t.goneLocked(e.task)
		if shown {
			// It may be e's task that is shown. The first one's exit is yet to come then.
			first.owed = true
			if first.group != g {
				heir = first
			}
		}
	})
	if heir != nil {
		t.placeHeir(heir)
	}
	return removed
}

// isKnown reports whether the model has the task under that number. With mu.
func (e *entry) isKnown() bool { return e.task.group != nil && e.task.TID() == e.tid }

// placeHeir asks the mirror for the place of a first thread whose process lost a thread in
// another group: that thread may have executed a program, and then has the first one's tid
// and start time.
func (t *Tree) placeHeir(task *Task) {
	if t.mirror == nil {
		return
	}
	num, err := t.mirror.Where(task.TID())
	t.Update(func() {
		if g, _ := t.mirroredLocked(num, err); g != nil && task.group != nil && !task.proc.moving {
			t.regroupLocked(task, g)
		}
	})
}
