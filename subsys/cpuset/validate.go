package cpuset

import (
	"fmt"
	"syscall"

	"containerfs/tree"
)

// trial is what a container would be after a change.
type trial struct {
	configured, inForce [resources]Set
	flags               flags
}

// trialOf is c as it is. Under changeMu.
func (s *Subsystem) trialOf(c *tree.Container) trial {
	st := s.state(c)
	t := trial{configured: st.sets, flags: st.flags}
	for r := range resources {
		t.inForce[r] = s.inForce(c, r)
	}
	return t
}

// validate decides whether c may become t, in the order of SPEC §11. What is in
// force is asked whether it is contained, since that is what a client sees; what
// is configured is asked whether siblings overlap, since two may have taken the
// same ancestor's set. Under changeMu.
func (s *Subsystem) validate(c *tree.Container, t trial) error {
	contained := true
	c.Children(0, func(child *tree.Container) bool {
		contained = s.trialOf(child).containedIn(t)
		return contained
	})
	if !contained {
		return fmt.Errorf("a child has more, or is exclusive where this would not be: %w", syscall.EBUSY)
	}
	if c.IsRoot() {
		return nil
	}
	if !t.containedIn(s.trialOf(c.Parent())) {
		return fmt.Errorf("the parent lacks some of it, or its exclusive flag: %w", syscall.EACCES)
	}
	overlaps := false
	c.Parent().Children(0, func(sibling *tree.Container) bool {
		overlaps = sibling != c && t.overlaps(s.state(sibling))
		return !overlaps
	})
	if overlaps {
		return fmt.Errorf("a sibling has some of it, and one of the two is exclusive: %w", syscall.EINVAL)
	}
	if t.inForce[cpus].Empty() || t.inForce[mems].Empty() {
		if s.hasTasks(c) {
			return fmt.Errorf("tasks are in it, and cpus or mems would be empty: %w", syscall.ENOSPC)
		}
	}
	return nil
}

func (s *Subsystem) hasTasks(c *tree.Container) (has bool) {
	s.tree.View(func() { has = c.CSSGroups() > 0 })
	return has
}

// containedIn reports whether t may be a child of p.
func (t trial) containedIn(p trial) bool {
	for r := range resources {
		if !t.inForce[r].SubsetOf(p.inForce[r]) || t.flags&exclusive[r] > p.flags&exclusive[r] {
			return false
		}
	}
	return true
}

// overlaps reports whether t and a sibling share what one of them has for
// itself.
func (t trial) overlaps(sibling *state) bool {
	for r := range resources {
		if (t.flags|sibling.flags)&exclusive[r] != 0 && t.configured[r].Intersects(sibling.sets[r]) {
			return true
		}
	}
	return false
}
