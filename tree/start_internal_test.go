package tree

import "testing"

// A start time that is found out later does not change what tells tasks apart:
// files are named by it.
func TestStartKeepsItsTicks(t *testing.T) {
	for _, tt := range []struct{ bound, ticks uint64 }{{1000, 1000}, {1000, 999}, {1000, 900}, {1 << 40, 1<<40 - 200}} {
		s := startAtMost(tt.bound)
		if !s.is(tt.ticks) || s.is(tt.bound+1) {
			t.Errorf("bound %d: is(%d) %v, is(%d) %v", tt.bound, tt.ticks, s.is(tt.ticks), tt.bound+1, s.is(tt.bound+1))
		}
		r := s.refined(tt.ticks)
		if !r.is(tt.ticks) || r.is(tt.ticks+1) || r.is(tt.ticks-1) {
			t.Errorf("bound %d refined to %d takes another for it", tt.bound, tt.ticks)
		}
		if r.ticks() != tt.bound || r.refined(tt.ticks) != r {
			t.Errorf("bound %d refined to %d shows %d", tt.bound, tt.ticks, r.ticks())
		}
	}
	if s := startAt(7); s.ticks() != 7 || !s.is(7) || s.is(6) {
		t.Error("an exact start time is not itself")
	}
}
