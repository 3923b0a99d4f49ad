package tree_test

import (
	"syscall"
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

// TestExitingForGood: who has left the mirror on its way out, and does not come to its end, is
// in no container any more when that is long overdue, and its end is nobody else's when it is
// told.
func TestExitingForGood(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p, other := f.host.Fork(1), f.host.Fork(1)
	f.attach(c, p)
	f.attach(c, other)
	f.host.Exiting(p)
	f.host.Steal(p, 0)
	a := f.Auditor()
	a.Audit(time.Second)
	f.wantTasks(c, p, other)
	time.Sleep(tree.ExitDue)
	a.Audit(time.Second)
	f.wantTasks(c, other)
	f.wantTasks(root, 1)
	f.host.Exit(p)
	f.Drain()
	f.wantTasks(c, other)
	f.wantTasks(root, 1)
}

// TestExitBetweenLookAndAdoption: a task that the model lacks, which somebody has looked up,
// ends, and its exit is told, before it is taken in. It does not stay, also where nobody
// waits for it and its number stays in use.
func TestExitBetweenLookAndAdoption(t *testing.T) {
	for _, test := range []struct{ mirror, others, audit bool }{
		{mirror: false},
		{mirror: true}, // which nobody asks while all are in the root group
		{mirror: true, others: true},
		{mirror: true, others: true, audit: true},
	} {
		f, _, _, root, c, d := moves(t, test.mirror)
		if test.others {
			f.attach(d, f.host.Fork(1))
		}
		f.Drain()
		p := f.host.Fork(1)
		f.host.Lose()
		f.host.Looked = func(tid int32) {
			if tid == p {
				f.host.Looked = nil
				f.host.Zombie(p)
				f.host.Drain()
			}
		}
		if test.audit {
			f.host.Steal(p, 99)
			if n := f.Auditor().Audit(time.Second); n != 0 {
				t.Errorf("%d were put right, want none", n)
			}
		} else {
			f.wantErrno(f.move(c, p), syscall.ESRCH)
		}
		if f.host.Looked != nil {
			t.Fatal("nobody looked at it")
		}
		f.wantTasks(root, 1)
		f.wantTasks(c)
	}
}
