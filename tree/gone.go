package tree

import (
	"errors"
	"slices"
	"syscall"
	"time"
)

// An Entry is a task under a number: an exec can give it another.
type Entry struct {
	Task *Task
	TID  int32
}

// Entry is the task with the number that it has now. With one of the locks.
func (t *Task) Entry() Entry { return Entry{t, t.TID()} }

// Live reports whether the model has the task under that number. With one of the locks.
func (e Entry) Live() bool { return e.Task.Live() && e.Task.TID() == e.TID }

// Is reports whether what the host shows is the task, and not another with its number.
func (t *Tree) Is(e Entry, info TaskInfo) (same bool) {
	t.View(func() { same = e.Task.Is(info) })
	return same
}

// HasEnded reports whether the Tree has been told of a task's end. It must not be called
// inside View or Update.
func (t *Tree) HasEnded(task *Task) (ended bool) {
	t.View(func() { ended = !task.Live() })
	return ended
}

// Heir is what has the number of a task that has ended, if something has: what is done to a
// number alone can have been done to that. ended reports whether the task has. Under changeMu.
func (t *Tree) Heir(task *Task) (heir TaskInfo, ended bool) {
	told := t.prompt != nil && t.prompt()
	if told { // it costs less than a look
		t.host.Drain()
		if !t.HasEnded(task) {
			return TaskInfo{}, false
		}
	}
	info, err := t.host.Task(task.TID())
	switch {
	case err != nil:
		return TaskInfo{}, told || errors.Is(err, syscall.ESRCH)
	case t.Is(Entry{Task: task}, info):
		return TaskInfo{}, false
	}
	return info, true
}

// anyListed reports whether the host has one of some threads that has not begun to exit, or
// may have, since it cannot be looked at.
func (t *Tree) anyListed(entries []Entry) bool { return slices.ContainsFunc(entries, t.lister()) }

// Exiting are those that the host may show, and which have begun to exit: they do nothing more,
// and their end can be told as late as their user likes, who keeps a child of a pid namespace's
// first process from being waited for.
func (t *Tree) Exiting(entries []Entry) []Entry {
	return slices.DeleteFunc(slices.Clone(entries), t.lister())
}

// lister reports whether the host has a thread that has not begun to exit. It lists each process
// once.
func (t *Tree) lister() func(Entry) bool {
	type thread struct {
		tid   int32
		start uint64
	}
	lists := make(map[int32]map[thread]bool) // of processes
	return func(e Entry) bool {
		info, err := t.host.Task(e.TID)
		if err != nil {
			return !errors.Is(err, syscall.ESRCH)
		}
		if !t.Is(e, info) {
			return false
		}
		list := lists[info.TGID]
		if list == nil {
			list = make(map[thread]bool)
			lists[info.TGID] = list
			err = t.host.Tasks(info.TGID, func(i TaskInfo) bool {
				list[thread{i.TID, i.Start}] = true
				return true
			})
		}
		return err != nil || list[thread{e.TID, info.Start}]
	}
}

// ExitDue is how long after its end a task's exit can be told: it tells of that itself, when
// nothing shows it any more, and can be kept from the processor before.
const ExitDue = time.Second / 2

// RemoveGone takes tasks away that the host does not show under their numbers any more, and
// whose exits are not told, unless the model knows better by now. One that executes a
// program, which is not told either, has its process's number meanwhile, and gets it here. It
// returns how many entries are no more. The caller is inside a change, or delivers the events.
func (t *Tree) RemoveGone(entries ...Entry) (removed int) {
	return t.removeAll(entries, make(map[*Process]bool))
}

// removeAll is RemoveGone where it is known of some processes whether they seem to have
// executed a program.
func (t *Tree) removeAll(entries []Entry, executed map[*Process]bool) (removed int) {
	for _, e := range entries {
		for t.removeGone(e, executed) {
		}
		t.View(func() {
			if !e.Live() {
				removed++
			}
		})
	}
	return removed
}

