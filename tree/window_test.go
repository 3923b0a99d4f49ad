package tree_test

import (
	"slices"
	"syscall"
	"testing"

	"containerfs/tree"
)

// lookOnce calls do at the nth look at a task from now on.
func (f *fixture) lookOnce(nth int, do func()) {
	f.host.Look = func(int32) {
		if nth--; nth == 0 {
			do()
		}
	}
	f.t.Cleanup(func() { f.host.Look = nil })
}

// looked calls do once, after the nth look at a task from now on.
func (f *fixture) looked(nth int, do func()) {
	f.host.Looked = func(int32) {
		if nth--; nth == 0 {
			f.host.Looked = nil
			do()
		}
	}
}

// TestTaskThatEndsBeforeItIsKnown: its exit was told when the model had no such task.
func TestTaskThatEndsBeforeItIsKnown(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, again := range []bool{false, true} {
			f, _, _, root, c, _ := moves(t, mirror)
			p := f.host.Fork(1)
			f.host.Lose() // the model learns of it by the attach
			want := []int32{1}
			f.looked(2, func() { // the first is a glance
				f.host.Exit(p)
				f.host.Drain()
				if again {
					f.host.ForkAs(1, p)
					want = append(want, p)
				}
			})
			f.wantErrno(f.move(c, p), syscall.ESRCH)
			f.wantTasks(c)
			f.wantTasks(root, want...)
		}
	})
}

func TestForkAfterTheSplitIsInTheNewContainer(t *testing.T) {
	f, _, _, root, c, _ := moves(t, false)
	p := f.host.Fork(1)
	var k int32
	f.lookOnce(2, func() { k = f.host.Fork(p); f.host.Drain() }) // as verify looks
	f.attach(c, p)
	f.wantTasks(c, p, k)
	f.wantTasks(root, 1)

	// A thread's event names the parent of its process.
	f.lookOnce(2, func() { k = f.host.Thread(p); f.host.Drain() })
	f.attach(root, p)
	f.wantTasks(root, 1, p, k)
}

// TestExecAfterTheSplit is behind the fork of who executes.
func TestExecAfterTheSplit(t *testing.T) {
	f, _, _, root, c, _ := moves(t, false)
	p := f.host.Fork(1)
	var k int32
	f.lookOnce(2, func() {
		k = f.host.Fork(p)
		f.host.Exec(f.host.Thread(k))
		f.host.Drain()
	})
	f.attach(c, p)
	f.wantTasks(c, p, k)
	f.wantTasks(root, 1)
}

func TestRmdirWaitsForTheForkOfAMemberThatEndsMeanwhile(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, _, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		f.attach(c, p)
		var k int32
		f.lookOnce(1, func() { k = f.host.Fork(p); f.host.Exit(p) })
		f.wantErrno(f.Rmdir(c, nil), syscall.EBUSY)
		f.wantTasks(c, k)
	})
}

func TestSweepKeepsTheGroupOfAChildNotYetKnown(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	f.attach(c, p)
	g, _ := f.host.Group(p)
	f.attach(root, p)
	k := f.host.Fork(p)
	f.Drain()
	f.host.Steal(k, g) // somebody moved it there; the model has none in the group
	f.Sweep(0)
	if !slices.Contains(f.host.Groups(), g) {
		t.Error("the directory of a task is gone")
	}
	if n := f.Audit(); n != 1 {
		t.Errorf("%d tasks put right, want 1", n)
	}
	f.wantTasks(c, k)
}

func TestOrphanKnownByALookIsItsReapersChild(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	reaper := f.host.Fork(1)
	p := f.host.Fork(1)
	f.host.Lose() // the model learns of them by the attach
	f.attach(c, p)
	f.Drain()
	k := f.host.CloneParent(p) // names 1, in the root
	f.wantTasks(c, p, k)
	f.resync()
	f.wantTasks(root, 1, reaper)
}

func TestThreadWhoseTidIsUsedAgainDoesNotStopItsProcess(t *testing.T) {
	f, _, _, root, c, d := moves(t, true)
	other := f.host.Fork(1)
	f.attach(d, other)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	t3 := f.host.Thread(p)
	f.attach(c, t3) // so that threads are moved one by one
	f.before("move", func() { f.host.Exit(th); f.host.ForkAs(other, th) })
	if err := f.moveProcess(c, p); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, p, t3)
	f.wantTasks(d, other, th)
	f.wantTasks(root, 1)
}

func TestTaskThatEndedBeforeItsExitIsToldIsESRCH(t *testing.T) {
	f, _, _, _, c, _ := moves(t, true)
	p := f.host.Fork(1)
	f.host.HoldExits()
	f.host.During = func(int32) { f.host.Exit(p) }
	f.wantErrno(f.move(c, p), syscall.ESRCH)
	f.host.ReleaseExits()
	f.wantTasks(c)
}

func TestThreadThatExecutesBeforeItsForkIsReadIsWhereItWas(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	f.attach(c, th)
	k := f.host.Thread(th) // in c
	f.host.Exit(th)
	f.host.Exec(k)
	f.wantTasks(c, p)
	f.wantTasks(root, 1)
}

func TestChildOfAFailedAttachGetsTheOldEffectsBack(t *testing.T) {
	f, first, second, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	var k int32
	second.onAttach = func(_ *tree.Task, _, to *tree.Container) error {
		if to == c {
			k = f.host.Fork(p)
			return syscall.EINVAL
		}
		return nil
	}
	var back []int32
	first.onAttach = func(task *tree.Task, from, to *tree.Container) error {
		if from == c && to == root {
			back = append(back, task.TID())
		}
		return nil
	}
	f.wantErrno(f.move(c, p), syscall.EINVAL)
	if !slices.Equal(back, []int32{k}) {
		t.Errorf("told of %v on their way back, want %d", back, k)
	}
}

// TestEventsWaitForThoseThatAreReplayed: without a mirror, events wait for the commit of a move.
// One of them can have the host looked at, while others come: these are behind those that
// still wait, as they came.
func TestEventsWaitForThoseThatAreReplayed(t *testing.T) {
	for _, exits := range []bool{false, true} {
		f, _, _, root, c, _ := moves(t, false)
		// A thread of q's can end as its first one, a second time.
		q := f.host.Fork(1)
		thread := f.host.Thread(q)
		f.host.Exit(q)
		p := f.host.Fork(1)
		f.Drain()
		stage := 0
		var first, second, grandchild int32
		f.host.Look = func(tid int32) {
			switch {
			case stage == 0 && tid == p: // before the move
				stage = 1
			case stage == 1 && tid == p: // after it
				stage = 2
				first = f.host.Fork(p)
				f.host.FailExec(thread)
				second = f.host.Fork(p)
				f.host.Drain()
			case stage == 2 && tid == thread: // since that is replayed
				stage = 3
				if exits {
					f.host.Exit(second)
				} else {
					grandchild = f.host.Fork(second)
				}
				f.host.Drain()
			}
		}
		if err := f.Attach(tree.AttachRequest{To: c, ID: p, Process: true}); err != nil || stage != 3 {
			t.Fatalf("%v, at stage %d", err, stage)
		}
		f.host.Look = nil
		f.Drain()
		if exits {
			f.wantTasks(c, p, first)
		} else {
			f.wantTasks(c, p, first, second, grandchild)
		}
		f.wantTasks(root, 1)
	}
}
