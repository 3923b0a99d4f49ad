package tree_test

import (
	"testing"
	"testing/synctest"

	"containerfs/tree"
)

func TestReviewExecOfWhoIsThere(t *testing.T) {
	for _, third := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, true, plain("a"), plain("b"))
			x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
			p := f.host.Fork(1)
			if third {
				f.host.Thread(p)
			}
			b := f.host.Thread(p)
			f.attach(x, b)
			f.attach(y, b)
			f.Drain()
			f.before("move", func() {
				f.host.HoldExecs()
				f.host.Exec(b)
			})
			err := f.Attach(tree.AttachRequest{To: x, ID: p, Process: true})
			t.Log(err)
			f.host.ReleaseExecs()
			f.wantTasks(y, p)
			f.wantTasks(x, p)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReviewExecOfTheFirstWhereAnotherIsThere(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	x := f.mkdir(f.mount(1, ""), "x")
	p := f.host.Fork(1)
	b := f.host.Thread(p)
	f.attach(x, b)
	f.Drain()
	f.host.During = func(int32) {
		f.host.During = nil
		f.host.HoldExits()
		f.host.Exec(p)
	}
	defer f.host.ReleaseExits()
	if err := f.Attach(tree.AttachRequest{To: x, ID: p, Process: true}); err != nil {
		t.Error(err)
	}
	f.wantTasks(x, p)
}
