package cpuacct

import "containerfs/tree"

// maxReadings bounds how many tasks there may be of which the readings outlive the server.
const maxReadings = 1 << 17

// Remember has what tasks run while there is no server counted by the next one, if this one
// is closed: how far they are credited outlives it, with their totals. It is called before
// there are tasks.
func (s *Subsystem) Remember(m *tree.Memory) { s.memory = m }

// recall is how far an earlier server has credited a task that is in at, of which the first
// Resync tells; not ok if that is not known. mu.
func (s *Subsystem) recall(task *tree.Task, at *state) (t track, ok bool) {
	if !s.memory.Knows(s.tree) {
		return t, false
	}
	t = track{at: at, recalled: true}
	switch n := s.memory.Recall(s.tree, task); {
	case n == nil: // it was never read, or born since
	case len(n) == 3:
		t.last = Times{n[0], n[1], n[2]}
	default:
		return t, false
	}
	return t, true
}

// forget removes what an earlier server has kept, before anything is credited by it: a
// server that is killed has kept totals which it is in already.
func (s *Subsystem) forget() {
	if s.forgot.Load() {
		return
	}
	s.forgetting.Lock()
	defer s.forgetting.Unlock()
	settled := false
	s.tree.View(func() { settled = s.tree.Settled() })
	if settled && !s.forgot.Load() {
		s.forgot.Store(s.keep(func(map[int32]tree.Memo) {}))
	}
}

// keepReadings has the next server know how far tasks are credited. The totals that were
// kept last have to be those of now.
func (s *Subsystem) keepReadings() {
	if s.tree == nil {
		return // there was none
	}
	s.keep(func(memos map[int32]tree.Memo) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.since.Load() == 0 || len(s.tracks) > maxReadings {
			return
		}
		for task, t := range s.tracks {
			memo := tree.Memo{Start: task.Start()}
			if !t.unread {
				memo.Numbers = []uint64{t.last.Run, t.last.User, t.last.System}
			}
			memos[task.TID()] = memo
		}
	})
}

// keep reports whether what is kept is what collect says.
func (s *Subsystem) keep(collect func(memos map[int32]tree.Memo)) bool {
	err := s.memory.Keep(s.tree, collect)
	if err != nil {
		s.log.Warn("how far tasks are credited could not be kept", "err", err)
	}
	return err == nil
}
