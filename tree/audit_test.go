package tree_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"containerfs/tree"
)

// TestAuditor: what others have moved is found a css group at a time, each in its turn,
// and a group that took long is made up for by calls that do nothing.
func TestAuditor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, root, c, d := moves(t, true)
		p, q, r := f.host.Fork(1), f.host.Fork(1), f.host.Fork(1)
		f.attach(c, p)
		f.attach(d, q)
		gc, _ := f.host.Group(p)
		gd, _ := f.host.Group(q)
		slow := time.Duration(0)
		f.host.Look = func(int32) { time.Sleep(slow) }
		a := f.Auditor()
		f.host.Steal(r, 99) // nobody's
		f.host.Steal(p, gd)
		f.host.Steal(q, gc)
		if n := a.Audit(time.Millisecond); n != 3 {
			t.Fatalf("a round that takes no time puts %d right, want 3", n)
		}
		f.wantTasks(root, 1, r)
		f.wantTasks(c, q)
		f.wantTasks(d, p)

		f.host.Steal(r, 99)
		f.host.Steal(p, 0)
		f.host.Steal(q, 0)
		slow = 50 * time.Millisecond
		const allowed = 20 * time.Millisecond
		began := time.Now()
		var all time.Duration
		for _, want := range []int{2, 1} { // what is nobody's, and c's; then d's
			n := 0
			for n == 0 {
				if all > time.Second {
					t.Fatalf("%d are not found", want)
				}
				all += allowed
				before := time.Now()
				n = a.Audit(allowed)
				if looked := time.Since(before); n == 0 && looked > 0 || n > 0 && before.Sub(began) >= all {
					t.Errorf("looked for %v, when %v had been used of %v", looked, before.Sub(began), all)
				}
			}
			if n != want {
				t.Errorf("%d were put right, want %d", n, want)
			}
		}
		slow = 0
		f.wantTasks(root, 1, p, q, r)
		f.wantTasks(c)
		f.wantTasks(d)
	})
}

// TestAuditReleases: what somebody else has moved the last task out of is releasable, as what the
// last has left.
func TestAuditReleases(t *testing.T) {
	f, _, _, _, c, _ := moves(t, true)
	p, q := f.host.Fork(1), f.host.Fork(1)
	f.attach(c, p)
	f.attach(c, q)
	f.Update(func() { c.SetNotifyOnRelease(true) })
	for _, tid := range []int32{p, q} {
		f.View(func() {
			if c.Releasable() {
				t.Error("somebody is left, and it is releasable")
			}
		})
		f.host.Steal(tid, 0)
		f.Audit()
	}
	f.View(func() {
		if !c.Releasable() {
			t.Error("the last was moved away by somebody else, and it is not releasable")
		}
	})
}

// TestAuditorGoesBack: a task that was seen where it has no business does not wait for
// the next round.
func TestAuditorGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, root, c, _ := moves(t, true)
		r := f.host.Fork(1)
		p := f.host.Fork(r) // elsewhere: the mirror is asked where others that it forks are
		f.attach(c, p)
		slow := 50 * time.Millisecond
		f.host.Look = func(int32) { time.Sleep(slow) }
		a := f.Auditor()
		f.host.Steal(r, 99)
		if n := a.Audit(time.Millisecond); n != 1 {
			t.Fatalf("%d were put right, want 1", n)
		}
		slow = 0
		f.host.Steal(r, 99)
		k := f.host.Fork(r)
		f.Drain()
		if !f.Strayed() {
			t.Fatal("nobody has seen it")
		}
		// What is seen there after the look is for the next one.
		var late, later int32
		f.host.Listed = func(group uint64) {
			if group == tree.ForeignGroup && late == 0 {
				late = f.host.Fork(r)
				f.host.Steal(late, 98)
				later = f.host.Fork(late)
				f.Drain()
			}
		}
		if n := a.Audit(time.Nanosecond); n < 2 { // in spite of what it owes
			t.Errorf("%d were put right, want 2 and what it saw of the others", n)
		}
		if late == 0 || !f.Strayed() {
			t.Error("what came late is forgotten")
		}
		a.Audit(time.Nanosecond)
		if f.Strayed() {
			t.Error("strayed after Audit")
		}
		f.wantTasks(root, 1, r, k, late, later)
		if _, err := f.host.Mirror().Where(later); err != nil {
			t.Error(err)
		}
	})
}

// TestTaskInTheDirectoryOfARemovedContainer: somebody moved it there, or its forker, and it goes
// back to the root.
func TestTaskInTheDirectoryOfARemovedContainer(t *testing.T) {
	f, _, _, root, c, d := moves(t, true)
	p, q := f.host.Fork(1), f.host.Fork(1)
	f.attach(c, p)
	f.attach(d, q)
	left, _ := f.host.Group(p)
	f.attach(d, p)
	if err := f.Rmdir(c, nil); err != nil {
		t.Fatal(err)
	}
	f.host.Steal(p, left)
	k, l := f.host.Fork(p), f.host.CloneParent(p) // 1 has children elsewhere: the mirror is asked
	f.Drain()
	if n := f.Audit(); n == 0 {
		t.Error("nothing is put right")
	}
	f.wantTasks(d, q)
	f.wantTasks(root, 1, p, k, l)
}

// TestChangesGoOnDuringAnAudit: a look at a css group of many tasks takes long, and who moves
// one meanwhile does not wait for it. What seems to differ then does not.
func TestChangesGoOnDuringAnAudit(t *testing.T) {
	f, _, _, root, c, d := moves(t, true)
	p, q, r := f.host.Fork(1), f.host.Fork(1), f.host.Fork(1)
	for _, tid := range []int32{p, q, r} {
		f.attach(c, tid)
	}
	f.host.Steal(r, 0)
	moved := make(chan error, 1)
	f.host.Listed = func(group uint64) {
		if group == tree.ForeignGroup {
			return
		}
		f.host.Listed = nil
		go func() { moved <- f.Attach(tree.AttachRequest{To: d, ID: p}) }()
		select {
		case err := <-moved:
			moved <- err
		case <-time.After(10 * time.Second):
			t.Error("an attach waits for the end of the look")
		}
	}
	if n := f.Audit(); n != 1 {
		t.Errorf("%d tasks put right, want 1", n)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, q)
	f.wantTasks(d, p)
	f.wantTasks(root, 1, r)
}

// An audit runs while attaches lead to groups that have no directory yet. For -race.
func TestAuditBesideNewGroups(t *testing.T) {
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
