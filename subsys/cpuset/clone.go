package cpuset

import "containerfs/tree"

// PostClone is tree.PostCloner's: what was made for tasks has its parent's cpus and mems, or
// they could not enter. EINVAL where a child of the
// parent has some of these for itself.
func (s *Subsystem) PostClone(c *tree.Container) error {
	t := s.trialOf(c)
	for r := range resources {
		t.inForce[r] = s.inForce(c.Parent(), r)
		t.configured[r] = t.inForce[r]
	}
	if err := s.validate(c, t); err != nil {
		return err
	}
	s.state(c).sets = t.configured // nobody sees c yet
	return nil
}
