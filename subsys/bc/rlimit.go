package bc

import (
	"errors"
	"math"
	"syscall"

	"containerfs/tree"
)

// Rlimit is a limit of one process on a resource, as setrlimit(2) has it, in the
// resource's own unit.
type Rlimit struct{ Soft, Hard uint64 }

// noRlimit is the value of a limit that bounds nothing.
const noRlimit = math.MaxUint64

func (l Rlimit) within(most uint64) Rlimit { return Rlimit{min(l.Soft, most), min(l.Hard, most)} }

// capped are the resources that the kernel bounds process by process.
var capped = []resource{numfile, lockedpages}

// cap is what is known of a process whose rlimit on a resource was lowered: what it
// would have otherwise, and the bound that it was lowered to.
type cap struct {
	own   Rlimit
	bound uint64
}

var uncapped = cap{bound: noRlimit}

// caps are a process's. They are not changed, but replaced.
type caps [resources]cap

// next is the cap of a process whose rlimit is now what the host shows, when it is
// to have a bound, and the rlimit that it gets.
func (k cap) next(now Rlimit, bound uint64) (cap, Rlimit) {
	own := now
	if k.bound != noRlimit {
		own = k.own
		// What differs from what it was given it has chosen itself.
		given := own.within(k.bound)
		if now.Hard != given.Hard {
			own.Hard = now.Hard
		}
		if now.Soft != given.Soft {
			own.Soft = now.Soft
		}
		own.Soft = min(own.Soft, own.Hard)
	}
	if bound == noRlimit {
		return uncapped, own
	}
	return cap{own, bound}, own.within(bound)
}

// bound is the most that one process in c may have of a resource: the least of the
// limits of c and what is above, but for the root, whose processes are the whole
// host's. View or Change.
func (s *Subsystem) bound(c *tree.Container, r resource) uint64 {
	least := uint64(noRlimit)
	for ; !c.IsRoot(); c = c.Parent() {
		if limit := s.state(c).account(r).limit; limit != unlimited {
			least = min(least, uint64(limit))
		}
	}
	return least
}

// Attach is tree.Attacher's: the rlimits of a process follow its first thread.
func (s *Subsystem) Attach(task *tree.Task, _, to *tree.Container) (undo func(), err error) {
	if !s.limits || task.TID() != task.TGID() {
		return nil, nil
	}
	return s.setCaps(task, to)
}

// Reattach is tree.Reattacher's.
func (s *Subsystem) Reattach(task *tree.Task, c *tree.Container) error {
	_, err := s.Attach(task, c, c)
	return err
}

// setCaps gives the process of a thread the rlimits that are due in c: all of them,
// or none. Under changeMu.
func (s *Subsystem) setCaps(thread *tree.Task, c *tree.Container) (undo func(), err error) {
	var had *caps
	s.tree.View(func() { had = s.caps[thread.Process()] })
	has := caps{numfile: uncapped, lockedpages: uncapped}
	if had != nil {
		has = *had
	}
	var undos []func()
	undo = func() {
		for _, u := range undos {
			u()
		}
		s.tree.Update(func() { s.keep(thread, had) })
	}
	for _, r := range capped {
		bound := s.bound(c, r)
		if bound == noRlimit && has[r].bound == noRlimit {
			continue
		}
		now, err := s.host.Rlimit(thread.TID(), r, nil)
		var is Rlimit
		if err == nil {
			if has[r], is = has[r].next(now, bound); is != now {
				_, err = s.host.Rlimit(thread.TID(), r, &is)
			}
		}
		if err != nil {
			undo()
			return nil, err
		}
		undos = append(undos, func() {
			// Another process that has the number by now has not these.
			if at, err := s.host.Rlimit(thread.TID(), r, nil); err == nil && at == is && is != now {
				_, err = s.host.Rlimit(thread.TID(), r, &now)
				if err != nil && !errors.Is(err, syscall.ESRCH) {
					s.log.Error("a process could not be given its rlimit back", "tid", thread.TID(), "resource", names[r], "err", err)
				}
			}
		})
	}
	if len(undos) == 0 {
		return nil, nil
	}
	s.tree.Update(func() {
		if s.keep(thread, &has); has[numfile].bound == noRlimit && has[lockedpages].bound == noRlimit {
			delete(s.caps, thread.Process())
		}
	})
	return undo, nil
}

// keep notes the caps of a live thread's process, nil for none. With mu held.
func (s *Subsystem) keep(thread *tree.Task, k *caps) {
	if k == nil || !thread.Live() {
		delete(s.caps, thread.Process())
	} else {
		s.caps[thread.Process()] = k
	}
}

// inheritCaps notes that a new process has the rlimits of its forker. With mu held.
func (s *Subsystem) inheritCaps(parent, child *tree.Task) {
	if len(s.caps) == 0 || parent == nil || child.TID() != child.TGID() {
		return
	}
	if k := s.caps[parent.Process()]; k != nil {
		s.caps[child.Process()] = k
	}
}

// maxRounds bounds how often a change of a limit goes after processes that were born
// while it ran.
const maxRounds = 32

// limitBelow gives the processes in c and below the rlimits that are due, until
// there are none that were not looked at. Under changeMu.
func (s *Subsystem) limitBelow(c *tree.Container) {
	if !s.limits || c.IsRoot() {
		return
	}
	done := make(map[*tree.Process]bool)
	missed, last := 0, error(nil)
	for range maxRounds {
		s.tree.Drain()
		var threads []*tree.Task
		s.tree.View(func() {
			h := s.root.Hierarchy()
			s.tree.EachProcess(func(p *tree.Process, thread *tree.Task) {
				if !done[p] && thread.Container(h).IsBelow(c) {
					done[p] = true
					threads = append(threads, thread)
				}
			})
		})
		if len(threads) == 0 {
			break
		}
		for _, thread := range threads {
			if err := s.settle(thread); err != nil {
				missed, last = missed+1, err
			}
		}
	}
	if missed > 0 {
		s.log.Warn("processes could not be given the limits of their container", "container", c.Path(), "processes", missed, "err", last)
	}
}

// settle gives a process the rlimits that are due where it is. Under changeMu.
func (s *Subsystem) settle(thread *tree.Task) error {
	var c *tree.Container
	s.tree.View(func() { c = thread.Container(s.root.Hierarchy()) })
	if c == nil {
		return nil
	}
	if _, err := s.setCaps(thread, c); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// holdLimits looks at all processes that have a bound, or had one: at those that
// have raised their rlimits, which needs a privilege, and those that came to where
// they are without an attach. It forgets those that have ended.
func (s *Subsystem) holdLimits() {
	if !s.limits || !s.limited {
		return
	}
	var threads []*tree.Task
	s.tree.Update(func() {
		h := s.root.Hierarchy()
		live := make(map[*tree.Process]*caps, len(s.caps))
		s.tree.EachProcess(func(p *tree.Process, thread *tree.Task) {
			k := s.caps[p]
			if k != nil {
				live[p] = k
			}
			c := thread.Container(h)
			if k != nil || s.bound(c, numfile) != noRlimit || s.bound(c, lockedpages) != noRlimit {
				threads = append(threads, thread)
			}
		})
		s.caps = live
	})
	missed, last := 0, error(nil)
	for _, thread := range threads {
		_ = s.tree.Change(func() error {
			s.tree.Drain()
			if err := s.settle(thread); err != nil {
				missed, last = missed+1, err
			}
			return nil
		})
	}
	if missed != s.missed {
		s.log.Warn("processes cannot be held to the limits of their containers", "processes", missed, "err", last)
		s.missed = missed
	}
}
