package numtasks

import (
	"syscall"

	"containerfs/tree"
)

// Save is tree.Saver's: what was refused, and what has counted that, only where there is any.
func (s *Subsystem) Save(c *tree.Container, b []byte) []byte {
	st := s.state(c)
	if st.shares == defaultShares && st.successes == 0 && st.failures == 0 && st.refused == 0 && !st.kill {
		return b
	}
	kill := uint64(0)
	if st.kill {
		kill = 1
	}
	b = tree.AppendNumbers(b, kill, saved(st.min), saved(st.max), saved(st.divisor), st.successes, st.failures)
	if st.refused > 0 {
		b = tree.AppendNumbers(b, st.refused, st.counter)
	}
	return b
}

// saved is a share as a number that is never negative.
func saved(share int32) uint64 { return uint64(int64(share) - dontCare) }

// Restore is tree.Saver's. What was counted since is not forgotten.
func (s *Subsystem) Restore(c *tree.Container, b []byte) error {
	kill, successes, failures, refused, counter := uint64(0), uint64(0), uint64(0), uint64(0), uint64(0)
	shares := [3]uint64{saved(dontCare), saved(dontCare), saved(defaultDivisor)}
	if len(b) > 0 {
		all := []*uint64{&kill, &shares[0], &shares[1], &shares[2], &successes, &failures}
		if n, err := tree.AllNumbers(b); err == nil && len(n) > len(all) {
			all = append(all, &refused, &counter)
		}
		if err := tree.Numbers(b, all...); err != nil {
			return err
		}
	}
	for _, n := range shares {
		if n > saved(1<<31-1) {
			return syscall.EINVAL
		}
	}
	s.tree.Update(func() {
		st := s.state(c)
		st.min, st.max, st.divisor = restored(shares[0]), restored(shares[1]), restored(shares[2])
		st.kill = kill != 0
		st.successes = max(st.successes, successes)
		st.failures = max(st.failures, failures)
		if st.counter == 0 {
			st.refused, st.counter = refused, counter
		}
	})
	return nil
}

func restored(n uint64) int32 { return int32(int64(n) + dontCare) }
