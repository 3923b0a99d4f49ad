package cpuset

import "containerfs/tree"

// Remember has the origins of members outlive the server, as of the last Enforce: who
// leaves for the root has the CPUs back that he had. It is called before there are
// tasks.
func (s *Subsystem) Remember(m *tree.Memory) { s.memory = m }

// recall is the origin of a member that was one before the server was. mu.
func (s *Subsystem) recall(task *tree.Task) (origin Set) {
	words := s.memory.Recall(s.tree, task)
	if len(words) > maxSaved {
		return nil // nobody has kept that
	}
	return trim(words)
}

// keepOrigins writes what has changed of the origins. Only Enforce and Close use it.
func (s *Subsystem) keepOrigins() {
	err := s.memory.Keep(s.tree, func(memos map[int32]tree.Memo) {
		for task, origin := range s.origins {
			if task.Live() && !origin.Empty() {
				memos[task.TID()] = tree.Memo{Start: task.Start(), Numbers: origin}
			}
		}
	})
	if err != nil {
		s.log.Warn("the CPUs that tasks had before they became members could not be kept", "err", err)
	}
}
