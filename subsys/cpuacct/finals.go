package cpuacct

import "time"

// Final is what the host says of a task that has ended.
type Final struct {
	TID   int32
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
	if f, ok := s.unclaimed[tid]; ok && f.isOf(start) {
		delete(s.unclaimed, tid)
		s.settleLocked(t, f.Times)
		return
	}
	if !s.watching {
		s.lost.finals++
		return
	}
	if _, ok := s.dying[tid]; ok {
		s.lost.finals++ // two with that tid: the first one's never came
	}
	s.dying[tid] = dying{track: t, start: start, left: s.host.Now()}
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
		if d, ok := s.dying[f.TID]; ok && f.isOf(d.start) {
			delete(s.dying, f.TID)
			s.settleLocked(d.track, f.Times)
			shorter = true
			continue
		}
		if old, ok := s.unclaimed[f.TID]; ok {
			s.disownLocked(old)
		} else if len(s.unclaimed) >= maxUnclaimed {
			s.disownLocked(final{Final: *f})
			continue
		}
		s.unclaimed[f.TID] = final{*f, now}
	}
	if shorter {
		close(s.settled)
		s.settled = make(chan struct{})
	}
}

// disownLocked drops a final that is nobody's. Right after the beginning it can
// be of a task that the model lost just before.
func (s *Subsystem) disownLocked(f final) {
	if f.came-s.bound < grace {
		return
	}
	s.lost.unclaimed++
	s.lost.run += f.Run
}

// awaitFinals returns when the finals of all tasks that the model lost until now
// have come, or should have.
func (s *Subsystem) awaitFinals() {
	called := s.host.Now()
	timeout := time.After(grace)
	for {
		s.mu.Lock()
		waits := false
		for _, d := range s.dying {
			if d.left <= called && called-d.left < grace {
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
	for tid, d := range s.dying {
		if now-d.left >= keepDying {
			delete(s.dying, tid)
			s.lost.finals++
		}
	}
	for tid, f := range s.unclaimed {
		if now-f.came >= keepUnclaimed {
			delete(s.unclaimed, tid)
			s.disownLocked(f)
		}
	}
}
