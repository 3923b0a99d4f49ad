package bc

import (
	"errors"
	"syscall"
	"time"

	"containerfs/tree"
)

// share is how many times as long as a sample Enforce rests at least.
const share = 9

// member is a process, by a thread of it, in a container.
type member struct {
	tid int32
	c   *tree.Container
}

// Enforce has the limits kept, and measures what the processes hold that are not in
// the root; those in the root too when that has a bound. Call it once a second.
func (s *Subsystem) Enforce() {
	s.holdLimits()
	_ = s.tree.Change(func() error {
		s.keepCaps()
		return nil
	})
	if time.Now().Before(s.rest) {
		return
	}
	s.sampling.Lock()
	defer s.sampling.Unlock()
	begun := time.Now() // what others have measured is not to be rested for
	var members []member
	withRoot := false
	s.tree.View(func() {
		if s.root.Hierarchy().Number() == 0 {
			return // bound nowhere
		}
		for r := numfile; r < resources; r++ {
			withRoot = withRoot || s.state(s.root).account(r).bounded()
		}
		members = s.members(func(c *tree.Container) bool { return withRoot || !c.IsRoot() })
	})
	used, refused := s.measure(members)
	s.tree.Update(func() { s.share(members, used, withRoot) })

	if refused != s.refused {
		s.log.Warn("processes cannot be measured and seem to hold nothing", "processes", refused)
		s.refused = refused
	}
	took := time.Since(begun)
	s.rest = begun.Add(took + share*took)
	if slow := took > time.Second/(share+1); slow != s.slow {
		s.log.Warn("whether processes are too many to be measured once a second has changed", "slow", slow, "processes", len(members), "took", took)
		s.slow = slow
	}
}

// sample measures what the processes in c and below hold now.
func (s *Subsystem) sample(c *tree.Container) error {
	s.tree.Drain()
	s.sampling.Lock()
	defer s.sampling.Unlock()
	var members []member
	s.tree.View(func() {
		if s.has(c) {
			members = s.members(func(k *tree.Container) bool { return k.IsBelow(c) })
		}
	})
	used, _ := s.measure(members)
	s.tree.Update(func() {
		var sum Usage
		for i := range used {
			sum.add(used[i])
		}
		s.note(c, sum)
	})
	return nil
}

// drain lets what is counted by membership be as of now.
func (s *Subsystem) drain(*tree.Container) error {
	s.tree.Drain()
	return nil
}

// has reports whether a container is there and has a state. View.
func (s *Subsystem) has(c *tree.Container) bool {
	return !c.Removed() && c.Hierarchy().Subsystems().Has(s.id)
}

// members are the processes in the containers that are asked for. View.
func (s *Subsystem) members(in func(*tree.Container) bool) (members []member) {
	h := s.root.Hierarchy()
	s.tree.EachProcess(func(_ *tree.Process, thread *tree.Task) {
		if c := thread.Container(h); in(c) {
			members = append(members, member{thread.TID(), c})
		}
	})
	return members
}

// measure asks the host for what each of the members holds, and counts those that
// it does not tell of.
func (s *Subsystem) measure(members []member) (used []Usage, refused int) {
	used = make([]Usage, len(members))
	for i, m := range members {
		u, err := s.host.Usage(m.tid)
		switch {
		case err == nil:
			used[i] = u
		case !errors.Is(err, syscall.ESRCH):
			refused++
		}
	}
	return used, refused
}

// share notes for each container what the members in it and below hold. With mu
// held.
func (s *Subsystem) share(members []member, used []Usage, withRoot bool) {
	sums := make(map[*tree.Container]*Usage)
	for c := range s.holding {
		if withRoot || !c.IsRoot() {
			sums[c] = new(Usage)
		}
	}
	for i, m := range members {
		for c := m.c; c != nil && (withRoot || !c.IsRoot()); c = c.Parent() {
			if sums[c] == nil {
				sums[c] = new(Usage)
			}
			sums[c].add(used[i])
		}
	}
	for c, sum := range sums {
		s.note(c, *sum)
	}
}

// note notes what a container holds of the resources that are measured. With mu
// held.
func (s *Subsystem) note(c *tree.Container, sum Usage) {
	if !s.has(c) {
		return
	}
	delete(s.holding, c)
	for r := numfile; r < resources; r++ {
		if !s.measures[r] || (sum[r] == 0 && s.state(c).accounts == nil) {
			continue
		}
		s.hold(c, r, sum[r])
		if sum[r] > 0 {
			s.holding[c] = struct{}{}
		}
	}
}

func (u *Usage) add(o Usage) {
	for r := range u {
		u[r] += o[r]
	}
}
