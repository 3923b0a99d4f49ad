package bc

import (
	"testing"

	"containerfs/tree/hostsim"
)

// TestNumberOfAnother: a process that has got a member's number while rlimits are set keeps its
// own, whenever that was.
func TestNumberOfAnother(t *testing.T) {
	for name, late := range map[string]bool{"of one to come": false, "of the one": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, everything)
			a := f.mkdir(f.root, "a")
			members := []int32{f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)}
			for _, tid := range members {
				f.attach(a, tid)
			}
			var other int32
			reuse := func(tid int32) {
				f.host.beforeSet, f.host.afterSet = nil, nil
				if other = members[0]; (other == tid) != late {
					other = members[1]
				}
				f.sim.ExitAtOnce(other)
				f.sim.ForkAs(hostsim.InitTID, other)
				f.setRlimit(other, numfile, 700, 800)
			}
			if late {
				f.host.beforeSet = reuse
			} else {
				f.host.afterSet = reuse
			}
			f.limit(a, numfile, 5)
			if other == 0 {
				t.Fatal("no number was used again")
			}
			for _, tid := range members {
				if tid == other {
					f.wantRlimit(tid, numfile, 700, 800)
				} else {
					f.wantRlimit(tid, numfile, 5, 5)
				}
			}
		})
	}
}
