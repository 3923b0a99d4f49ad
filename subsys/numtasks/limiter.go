package numtasks

import (
	"errors"
	"log/slog"
	"syscall"

	"containerfs/tree"
)

// A Limiter refuses forks: the kernel's pids controller. Where it is not bound to
// the hierarchy of a container, it does nothing and says not ok.
type Limiter interface {
	// Limit has no more tasks than n be forked in c and below; negative is no
	// limit. Under changeMu.
	Limit(c *tree.Container, n int64) (ok bool, err error)

	// Refused is how many forks were refused in c, since what counts them began, which has a
	// number that no other has in any boot of the host. No lock is held.
	Refused(c *tree.Container) (n, counter uint64, ok bool, err error)
}

// LimitBy has forks refused by l, instead of being counted only. Before tree.New.
func (s *Subsystem) LimitBy(l Limiter) {
	s.limiter = l
	s.facts.Say(slog.LevelInfo, "a fork over a limit is refused in the hierarchy that the kernel's pids controller is bound to as well")
}

// enforce hands the limits of c and of all below to the limiter, as if c had the
// shares n, and returns whose it has taken. On an error those are restored that it has already
// been given.
func (s *Subsystem) enforce(c *tree.Container, n shares) (done []*tree.Container, err error) {
	if s.limiter == nil {
		return nil, nil
	}
	err = s.enforceBelow(c, c, n, &done)
	if err != nil {
		for _, d := range done {
			if _, err := s.limiter.Limit(d, s.limit(d)); err != nil {
				s.log.Error("the kernel's limit could not be put back", "path", d.Path(), "err", err)
			}
		}
	}
	return done, err
}

// Allows is how many tasks c is to have, -1 for any number. View.
func (s *Subsystem) Allows(c *tree.Container) int64 {
	if s.tree.Bound(s.id) != c.Hierarchy() {
		return none
	}
	return s.limit(c)
}

func (s *Subsystem) enforceBelow(c, changed *tree.Container, n shares, done *[]*tree.Container) (err error) {
	// The machine's limit holds for a root by itself.
	if !c.IsRoot() {
		if ok, err := s.limiter.Limit(c, s.limitWith(c, changed, n)); err != nil || !ok {
			return err
		}
		*done = append(*done, c)
	}
	c.Children(0, func(k *tree.Container) bool {
		err = s.enforceBelow(k, changed, n, done)
		return err == nil
	})
	return err
}

// limitWith is the absolute of c if another container, or itself, has the shares n.
func (s *Subsystem) limitWith(c, changed *tree.Container, n shares) int64 {
	if c.IsRoot() {
		return s.bound
	}
	of := func(c *tree.Container) shares {
		if c == changed {
			return n
		}
		return s.state(c).shares
	}
	return absolute(s.limitWith(c.Parent(), changed, n), of(c).max, of(c.Parent()).divisor)
}

// refusals asks the limiter what it has refused, besides having the counts up to
// date.
func (s *Subsystem) refusals(c *tree.Container) error {
	if err := s.drain(c); err != nil || s.limiter == nil {
		return err
	}
	return s.ask(c)
}

// ask asks the limiter what it has refused.
func (s *Subsystem) ask(c *tree.Container) error {
	n, counter, ok, err := s.limiter.Refused(c)
	if errors.Is(err, syscall.ENODEV) || !ok {
		return nil // it is gone: the read will find out
	}
	if err != nil {
		return err
	}
	s.tree.Update(func() {
		if c.Removed() || s.tree.Bound(s.id) != c.Hierarchy() {
			return
		}
		st := s.state(c)
		if st.counter != counter { // by a boot
			st.failures += st.refused
			st.counter = counter
		}
		st.refused = n
	})
	return nil
}

// Measure has the limiter be asked about all who can have been refused a fork, for what is saved.
func (s *Subsystem) Measure() {
	if s.limiter == nil {
		return
	}
	var asked []*tree.Container
	s.tree.View(func() {
		h := s.tree.Bound(s.id)
		if h == nil {
			return
		}
		h.Root().EachBelow(func(c *tree.Container) bool {
			if !c.Populated() && !c.Vacated() {
				return false
			}
			asked = append(asked, c)
			return true
		})
	})
	for _, c := range asked {
		if err := s.ask(c); err != nil {
			s.log.Warn("what the kernel has refused is not known", "path", c.Path(), "err", err)
			return
		}
	}
}
