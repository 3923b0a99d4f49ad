package tree_test

import (
	"testing"
	"time"

	"containerfs/tree"
)

// TestExiting: the kernel says yes to the move of a thread that has begun to exit, and does
// nothing. Until its exit is told it may be anywhere, but harms nobody: not the others
// of its process, not who looks at the mirror, and not the css groups.
func TestExiting(t *testing.T) {
	for _, process := range []bool{false, true} {
		f, _, _, root, c, d := moves(t, true)
		p := f.host.Fork(1)
		other := f.host.Thread(p)
		if process {
			other, p = p, other
		}
		f.attach(c, p)
		f.attach(c, other)
		f.host.Exiting(p)
		id := p
		if process {
			id = other
		}
		if err := f.Attach(tree.AttachRequest{To: d, ID: id, Process: process}); err != nil {
			t.Fatal(err)
		}
		if process {
			f.wantTasks(c)
		} else {
			f.wantTasks(c, other)
		}
		if n := f.Auditor().Audit(time.Second); n != 0 {
			t.Errorf("the mirror shows %d that somebody else has moved", n)
		}
		if !process { // nobody is left there
			if err := f.Rmdir(d, nil); err != nil {
				t.Errorf("rmdir, with one that is exiting: %v", err)
			}
			d = f.mkdir(root, "d")
		}
		f.host.Exit(p)
		f.Drain()
		if process {
			f.wantTasks(d, other)
		} else {
			f.wantTasks(d)
		}
		if err := f.CheckMirror(f.host.TIDs()); err != nil {
			t.Error(err)
		}
		f.host.Exit(other)
		f.Drain()
		for _, left := range []*tree.Container{c, d} {
			if err := f.Rmdir(left, nil); err != nil {
				t.Error(err)
			}
		}
		f.wantTasks(root, 1)
	}
}