// removeGone does so for one entry. executed has, by process, whether it seems to have
// executed a program; what is missing there is found out. If that has turned out not to be
// true any more, nothing was done, and it is to be called again.
func (t *Tree) removeGone(e Entry, executed map[*Process]bool) (again bool) {
	var p *Process
	var first *Task
	isFirst := func(TaskInfo) bool { return true }
	t.View(func() {
		if !e.Live() {
			return
		}
		p = e.Task.proc
		if first = t.tasks[p.tgid]; first != nil {
			start := first.start
			isFirst = func(i TaskInfo) bool { return start.is(i.Start) }
		}
	})
	if p == nil {
		return false
	}
	if _, known := executed[p]; !known {
		executed[p] = t.seemsExecuted(p.tgid, isFirst)
	}
	var heir *Task
	t.Update(func() {
		if !e.Live() {
			return
		}
		either := e.TID // its exit is owed now, or else e's
		now := t.tasks[p.tgid]
		if executed[p] {
			switch {
			case now != first: // which may have been all that was shown
				delete(executed, p)
				again = true
				return
			case first == e.Task: // whose number is shown, since the one that executed has it
				return
			case first == nil:
				t.takeOverLocked(p)
				heir = t.tasks[p.tgid]
				return
			}
			either = p.tgid // it may be e's task that is shown
		}
		if now != nil && now.group != e.Task.group {
			heir = now
		}
		t.oweLocked(t.debtLocked(either), 1, either, e.TID)
		t.exitLocked(e.Task)
	})
	if heir != nil {
		t.placeHeir(heir)
	}
	return again
}

// seemsExecuted reports whether the host shows the first thread of a process and no other,
// as after an exec, which leaves it the number and the start time of the one that was
// first before.
func (t *Tree) seemsExecuted(tgid int32, isFirst func(TaskInfo) bool) bool {
	n, first := 0, false
	err := t.host.Tasks(tgid, func(i TaskInfo) bool {
		n++
		first = first || i.TID == tgid && isFirst(i)
		return n < 2
	})
	return err == nil && n == 1 && first
}

// placeHeir asks the mirror for the place of a first thread whose process lost a thread in
// another group: that thread may have executed a program, and then has the first one's tid
// and start time.
func (t *Tree) placeHeir(task *Task) {
	if t.mirror == nil {
		return
	}
	num, err := t.mirror.Where(task.TID())
	t.Update(func() {
		if g, _ := t.mirroredLocked(num, err); g != nil && task.group != nil && !task.proc.moving && !t.moving.misled(task, g) {
			t.foundLocked(task, g)
		}
	})
}

// guessedLocked is the first thread of the process that was moved, if that can be another than
// the model has had it for: while it moved it was placed by that. Else it is nil.
func (t *Tree) guessedLocked(m *move) *Task {
	if len(m.tasks) == 0 {
		return nil
	}
	p := m.tasks[0].task.proc
	if !p.guessed || t.procs[p.tgid] != p {
		return nil
	}
	return t.tasks[p.tgid]
}

// lookAtThreadsLocked removes who is gone of a process of which the first thread's exit is told
// and the model has no first thread. It may have been told before: then another thread had
// that number, by an exec that failed after that, of which nothing else is told. It lets go of
// mu meanwhile.
func (t *Tree) lookAtThreadsLocked(p *Process) {
	var threads []Entry
	for k := p.threads; k != nil; k = k.pnext {
		threads = append(threads, k.Entry())
	}
	t.mu.Unlock()
	defer t.mu.Lock()
	t.RemoveGone(t.notShown(threads)...)
}

// notShown are those that the host does not show. Who cannot be looked at, for want of
// descriptors, is not among them.
func (t *Tree) notShown(entries []Entry) []Entry {
	return slices.DeleteFunc(entries, func(e Entry) bool {
		info, err := t.host.Task(e.TID)
		if err != nil {
			return !errors.Is(err, syscall.ESRCH)
		}
		return t.Is(e, info)
	})
}

// A debt is of exit events that are on their way: so many, each of another of the tids. There is
// a tid more than events after an exec: a thread has given its own up without an exit, and who
// that was is not known. When as many events have come, the tid that is left is owed none.
type debt struct {
	events int
	tids   []int32
}

// debtLocked is the debt that a tid is in, a new one if it is in none.
func (t *Tree) debtLocked(tid int32) *debt {
	if d := t.owed[tid]; d != nil {
		return d
	}
	return &debt{}
}

// oweLocked adds events to a debt, and tids that they can be of.
func (t *Tree) oweLocked(d *debt, events int, tids ...int32) {
	if d.events += events; d.events == 0 {
		return
	}
	for _, tid := range tids {
		if t.owed[tid] != d {
			t.owed[tid] = d
			d.tids = append(d.tids, tid)
		}
	}
}

// paidLocked notes that an event of a debt has come, if that is one.
func (t *Tree) paidLocked(d *debt) {
	if d == nil {
		return
	}
	if d.events--; d.events > 0 {
		return
	}
	for _, tid := range d.tids {
		if t.owed[tid] == d {
			delete(t.owed, tid)
		}
	}
}
