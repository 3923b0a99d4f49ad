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
	var outside error
	c.Children(0, func(child *tree.Container) bool {
		if lacks := s.trialOf(child).lackedBy(t); lacks != "" {
			outside = fmt.Errorf("with %s its child %q does not fit: %w", lacks, child.Name(), syscall.EBUSY)
		}
		return outside == nil
	})
	if outside != nil {
		return outside
	}
	if c.IsRoot() {
		return nil
	}
	if lacks := t.lackedBy(s.trialOf(c.Parent())); lacks != "" {
		return fmt.Errorf("the parent has %s: %w", lacks, syscall.EACCES)
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

// lackedBy says what p has for which t cannot be its child, "" if it can.
func (t trial) lackedBy(p trial) string {
	for r, name := range [resources]string{cpus: "cpu", mems: "mem"} {
		if !t.inForce[r].SubsetOf(p.inForce[r]) {
			return fmt.Sprintf("only %ss %v", name, p.inForce[r])
		}
		if t.flags&exclusive[r] > p.flags&exclusive[r] {
			return "no " + name + "_exclusive"
		}
	}
	return ""
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
