package cpuacct

import (
	"slices"
	"time"
)

// Final is what the host says of a task that has ended.
type Final struct {
	TID   int32
	TGID  int32  // 0 when it is not known
	Start uint64 // clock tick after boot, 0 when it is not known
	Times
}

// isOf reports whether the final can be that of a task which started then, or
// earlier: bounds are all that is known of some. A tid is used again only after
// all others, so a tick, by which clocks can differ, makes no difference.
func (f *Final) isOf(start uint64) bool { return f.Start <= start+1 }

// final is one that no task has claimed yet.
type final struct {
	Final
	came time.Duration
}

// dying is a task that the model has no more, until its final comes.
type dying struct {
	track
	start uint64
	left  time.Duration
}

// A tid ends more than once where a thread has executed a program: the first thread of its process
// ends, and the one that executes has that one's tid and start from then on. Both its finals and its
// exits come in the order of these ends. So what the tables have of a tid is a list, the earliest
// first.

// putList has a table say of a tid what is left.
func putList[T any](table map[int32][]T, tid int32, left []T) {
	if len(left) == 0 {
		delete(table, tid)
	} else {
		table[tid] = left
	}
}

// losses counts what could not be told, since it was last logged.
type losses struct {
	finals    uint64 // tasks that ended without a final
	unclaimed uint64 // finals of tasks that the model never had
	run       uint64 // their run time
}

// Bounds of what is kept of tasks that have ended.
const (
	keepDying     = time.Second
	keepUnclaimed = 5 * time.Second
	maxUnclaimed  = 1 << 17
)

// endedLocked is told of a task that the model has no more.
func (s *Subsystem) endedLocked(tid int32, start uint64, t track) {
	if fs := s.unclaimed[tid]; len(fs) > 0 && fs[0].isOf(start) { // all have one start
		putList(s.unclaimed, tid, fs[1:])
		s.settleLocked(t, fs[0].Times)
		return
	}
	if !s.watching {
		s.lost.finals++
		return
	}
	s.dying[tid] = append(s.dying[tid], dying{track: t, start: start, left: s.host.Now()})
}

// settleLocked credits the rest of a task that has ended.
func (s *Subsystem) settleLocked(t track, end Times) {
	if !t.unread {
		s.creditTrackLocked(t, end)
	}
}

// finals is told of tasks that have ended, by the one goroutine of Host.Watch.
func (s *Subsystem) finals(fs []Final) {
	now := s.host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	shorter := false
	for i := range fs {
		f := &fs[i]
		ds := s.dying[f.TID]
		if i := slices.IndexFunc(ds, func(d dying) bool { return f.isOf(d.start) }); i >= 0 {
			s.settleLocked(ds[i].track, f.Times)
			putList(s.dying, f.TID, slices.Delete(ds, i, i+1))
			shorter = true
			continue
		}
		before := s.unclaimed[f.TID]
		if len(before) > 0 && before[0].Start != f.Start { // another task's, which was never known
			s.disownLocked(before...)
			before = nil
		} else if len(before) == 0 && len(s.unclaimed) >= maxUnclaimed {
			s.disownLocked(final{Final: *f})
			continue
		}
		s.unclaimed[f.TID] = append(before, final{*f, now})
	}
	if shorter {
		close(s.settled)
		s.settled = make(chan struct{})
	}
}

// A first thread can end after another has executed a program: then it has the tid that this one
// had before.

// swappedLocked are the tids of finals that can be of a first thread, by its own.
func (s *Subsystem) swappedLocked() map[int32]int32 {
	swapped := make(map[int32]int32)
	for tid, fs := range s.unclaimed {
		if tgid := fs[0].TGID; tgid != 0 && tgid != tid {
			swapped[tgid] = tid
		}
	}
	return swapped
}

// settleSwappedLocked credits the rest of a first thread, and reports whether that has the final
// that is there of a tid.
func (s *Subsystem) settleSwappedLocked(tid int32, d dying) bool {
	fs := s.unclaimed[tid]
	if len(fs) == 0 || !fs[0].isOf(d.start) {
		return false
	}
	putList(s.unclaimed, tid, fs[1:])
	s.settleLocked(d.track, fs[0].Times)
	return true
}

// settleSwapped credits the rest of first threads of which there is a final with another's tid that
// came until then, when the model has been told of all that had happened by then: who else has
// ended has had his own.
func (s *Subsystem) settleSwapped(until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dying) == 0 {
		return
	}
	swapped := s.swappedLocked()
	for tid, ds := range s.dying {
		if fs := s.unclaimed[swapped[tid]]; len(fs) > 0 && fs[0].came <= until && s.settleSwappedLocked(swapped[tid], ds[0]) {
			putList(s.dying, tid, ds[1:])
		}
	}
}

// disownLocked drops finals that are nobody's. Right after the beginning one can
// be of a task that the model lost just before.
func (s *Subsystem) disownLocked(fs ...final) {
	for _, f := range fs {
		if f.came-s.bound >= grace {
			s.lost.unclaimed++
			s.lost.run += f.Run
		}
	}
}

// awaitFinals returns when the finals of all tasks that the model lost until now
// have come, or should have.
func (s *Subsystem) awaitFinals() {
	called := s.host.Now()
	timeout := time.After(grace)
	for {
		s.mu.Lock()
		waits := false
		for _, ds := range s.dying {
			if slices.ContainsFunc(ds, func(d dying) bool { return d.left <= called && called-d.left < grace }) {
				waits = true
				break
			}
		}
		settled := s.settled
		s.mu.Unlock()
		if !waits {
			return
		}
		select {
		case <-settled:
		case <-timeout:
			return
		}
	}
}

// expireLocked gives up what was not matched in time.
func (s *Subsystem) expireLocked(now time.Duration) {
	var swapped map[int32]int32
	for tid, ds := range s.dying {
		putList(s.dying, tid, slices.DeleteFunc(ds, func(d dying) bool {
			late := now-d.left >= keepDying
			if late && swapped == nil {
				swapped = s.swappedLocked()
			}
			if late && !s.settleSwappedLocked(swapped[tid], d) {
				s.lost.finals++
			}
			return late
		}))
	}
	for tid, fs := range s.unclaimed {
		if now-fs[len(fs)-1].came >= keepUnclaimed {
			delete(s.unclaimed, tid)
			s.disownLocked(fs...)
		}
	}
}
