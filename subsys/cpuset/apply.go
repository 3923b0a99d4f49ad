package cpuset

import (
	"errors"
	"syscall"

	"containerfs/tree"
)

// maxRounds bounds how often a change of cpus goes after members that were born
// while it ran.
const maxRounds = 32

// apply has the effect of a set that came into force in c in place of another,
// and in the containers below where it changed theirs. Under changeMu.
func (s *Subsystem) apply(c *tree.Container, r resource, was, is Set) {
	switch {
	case c.IsRoot(): // its members are never touched
	case r == cpus:
		s.confine(c, is)
	case s.state(c).flags&memoryMigrate != 0:
		s.migrate(c, was, is)
	}
	c.Children(0, func(child *tree.Container) bool {
		configured := s.state(child).sets[r]
		if was, is := within(configured, was), within(configured, is); !was.Equal(is) {
			s.apply(child, r, was, is)
		}
		return true
	})
}

// confine gives every member of c the mask cpus. A member whose fork is told of
// later may have the old one from its forker: that is looked for until there are
// none. Under changeMu.
func (s *Subsystem) confine(c *tree.Container, cpus Set) {
	if cpus.Empty() {
		return // there are no members
	}
	done := make(map[*tree.Task]struct{})
	var refused, clamped shortfall
	for range maxRounds {
		s.tree.Drain()
		var found []*tree.Task
		s.tree.View(func() {
			c.EachTask(func(task *tree.Task) {
				if _, ok := done[task]; !ok {
					found = append(found, task)
				}
			})
		})
		if len(found) == 0 {
			refused.report(s, c, cpus, "the kernel refuses cpus to members")
			clamped.report(s, c, cpus, "the kernel allows members only a part of cpus")
			return
		}
		for _, task := range found {
			done[task] = struct{}{}
			got, err := s.set(task, cpus)
			switch {
			case errors.Is(err, syscall.ESRCH):
			case err != nil:
				refused.add(task, err)
			case !got.Equal(cpus):
				clamped.add(task, nil)
			}
		}
	}
	s.log.Warn("members are born faster than they can be given cpus", "container", c.Path(), "cpus", cpus)
	refused.report(s, c, cpus, "the kernel refuses cpus to members")
}

// shortfall are members that an effect did not reach as it should.
type shortfall struct {
	n    int
	tids []int32 // the first of them
	err  error   // the last
}

const maxNamed = 16

func (m *shortfall) add(task *tree.Task, err error) {
	m.n++
	m.err = err
	if len(m.tids) < maxNamed {
		m.tids = append(m.tids, task.TID())
	}
}

func (m *shortfall) report(s *Subsystem, c *tree.Container, cpus Set, what string) {
	if m.n > 0 {
		s.log.Warn(what, "container", c.Path(), "cpus", cpus, "members", m.n, "tids", m.tids, "err", m.err)
	}
}

// migrate asks for the pages of the processes whose first thread is in c. Under
// changeMu.
func (s *Subsystem) migrate(c *tree.Container, was, is Set) {
	if was.Equal(is) || was.Empty() || is.Empty() {
		return
	}
	var tgids []int32
	s.tree.View(func() {
		c.EachTask(func(task *tree.Task) {
			if task.TID() == task.TGID() {
				tgids = append(tgids, task.TGID())
			}
		})
	})
	for _, tgid := range tgids {
		s.migrator.ask(tgid, was, is)
	}
}

// refresh reads what is online and applies what changed. Under changeMu.
func (s *Subsystem) refresh() {
	var online [resources]Set
	var err error
	if online[cpus], online[mems], err = s.host.Online(); err != nil {
		s.log.Error("what is online cannot be read", "err", err)
		return
	}
	root := s.state(s.root)
	for r := range resources {
		was, is := root.sets[r], online[r]
		if was.Equal(is) {
			continue
		}
		s.tree.Update(func() { root.sets[r] = is })
		s.apply(s.root, r, was, is)
	}
}
