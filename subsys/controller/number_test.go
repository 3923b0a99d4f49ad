package controller

import (
	"fmt"
	"os"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
	"containerfs/tree/kernfs"
)

// TestNumberOfAnother: a task that has got the number of one that is moved, while others of its
// process are, stays where it was forked, whenever that was.
func TestNumberOfAnother(t *testing.T) {
	for name, late := range map[string]bool{"of one to come": false, "of the one": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{Names: []string{"pids"}, ID: fmt.Sprintf("test-n%d", os.Getpid())})
			trunk := b.subs[0].t
			simulate(trunk, b.sim)
			a := b.mkdir(b.root, "a")
			p := b.sim.Fork(hostsim.InitTID)
			threads := []int32{b.sim.Thread(p), b.sim.Thread(p)}
			var other int32
			reuse := func(tid int32) {
				for _, other = range threads {
					if (other == tid) == late {
						break
					}
				}
				b.sim.ExitAtOnce(other)
				b.sim.ForkAs(hostsim.InitTID, other)
			}
			move := trunk.move
			trunk.move = func(dir *kernfs.Dir, id int32) error {
				now := other == 0 && (!late || id != p)
				if now && late {
					reuse(id)
				}
				err := move(dir, id)
				if now && !late {
					reuse(id)
				}
				return err
			}
			if err := b.Attach(tree.AttachRequest{Actor: &tree.Actor{Privileged: true}, To: a, ID: p, Process: true}); err != nil {
				t.Fatal(err)
			}
			if other == 0 {
				t.Fatal("no number was used again")
			}
			for _, tid := range append(threads, p) {
				at, err := trunk.where(tid)
				if err != nil || (at == "/") != (tid == other) {
					t.Errorf("%d is in %s, %v; the number of another is %d", tid, at, err, other)
				}
			}
			if err := b.attach(b.root, p); err != nil {
				t.Fatal(err)
			}
		})
	}
}
