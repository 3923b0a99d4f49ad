package bc

import (
	"math"
	"syscall"

	"containerfs/tree"
)

// Save is tree.Saver's: all but what is held now.
func (s *Subsystem) Save(c *tree.Container, b []byte) []byte {
	st := s.state(c)
	if st.accounts == nil {
		return b
	}
	for _, a := range st.accounts {
		b = tree.AppendNumbers(b, uint64(a.maxheld), uint64(a.minheld-unknown), uint64(a.barrier), uint64(a.limit), a.failcnt)
	}
	return b
}

// Restore is tree.Saver's. What was counted since is not forgotten.
func (s *Subsystem) Restore(c *tree.Container, b []byte) error {
	kept := [resources]account{opened, opened, opened, opened}
	if len(b) > 0 {
		var n [resources][5]uint64
		var all []*uint64
		for r := range n {
			for i := range n[r] {
				all = append(all, &n[r][i])
			}
		}
		if err := tree.Numbers(b, all...); err != nil {
			return err
		}
		for r := range kept {
			for _, v := range n[r] {
				if v > math.MaxInt64 {
					return syscall.EINVAL
				}
			}
			kept[r] = account{
				maxheld: int64(n[r][0]), minheld: int64(n[r][1]) + unknown,
				barrier: int64(n[r][2]), limit: int64(n[r][3]), failcnt: n[r][4],
			}
			if kept[r].barrier > kept[r].limit {
				return syscall.EINVAL
			}
		}
	}
	s.tree.Update(func() {
		st := s.state(c)
		if st.accounts == nil && len(b) == 0 {
			return
		}
		for r := range resources {
			a := st.open(r)
			a.barrier, a.limit = kept[r].barrier, kept[r].limit
			s.noteLimit(c, r, a.limit)
			a.maxheld = max(a.maxheld, kept[r].maxheld)
			a.failcnt = max(a.failcnt, kept[r].failcnt)
			if k := kept[r].minheld; a.minheld == unknown || k != unknown && k < a.minheld {
				a.minheld = k
			}
		}
	})
	return nil
}
