package cpuset

import (
	"errors"
	"syscall"

	"containerfs/tree"
)

// Enforce looks once at every member's mask and takes away what is outside of
// cpus; it follows what is online as well. Call it once a second. Masks are
// looked at without locks, so a pass keeps nobody waiting but for the members
// that it sets.
func (s *Subsystem) Enforce() {
	_ = s.tree.Change(func() error {
		s.settle()
		s.refresh()
		return nil
	})
	var beyond shortfall
	for _, task := range s.astray() {
		_ = s.tree.Change(func() error {
			if err := s.mend(task); err != nil && !errors.Is(err, syscall.ESRCH) {
				beyond.add(task, err)
			}
			return nil
		})
	}
	if beyond.n > 0 && beyond.n != s.beyond {
		s.log.Warn("members have CPUs outside of cpus that cannot be taken away", "members", beyond.n, "tids", beyond.tids, "err", beyond.err)
	}
	s.beyond = beyond.n
	s.keepOrigins()
}

// astray are the tasks that mend should look at.
func (s *Subsystem) astray() (tasks []*tree.Task) {
	type member struct {
		task *tree.Task
		cpus Set // in force; empty for a task in the root
	}
	var members []member
	s.tree.View(func() {
		h := s.root.Hierarchy()
		members = make([]member, 0, len(s.origins))
		seen := make(map[*tree.Container]Set)
		for task := range s.origins {
			c := task.Container(h)
			if c == nil {
				continue
			}
			set, ok := seen[c]
			if !ok && !c.IsRoot() {
				set = s.inForce(c, cpus)
				seen[c] = set
			}
			members = append(members, member{task, set})
		}
	})
	for _, m := range members {
		mask, err := s.host.Affinity(m.task.TID())
		if err == nil && !mask.SubsetOf(m.cpus) {
			tasks = append(tasks, m.task)
		}
	}
	return tasks
}

// mend cuts a member's mask to cpus. A task that is in the root, though it has an
// origin, was forked by one that an attach had in hand, and put there without
// the attach's effect being undone for it: it has its origin restored. Under
// changeMu.
func (s *Subsystem) mend(task *tree.Task) error {
	s.settle()
	s.tree.Drain()
	var c *tree.Container
	var origin Set
	known := false
	s.tree.View(func() {
		c = task.Container(s.root.Hierarchy())
		origin, known = s.origins[task]
	})
	if c == nil || !known {
		return nil // it has ended, or has gone back
	}
	mask, err := s.host.Affinity(task.TID())
	if err != nil {
		return err
	}
	if c.IsRoot() {
		s.forget(task)
		if origin.Empty() || origin.Equal(mask) {
			return nil
		}
		_, err := s.set(task, origin)
		return err
	}
	want := s.cut(mask, c)
	if want.Equal(mask) {
		return nil
	}
	// Where the origin is unknown, what a member has too much is the best
	// that there is to go by.
	s.note(task, mask)
	_, err = s.set(task, want)
	return err
}
