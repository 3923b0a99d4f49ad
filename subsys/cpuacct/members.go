package cpuacct

import (
	"errors"
	"syscall"
	"time"

	"containerfs/tree"
)

// track is how far a task is credited. A task without one has run since 0, in
// the container that it is in.
type track struct {
	at     *state // who is credited next
	last   Times
	unread bool // last is not known: the next reading credits nothing

	// recalled: last is from before the server was started, so that what was run since is
	// not this interval's.
	recalled bool
}

// Fork is tree.Forker's. A task that was there before the subsystem was bound,
// and that the model finds only now, has a past that nobody knows.
func (s *Subsystem) Fork(_, child *tree.Task, c *tree.Container) {
	since := s.since.Load()
	if since == 0 || child.Start() >= since {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.Load() == 0 {
		return
	}
	if t, ok := s.recall(child, s.state(c)); ok {
		s.tracks[child] = t
		s.unread = append(s.unread, child)
	} else {
		s.trackUnreadLocked(child, s.state(c))
	}
}

func (s *Subsystem) trackUnreadLocked(task *tree.Task, at *state) {
	s.tracks[task] = track{at: at, unread: true}
	s.unread = append(s.unread, task)
}

// Exit is tree.Exiter's.
func (s *Subsystem) Exit(task *tree.Task, c *tree.Container) {
	if s.since.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.Load() == 0 {
		return
	}
	t, tracked := s.tracks[task]
	if !tracked {
		t.at = s.state(c)
	}
	delete(s.tracks, task)
	s.endedLocked(task.TID(), task.Start(), t)
}

// Attach is tree.Attacher's: what the task ran until now stays with from.
func (s *Subsystem) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	s.forget()
	now, err := s.host.Read(task.TGID(), task.TID(), true)
	if err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
		s.log.Warn("the CPU time of a task that moves cannot be read", "tid", task.TID(), "err", err)
	}
	source, dest := s.state(from), s.state(to)
	live := false
	s.tree.View(func() {
		if live = task.Live(); !live {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		at := source
		if task.Moving() && task.Container(to.Hierarchy()) == to {
			at = dest // forked while its forker was moved: it was never in from
		}
		if t, ok := s.tracks[task]; ok {
			t.at = at // a Move can have come before
			s.tracks[task] = t
		}
		if err == nil {
			s.applyLocked(task, at, now)
		}
		t, tracked := s.tracks[task]
		t.at, t.unread = dest, t.unread || !tracked
		s.tracks[task] = t
	})
	if !live {
		return nil, syscall.ESRCH
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if t, ok := s.tracks[task]; ok {
			t.at = source
			s.tracks[task] = t
		}
	}, nil
}

// Move is tree.Mover's, for the moves that no Attach comes before.
func (s *Subsystem) Move(task *tree.Task, _, to *tree.Container) {
	if s.since.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.tracks[task]; ok {
		t.at = s.state(to)
		s.tracks[task] = t
	}
}

// applyLocked credits what a live task has run by a reading. An untracked one is
// in st.
func (s *Subsystem) applyLocked(task *tree.Task, st *state, now Times) {
	t, tracked := s.tracks[task]
	switch {
	case !tracked:
		t.at = st
		s.creditLocked(st, now)
	case !t.unread:
		s.creditTrackLocked(t, now)
	}
	t.last, t.unread, t.recalled = now.atLeast(t.last), false, false
	s.tracks[task] = t
}

// member is a task to be read.
type member struct {
	task      *tree.Task
	tid, tgid int32
	at        *state // where it is if it is not tracked
	now       Times
	err       error
}

// members lists the tasks in c and below, nil when c is gone. It looks only at
// populated containers and their children.
func (s *Subsystem) members(c *tree.Container) (ms []member) {
	add := func(c *tree.Container) bool {
		if !c.Populated() {
			return false
		}
		at := s.state(c)
		c.EachTask(func(task *tree.Task) {
			ms = append(ms, member{task: task, tid: task.TID(), tgid: task.TGID(), at: at})
		})
		return true
	}
	s.tree.View(func() {
		if s.has(c) && add(c) {
			c.EachBelow(add)
		}
	})
	return ms
}

// has reports whether c is there and has a state of the subsystem. View or
// Change.
func (s *Subsystem) has(c *tree.Container) bool {
	return !c.Removed() && c.Hierarchy().Subsystems().Has(s.id)
}

// foldBatch is how many readings are applied at once.
const foldBatch = 64

// fold reads tasks and credits what they have run; with split also in which mode.
func (s *Subsystem) fold(ms []member, split bool) {
	if len(ms) > 0 {
		s.forget()
	}
	for len(ms) > 0 {
		batch := ms[:min(foldBatch, len(ms))]
		ms = ms[len(batch):]
		for i := range batch {
			m := &batch[i]
			m.now, m.err = s.host.Read(m.tgid, m.tid, split)
		}
		s.tree.View(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range batch {
				s.applyMemberLocked(&batch[i])
			}
		})
	}
}

func (s *Subsystem) applyMemberLocked(m *member) {
	if !m.task.Live() || s.since.Load() == 0 {
		return
	}
	if m.err != nil {
		// It may have ended, with an event that is yet to come.
		fs := s.unclaimed[m.tid]
		if len(fs) == 0 || !fs[0].isOf(m.task.Start()) {
			return
		}
		m.now = fs[0].Times
	}
	if _, tracked := s.tracks[m.task]; tracked || m.now != (Times{}) {
		s.applyLocked(m.task, m.at, m.now)
	}
}

// grace is how long a read waits for the final of a task that has ended.
const grace = 100 * time.Millisecond

// prepare credits all that has run in c until now; with split also in which mode.
func (s *Subsystem) prepare(c *tree.Container, split bool) {
	if s.since.Load() == 0 {
		return
	}
	asked := s.host.Now()
	s.tree.Drain()
	s.settleSwapped(asked)
	s.awaitFinals()
	s.fold(s.members(c), split)
}
