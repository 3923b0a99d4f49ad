package cpuacct

import (
	"time"

	"containerfs/tree"
)

// intervalLength is that of load's intervals (SPEC §12).
const intervalLength = 10 * time.Second

// Bind is tree.Binder's: it begins to count, or ends it.
func (s *Subsystem) Bind(root *tree.Container) {
	bound := s.tree.Bound(s.id) != nil
	switch counting := s.since.Load() != 0; {
	case bound && !counting:
		s.begin(root)
	case !bound && counting:
		s.prepare(root, true)
		s.end()
	}
}

// begin makes what all tasks have run until now the past. Under changeMu.
func (s *Subsystem) begin(root *tree.Container) {
	s.mu.Lock()
	s.tracks = make(map[*tree.Task]track)
	s.dying = make(map[int32][]dying)
	s.unclaimed = make(map[int32][]final)
	s.unread, s.lost = nil, losses{}
	// Two on, so that nothing of before belongs to the last interval.
	s.interval += 2
	s.bound, s.length = s.host.Now(), 0
	s.began = s.bound
	s.mu.Unlock()

	source, stop, err := s.host.Watch(s.finals)
	if err != nil {
		s.log.Warn("tasks that end are credited with what they had run when they were last read", "err", err)
	} else {
		s.log.Info("counting", "finals", source)
	}
	s.stop = stop
	s.tree.View(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watching = err == nil
		s.since.Store(max(s.host.Tick(), 1))
		root.EachTask(func(task *tree.Task) { s.trackUnreadLocked(task, s.root) })
	})
	s.readUnread()
}

// end stops to count. Under changeMu, or when no change can come any more.
func (s *Subsystem) end() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since.Store(0)
	s.expireLocked(s.host.Now())
	s.sayLostLocked()
	s.watching = false
	s.tracks, s.dying, s.unclaimed, s.unread = nil, nil, nil, nil
}

// Close ends the finals, and has the next server know how far tasks are credited. What
// was counted has been kept.
func (s *Subsystem) Close() error {
	s.keepReadings()
	s.end()
	return nil
}

// readUnread reads the tasks that have a past for the first time since it began.
func (s *Subsystem) readUnread() {
	var ms []member
	s.tree.View(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, task := range s.unread {
			if t, ok := s.tracks[task]; ok && (t.unread || t.recalled) && task.Live() {
				ms = append(ms, member{task: task, tid: task.TID(), tgid: task.TGID(), at: t.at})
			}
		}
		s.unread = nil
	})
	s.fold(ms, true)
}

// Enforce begins a new interval when it is time, and gives up what will not come.
// Call it once a second.
func (s *Subsystem) Enforce() {
	if s.since.Load() == 0 {
		return
	}
	s.tree.Drain() // what has ended will not be claimed later
	s.readUnread()
	now := s.host.Now()
	s.mu.Lock()
	interval := s.interval
	due := now-s.began >= intervalLength
	s.expireLocked(now)
	if due {
		s.sayLostLocked()
	}
	s.mu.Unlock()
	if !due || !s.foldAll() {
		return
	}
	now = s.host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interval == interval { // and not bound again meanwhile
		s.interval++
		s.began, s.length = now, now-s.began
	}
}

// foldAll credits what all tasks have run until now. It reports whether anybody counts.
func (s *Subsystem) foldAll() bool {
	var root *tree.Container
	s.tree.View(func() {
		if h := s.tree.Bound(s.id); h != nil {
			root = h.Root()
		}
	})
	if root == nil {
		return false
	}
	s.fold(s.members(root), false)
	return true
}

// Measure has all that was run until now be in what is saved.
func (s *Subsystem) Measure() {
	if s.since.Load() == 0 {
		return
	}
	s.tree.Drain()
	s.awaitFinals()
	s.foldAll()
}

func (s *Subsystem) sayLostLocked() {
	if l := s.lost; l.finals > 0 && s.watching {
		s.log.Warn("tasks ended and the host did not say what they had run: they are credited as last read", "tasks", l.finals)
	}
	if l := s.lost; l.unclaimed > 0 {
		s.log.Warn("tasks ended that were never known to be anywhere: nobody is credited", "tasks", l.unclaimed, "run", time.Duration(l.run))
	}
	s.lost = losses{}
}
