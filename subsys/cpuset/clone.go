package cpuset

import "containerfs/tree"

// PostClone is tree.PostCloner's: what was made for a process has its parent's
// cpus and mems, or the process could not enter. EINVAL where a child of the
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
