package ops

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestRuleStats: each line has what it did, and placements are counted by how long
// they took, each once.
func TestRuleStats(t *testing.T) {
	r := newRuled(t, 100, "\n1000 m x create\n1000 n y create\n")
	r.subs[1].canAttach = syscall.ENOSPC
	r.c.Start(false)
	r.exec(r.fork(1000), "/a")
	r.exec(r.fork(1000), "/a")
	r.settle()
	s := r.fs.RuleStats()
	if want := []RuleCount{{2, 2, 0}, {3, 2, 2}}; !slices.Equal(s.Lines, want) {
		t.Errorf("lines are %v, want %v", s.Lines, want)
	}
	if s.Placed != 2 || s.Waiting != 0 || s.Overflows != 0 {
		t.Errorf("%+v", s)
	}

	waited, last := s.Waited, s.Within[len(s.Within)-1].Less
	for _, d := range []time.Duration{1<<14 - 1, 1 << 14, 3 << 20, last - 1, last, time.Hour} {
		r.c.placed.add(d)
		waited += d
	}
	before, s := s, r.fs.RuleStats()
	if s.Placed != 8 || s.Waited != waited {
		t.Errorf("%d placements in %v, want 8 in %v", s.Placed, s.Waited, waited)
	}
	for i, n := range s.Within {
		want := uint64(0)
		for _, d := range []time.Duration{1<<14 - 1, 1 << 14, 3 << 20, last - 1} {
			if d < n.Less {
				want++
			}
		}
		if got := n.Count - before.Within[i].Count; got != want {
			t.Errorf("%d took less than %v, want %d", got, n.Less, want)
		}
		if i > 0 && n.Less != 2*s.Within[i-1].Less {
			t.Errorf("%v is after %v", n.Less, s.Within[i-1].Less)
		}
	}

	// Rules that are read anew begin at 0, and placements go on.
	set := r.c.set.Load().file
	r.fs.SetRules(set, nil)
	if s := r.fs.RuleStats(); s.Placed != 8 || !slices.Equal(s.Lines, []RuleCount{{2, 0, 0}, {3, 0, 0}}) {
		t.Errorf("after a reload: %+v", s)
	}
}
