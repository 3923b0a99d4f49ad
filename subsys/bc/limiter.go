package bc

import (
	"fmt"
	"log/slog"
	"syscall"

	"containerfs/tree"
)

// A Limiter bounds sums: the kernel's pids and memory controllers. Where they are
// not bound to the hierarchy of a container, it does nothing and says not ok.
type Limiter interface {
	// Limit allows c and what is below n of a resource, numproc or physpages;
	// negative is no limit. It may take its time: no lock is held, and c is
	// pinned.
	Limit(c *tree.Container, resource string, n int64) (ok bool, err error)
}

// LimitBy has the limits of numproc, of physpages or of both kept by l. Before tree.New.
func (s *Subsystem) LimitBy(l Limiter, tasks, memory bool) {
	s.limiter = l
	for _, r := range []struct {
		resource
		controller string
		is         bool
	}{{numproc, "pids", tasks}, {physpages, "memory", memory}} {
		if !r.is {
			continue
		}
		for i := range s.files {
			if f := &s.files[i]; f.Name == names[r.resource]+".limit" {
				f.Pass, f.Write = s.pass(r.resource, f.Write), nil
			}
		}
		s.facts.Say(slog.LevelInfo, fmt.Sprintf("the limit of %s is the kernel's in the hierarchy that its %s controller is bound to as well", names[r.resource], r.controller))
	}
}

// Allows is how many processes c is to have, -1 for any number. View.
func (s *Subsystem) Allows(c *tree.Container) int64 {
	if s.tree.Bound(s.id) != c.Hierarchy() || c.IsRoot() {
		return -1
	}
	if n := s.state(c).account(numproc).limit; n != unlimited {
		return n
	}
	return -1
}

// pass is a writer of a limit that the limiter has to know. What it refuses is taken
// back.
func (s *Subsystem) pass(r resource, write func(*tree.Actor, *tree.Container, []byte) error) func(*tree.Actor, *tree.Container, []byte) error {
	return func(a *tree.Actor, c *tree.Container, text []byte) error {
		var was, is int64
		err := s.tree.Change(func() error {
			if s.tree.Bound(s.id) != c.Hierarchy() {
				return syscall.ENODEV // by a remount since it was pinned
			}
			was = s.state(c).account(r).limit
			err := write(a, c, text)
			is = s.state(c).account(r).limit
			return err
		})
		if err != nil || c.IsRoot() {
			return err
		}
		// Whoever gives the kernel a limit last finds the one that is in force, be it
		// another's who was faster.
		for {
			n := is
			if n == unlimited {
				n = -1
			}
			if _, err := s.limiter.Limit(c, names[r], n); err != nil {
				_ = s.tree.Change(func() error {
					s.tree.Update(func() {
						if a := s.state(c).open(r); a.limit == is {
							a.limit = max(was, a.barrier)
						}
					})
					return nil
				})
				return err
			}
			was = is
			s.tree.View(func() { is = s.state(c).account(r).limit })
			if is == was {
				return nil
			}
		}
	}
}
