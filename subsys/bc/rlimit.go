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
// would have otherwise, and the bound that it was lowered to. A server that was
// killed can have left it at the bound before, was: else the same.
type cap struct {
	own        Rlimit
	bound, was uint64
}

var uncapped = cap{bound: noRlimit, was: noRlimit}

// caps are a process's. They are not changed, but replaced.
type caps [resources]cap

// next is the cap of a process whose rlimit is now what the host shows, when it is
// to have a bound, and the rlimit that it gets.
func (k cap) next(now Rlimit, bound uint64) (cap, Rlimit) {
	own := now
	if k.known() {
		own = k.own
		given := own.within(k.at(now))
		// What differs from what it was given it has chosen itself.
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
	return cap{own, bound, bound}, own.within(bound)
}

// at is the bound that the process has been lowered to, when its rlimit is now what
// the host shows.
func (k cap) at(now Rlimit) uint64 {
	if now == k.own.within(k.was) {
		return k.was
	}
	return k.bound
}

// known reports whether the process may have another rlimit than its own.
func (k cap) known() bool { return k.bound != noRlimit || k.was != noRlimit }

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

// plan is what a process is to be given where it is.
type plan struct {
	thread *tree.Task
	had    *caps // nil for none
	has    caps
	steps  []step
}

// step is of one resource: what the process has now, and gets.
type step struct {
	r       resource
	was     uint64 // the bound that it has now
	now, is Rlimit
}

// plan finds out what rlimits are due to the process of a thread in c. Under
// changeMu.
func (s *Subsystem) plan(thread *tree.Task, c *tree.Container) (*plan, error) {
	p := &plan{thread: thread, has: caps{numfile: uncapped, lockedpages: uncapped}}
	s.tree.View(func() { p.had = s.caps[thread.Process()] })
	if p.had != nil {
		p.has = *p.had
	}
	for _, r := range capped {
		bound := s.bound(c, r)
		if bound == noRlimit && !p.has[r].known() {
			continue
		}
		now, err := s.rlimit(thread, r, nil)
		if err != nil {
			return nil, err
		}
		was := p.has[r].at(now)
		k, is := p.has[r].next(now, bound)
		p.has[r] = k
		p.steps = append(p.steps, step{r, was, now, is})
	}
	return p, nil
}

// lowers reports whether the process will have something to be given back.
func (p *plan) lowers() bool { return p.has[numfile].known() || p.has[lockedpages].known() }

// unfinished are the caps of the process as long as it is not known which of the
// steps were made.
func (p *plan) unfinished() caps {
	k := p.has
	for _, st := range p.steps {
		if k[st.r].was = st.was; k[st.r].bound == noRlimit {
			k[st.r].own = st.is
		}
	}
	return k
}

// rlimit is Host.Rlimit, which goes by the number, for the process of a thread: ESRCH where it
// is another's by now, which keeps its own limit.
func (s *Subsystem) rlimit(thread *tree.Task, r resource, set *Rlimit) (was Rlimit, err error) {
	if s.tree.HasEnded(thread) {
		return Rlimit{}, syscall.ESRCH
	}
	if was, err = s.host.Rlimit(thread.TID(), r, set); err != nil {
		return Rlimit{}, err
	}
	heir, ended := s.tree.Heir(thread)
	if !ended {
		return was, nil
	}
	if set != nil && heir.TID != 0 {
		if now, err := s.host.Rlimit(heir.TID, r, nil); err == nil && now == *set {
			_, _ = s.host.Rlimit(heir.TID, r, &was)
		}
	}
	return Rlimit{}, syscall.ESRCH
}

// setCaps gives the process of a thread the rlimits that are due in c: all of them,
// or none. Under changeMu.
func (s *Subsystem) setCaps(thread *tree.Task, c *tree.Container) (undo func(), err error) {
	p, err := s.plan(thread, c)
	if err != nil {
		return nil, err
	}
	if err := s.keepAhead(p); err != nil {
		return nil, err
	}
	return s.carryOut(p)
}

// carryOut makes the steps of a plan: all, or none. Under changeMu.
func (s *Subsystem) carryOut(p *plan) (undo func(), err error) {
	thread := p.thread
	var undos []func()
	undo = func() {
		for _, u := range undos {
			u()
		}
		s.tree.Update(func() { s.keep(thread, p.had) })
	}
	for _, st := range p.steps {
		if st.is != st.now {
			if _, err := s.rlimit(thread, st.r, &st.is); err != nil {
				undo()
				return nil, err
			}
		}
		undos = append(undos, func() {
			// Another process that has the number by now has not these.
			if at, err := s.host.Rlimit(thread.TID(), st.r, nil); err == nil && at == st.is && st.is != st.now {
				_, err = s.host.Rlimit(thread.TID(), st.r, &st.now)
				if err != nil && !errors.Is(err, syscall.ESRCH) {
					s.log.Error("a process could not be given its rlimit back", "tid", thread.TID(), "resource", names[st.r], "err", err)
				}
			}
		})
	}
	if len(undos) == 0 {
		return nil, nil
	}
	s.tree.Update(func() {
		if s.keep(thread, &p.has); !p.lowers() {
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

// inheritCaps notes that a new process has the rlimits of its forker. Of one that was
// found at the start, what is kept of it comes first; without, it was born since that
// was written, or without a server, unless it has left to where nothing bounds it.
// With mu held.
func (s *Subsystem) inheritCaps(parent, child *tree.Task, c *tree.Container) {
	if len(s.caps) == 0 && s.tree.Settled() || child.TID() != child.TGID() {
		return
	}
	if k := s.recall(child); k != nil {
		s.caps[child.Process()] = k
		s.limited = true
		return
	}
	if parent == nil {
		return
	}
	k := s.caps[parent.Process()]
	if k == nil || !s.tree.Settled() && !s.bornCapped(parent, c) {
		return
	}
	s.caps[child.Process()] = k
}

// bornCapped reports whether a process in c of which nothing is kept has its forker's
// rlimits. With mu held.
func (s *Subsystem) bornCapped(parent *tree.Task, c *tree.Container) bool {
	if c.IsRoot() {
		return false
	}
	return parent.Container(c.Hierarchy()) == c || s.bound(c, numfile) != noRlimit || s.bound(c, lockedpages) != noRlimit
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
		n, err := s.settle(threads...)
		if missed += n; err != nil {
			last = err
		}
	}
	if missed > 0 {
		s.log.Warn("processes could not be given the limits of their container", "container", c.Path(), "processes", missed, "err", last)
	}
}

// settle gives processes the rlimits that are due where they are. It returns how many
// it could not give them. Under changeMu.
func (s *Subsystem) settle(threads ...*tree.Task) (missed int, last error) {
	miss := func(n int, err error) {
		if !errors.Is(err, syscall.ESRCH) {
			missed, last = missed+n, err
		}
	}
	var plans []*plan
	for _, thread := range threads {
		var c *tree.Container
		s.tree.View(func() { c = thread.Container(s.root.Hierarchy()) })
		if c == nil {
			continue
		}
		p, err := s.plan(thread, c)
		if err != nil {
			miss(1, err)
		} else if len(p.steps) > 0 {
			plans = append(plans, p)
		}
	}
	// All in one commit.
	if err := s.keepAhead(plans...); err != nil {
		miss(len(plans), err)
		return missed, last
	}
	for _, p := range plans {
		if _, err := s.carryOut(p); err != nil {
			miss(1, err)
		}
	}
	return missed, last
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
			n, err := s.settle(thread)
			if missed += n; err != nil {
				last = err
			}
			return nil
		})
	}
	if missed != s.missed {
		s.log.Warn("processes cannot be held to the limits of their containers", "processes", missed, "err", last)
		s.missed = missed
	}
}
