package bc

import "containerfs/tree"

// Remember has caps outlive the server: one that is started again gives processes the
// rlimits back that they had. What a process has of its own is kept before it is
// lowered; children have their forker's, and rows of their own as of the last Enforce.
// It is called before there are tasks.
func (s *Subsystem) Remember(m *tree.Memory) { s.memory = m }

// memo is what is kept of a process, by a thread of it.
func memo(thread *tree.Task, k *caps) tree.Memo {
	m := tree.Memo{Start: thread.Start()}
	for _, r := range capped {
		m.Numbers = append(m.Numbers, k[r].own.Soft, k[r].own.Hard, k[r].bound, k[r].was)
	}
	return m
}

// recall are the caps that an earlier server kept of a process, nil for none. With mu
// held.
func (s *Subsystem) recall(first *tree.Task) *caps {
	numbers := s.memory.Recall(s.tree, first)
	if len(numbers) != 4*len(capped) {
		return nil
	}
	k := new(caps)
	for i, r := range capped {
		n := numbers[4*i:]
		k[r] = cap{Rlimit{n[0], n[1]}, n[2], n[3]}
	}
	return k
}

// keepAhead keeps what the plans are going to lower. Under changeMu.
func (s *Subsystem) keepAhead(plans ...*plan) error {
	memos := make(map[int32]tree.Memo)
	for _, p := range plans {
		if p.lowers() {
			k := p.unfinished()
			memos[p.thread.TGID()] = memo(p.thread, &k)
		}
	}
	return s.memory.Add(memos)
}

// keepCaps writes what has changed of the caps. Under changeMu.
func (s *Subsystem) keepCaps() {
	err := s.memory.Keep(s.tree, func(memos map[int32]tree.Memo) {
		if len(s.caps) == 0 {
			return
		}
		s.tree.EachProcess(func(p *tree.Process, thread *tree.Task) {
			if k := s.caps[p]; k != nil {
				memos[thread.TGID()] = memo(thread, k)
			}
		})
	})
	if err != nil {
		s.log.Warn("the rlimits that processes had before they were lowered could not be kept", "err", err)
	}
}

// Close keeps what processes have of their own.
func (s *Subsystem) Close() error {
	if s.tree == nil {
		return nil
	}
	return s.tree.Change(func() error {
		s.keepCaps()
		return nil
	})
}
