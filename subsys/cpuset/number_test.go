package cpuset

import (
	"fmt"
	"testing"
)

// TestNumberOfAnother: a task that has got a member's number while masks are set keeps its own
// mask, whenever that was.
func TestNumberOfAnother(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(f *fixture, members []int32) error
	}{
		{"write", func(f *fixture, _ []int32) error { return f.write("a", "cpus", "1") }},
		{"attach", func(f *fixture, members []int32) error { return f.attachProcess(members[0], "b") }},
	} {
		for i := range 4 {
			late, prompt := i%2 == 1, i >= 2
			t.Run(fmt.Sprintf("%s, late %v, prompt %v", tt.name, late, prompt), func(t *testing.T) {
				bothModes(t, func(t *testing.T, f *fixture) {
					f.prompt = prompt
					f.made("a", "0-1", "0")
					f.made("b", "1", "0")
					p := f.fork(initTID)
					members := []int32{p, f.thread(p), f.thread(p)}
					f.ok(f.attachProcess(p, "a"))
					var other int32
					reuse := func(tid int32) {
						f.machine.beforeSet, f.machine.afterSet = nil, nil
						for _, other = range members[1:] {
							if (other == tid) == late {
								break
							}
						}
						f.sim.ExitAtOnce(other)
						f.inherit(initTID, f.sim.ForkAs(initTID, other))
					}
					if late {
						f.machine.beforeSet = func(tid int32) {
							if tid != p {
								reuse(tid)
							}
						}
					} else {
						f.machine.afterSet = reuse
					}
					f.ok(tt.do(f, members))
					if other == 0 {
						t.Fatal("no number was used again")
					}
					f.mask(other, "0-3")
					f.mask(p, "1")
				})
			})
		}
	}
}
