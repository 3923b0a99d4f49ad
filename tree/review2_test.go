package tree_test

import (
	"fmt"
	"testing"

	"containerfs/tree"
)

// An audit runs while attaches lead to groups that have no directory yet. For -race.
func TestReviewAuditBesideNewGroups(t *testing.T) {
	f, _, _, root, _, _ := moves(t, true)
	p := f.host.Fork(1)
	f.Drain()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a := f.Auditor()
		for range 200 {
			a.Audit(1 << 40)
		}
	}()
	for i := range 100 {
		c := f.mkdir(root, fmt.Sprint("n", i))
		if err := f.Attach(tree.AttachRequest{To: c, ID: p}); err != nil {
			t.Error(err)
		}
	}
	<-done
}

// The end of the first is told with the number of who executes (Linux 5.8), while both are moved.
func TestReviewSwapDuringAMove(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	b := f.host.Thread(p)
	f.attach(y, b)
	f.Drain()
	moves := 0
	f.host.During = func(int32) {
		if moves++; moves == 2 {
			f.host.Exec(b)
			f.host.Lose()
			f.Exit(b)
			f.Exec(p)
		}
	}
	if err := f.Attach(tree.AttachRequest{To: x, ID: p, Process: true}); err != nil {
		t.Error(err)
	}
	if err := f.CheckMirror(f.host.TIDs()); err != nil {
		t.Error(err)
	}
	f.wantTasks(y, p)
	f.wantTasks(x, p)
}
