package tree_test

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"containerfs/tree"
)

// TestOverdueExit: a task that the host does not show any more stays for as long as its exit
// can still be told, and not longer: the look at the mirror removes it. Told after all, it is
// nobody's.
func TestOverdueExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, root, c, _ := moves(t, true)
		p, q := f.host.Fork(1), f.host.Fork(1)
		f.attach(c, p)
		f.attach(c, q)
		a := f.Auditor()
		f.host.HoldExits()
		f.host.Exit(p)
		f.wantAudit(a, 0)
		f.wantAudit(a, 0)
		f.wantTasks(c, p, q)
		f.host.ReleaseExits()
		f.wantTasks(c, q)

		f.host.HoldExits()
		f.host.Exit(q)
		f.wantAudit(a, 0)
		time.Sleep(tree.ExitDue)
		f.wantAudit(a, 1)
		f.wantTasks(c)
		again := f.host.ForkAs(1, q)
		f.attach(c, again)
		f.host.ReleaseExits()
		f.wantTasks(c, again)
		f.host.Exit(again)
		f.wantTasks(c)
		f.wantTasks(root, 1)
	})
}

// TestOverdueExec: a thread that executes a program has its process's number before
// that is told. That its own is not shown any more does not make it disappear.
func TestOverdueExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, root, c, _ := moves(t, true)
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		f.attach(c, thread)
		a := f.Auditor()
		f.host.HoldExecs()
		f.host.Exec(thread)
		f.wantAudit(a, 0)
		time.Sleep(tree.ExitDue)
		f.wantAudit(a, 1)
		f.wantTasks(c, p)
		f.host.ReleaseExits()
		f.host.ReleaseExecs()
		f.wantTasks(c, p)
		f.wantTasks(root, 1)
	})
}

// TestRmdirWhileAThreadExecutes: nor does rmdir take the container of one for empty, whether
// the end of the first thread, which it replaces, is told before that or after.
func TestRmdirWhileAThreadExecutes(t *testing.T) {
	for _, mirror := range []bool{false, true} {
		for _, late := range []bool{false, true} {
			if late && !mirror {
				continue // then nobody can know
			}
			f, _, _, root, c, _ := moves(t, mirror)
			p := f.host.Fork(1)
			thread := f.host.Thread(p)
			f.attach(c, thread)
			f.host.HoldExecs()
			if late {
				f.host.HoldExits()
			}
			f.host.Exec(thread)
			f.wantErrno(f.Rmdir(c, nil), syscall.EBUSY)
			f.host.ReleaseExits()
			f.host.ReleaseExecs()
			f.wantTasks(c, p)
			f.wantTasks(root, 1)
		}
	}
}

// TestExitOfTheFirstThreadBetweenLookAndRemoval: that the first thread was all that was seen of a
// process is no exec if it has ended since, and others live.
func TestExitOfTheFirstThreadBetweenLookAndRemoval(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, others := range []bool{false, true} {
			f, _, _, root, c, d := moves(t, mirror)
			p := f.host.Fork(1)
			ended := f.host.Thread(p)
			f.attach(c, ended)
			var living []int32
			if others {
				living = append(living, f.host.Thread(p))
				f.attach(d, living[0])
			}
			f.Drain()
			f.host.HoldExits()
			f.host.Exit(ended)
			f.host.Looked = func(id int32) {
				if id == p {
					f.host.Looked = nil
					f.host.ExitAtOnce(p)
					f.host.Drain()
				}
			}
			f.removeGone(ended)
			if f.host.Looked != nil {
				t.Error("nobody looked at the process")
			}
			f.wantTasks(c)
			f.host.ReleaseExits()
			f.wantTasks(d, living...)
			f.wantTasks(root, 1)
		}
	})
}

// firstFoundGone makes a process whose first thread is ending for another, which is in d, and was
// found to be gone before its exit is told.
func firstFoundGone(t *testing.T, mirror bool) (f *fixture, root, d *tree.Container, p, thread int32) {
	f, _, _, root, c, d := moves(t, mirror)
	p = f.host.Fork(1)
	thread = f.host.Thread(p)
	f.attach(c, p)
	f.attach(d, thread)
	f.host.HoldExits()
	f.host.Exiting(p)
	if err := f.Rmdir(c, nil); err != nil {
		t.Fatal(err)
	}
	return f, root, d, p, thread
}

// TestLateExitOfTheFirstThread: it was found to be gone before its exit is told, and by then
// its number is that of a thread that has executed a program, of which was told or not.
func TestLateExitOfTheFirstThread(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, told := range []bool{false, true} {
			f, root, d, p, thread := firstFoundGone(t, mirror)
			if !told {
				f.host.HoldExecs()
			}
			f.host.Exec(thread)
			f.wantErrno(f.Rmdir(d, nil), syscall.EBUSY)
			f.wantTasks(d, p)
			f.host.ReleaseExits()
			f.host.ReleaseExecs()
			f.wantTasks(d, p)
			f.wantTasks(root, 1)
		}
	})
}

// TestLateExitOfTheFirstThreadBeforeTheExec: the same, and that number's exit is told before the
// exec.
func TestLateExitOfTheFirstThreadBeforeTheExec(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, root, d, p, thread := firstFoundGone(t, mirror)
		f.host.HoldExecs()
		f.host.Exec(thread)
		f.host.ReleaseExits()
		f.wantTasks(d, p)
		f.host.ReleaseExecs()
		f.wantTasks(d, p)
		f.wantTasks(root, 1)
	})
}

// TestFirstThreadFoundGoneBeforeTheExec: so was the first one, when the other gave up its own
// number, in whichever order they are taken away.
func TestFirstThreadFoundGoneBeforeTheExec(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, last := range []bool{false, true} {
			f, _, _, root, c, _ := moves(t, mirror)
			p := f.host.Fork(1)
			thread := f.host.Thread(p)
			f.attach(c, p)
			f.attach(c, thread)
			f.host.HoldExits()
			f.host.HoldExecs()
			f.host.Exec(thread)
			if last {
				f.removeGone(thread, p)
			} else {
				f.removeGone(p, thread)
			}
			f.wantTasks(c, p)
			f.host.ReleaseExits()
			f.host.ReleaseExecs()
			f.wantTasks(c, p)
			f.wantTasks(root, 1)
		}
	})
}

// TestFirstThreadEndsToldBetweenLookAndRemoval: the first thread was taken for the one that is
// shown, and is not: that one has executed a program.
func TestFirstThreadEndsToldBetweenLookAndRemoval(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		f.attach(c, thread)
		f.host.HoldExits()
		f.host.HoldExecs()
		f.host.Exec(thread)
		f.host.Looked = func(id int32) {
			if id == p {
				f.host.Looked = nil
				f.host.ReleaseExits()
				f.host.Drain()
			}
		}
		f.removeGone(thread)
		f.host.ReleaseExecs()
		f.wantTasks(c, p)
		f.wantTasks(root, 1)
	})
}

// removeGone is RemoveGone for tasks under the numbers that they have.
func (f *fixture) removeGone(tids ...int32) {
	f.Change(func() error {
		var entries []tree.Entry
		f.View(func() {
			for _, tid := range tids {
				entries = append(entries, f.Task(tid).Entry())
			}
		})
		f.RemoveGone(entries...)
		return nil
	})
}

// TestExecAfterALateExit: a thread that has just ended, late to be told, has executed nothing: the
// process's first thread still has an exit of its own.
func TestExecAfterALateExit(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, d := moves(t, mirror)
		p := f.host.Fork(1)
		runs, ended := f.host.Thread(p), f.host.Thread(p)
		f.attach(c, runs)
		f.attach(d, ended)
		f.host.HoldExits()
		f.host.Exit(ended)
		if err := f.Rmdir(d, nil); err != nil {
			t.Fatal(err)
		}
		f.host.ReleaseExits()
		f.Drain()
		f.host.Exec(runs)
		f.wantTasks(c, p)
		f.wantTasks(root, 1)
	})
}

// TestEndOfAThreadWhoseFirstIsUnknown: a first thread that the model lacks, since the event of
// its fork was lost, is no thread that has executed a program. Without a mirror that is not
// known before the resync that follows a loss.
func TestEndOfAThreadWhoseFirstIsUnknown(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, d := moves(t, mirror)
		f.attach(d, f.host.Fork(1))
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		f.host.Lose()
		f.attach(c, thread)
		f.host.HoldExits()
		f.host.Exit(thread)
		if mirror {
			if err := f.Rmdir(c, nil); err != nil {
				t.Error(err)
			}
			f.wantTasks(root, 1, p)
		} else {
			f.wantErrno(f.Rmdir(c, nil), syscall.EBUSY)
			f.host.ReleaseExits()
		}
		f.resync()
	})
}

// TestFailedExec: a program that cannot be loaded ends its process when the thread that
// executes it has the process's number already: all that is told of that thread is that the
// number ends, as it has once before.
func TestFailedExec(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, late := range []bool{false, true} {
			f, _, _, root, c, d := moves(t, mirror)
			p := f.host.Fork(1)
			thread, other := f.host.Thread(p), f.host.Thread(p)
			f.attach(c, p)
			f.attach(d, thread)
			f.attach(c, other)
			if late {
				f.host.HoldExits()
			}
			f.host.FailExec(thread)
			if late {
				f.host.ReleaseExits()
			}
			f.wantTasks(c)
			f.wantTasks(d)
			f.wantTasks(root, 1)
		}
	})
}

// TestFirstThreadEndsUnknown: where the model lacks the first thread, the end of that number is not
// the end of all.
func TestFirstThreadEndsUnknown(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, _, c, d := moves(t, mirror)
		f.attach(d, f.host.Fork(1))
		p := f.host.Fork(1)
		thread, other := f.host.Thread(p), f.host.Thread(p)
		f.host.Lose()
		f.attach(c, thread)
		f.attach(c, other)
		f.host.Exit(p)
		f.wantTasks(c, thread, other)
	})
}

func (f *fixture) wantAudit(a *tree.Auditor, want int) {
	f.t.Helper()
	if n := a.Audit(time.Second); n != want {
		f.t.Errorf("%d were put right, want %d", n, want)
	}
}

// TestRmdirWhileAFirstThreadIsReplaced: rmdir looks at the first thread when it has ended, and
// at another when that has executed a program and has its number. The exec is told, the end is
// not: what was seen of the number is not true any more.
func TestRmdirWhileAFirstThreadIsReplaced(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		f.attach(c, thread)
		f.attach(c, p) // is looked at first
		f.Drain()
		f.host.HoldExits()
		f.host.Exiting(p)
		looks := 0
		f.host.Looked = func(id int32) {
			if looks++; id == p && looks == 2 { // at the thread, and at the process's
				f.host.Exec(thread)
			}
		}
		if err := f.Rmdir(c, nil); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("rmdir: %v", err)
		}
		f.host.Looked = nil
		f.host.ReleaseExits()
		f.Drain()
		f.wantTasks(root, 1)
		f.wantTasks(c, p)
	})
}

// TestNumberUsedAgainIsNoExec: where the number of an overdue process is another's by now,
// that is not taken for a thread of its own that has executed.
func TestNumberUsedAgainIsNoExec(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		f.attach(c, p)
		f.host.HoldExits()
		f.host.Exit(p)
		f.host.ForkAs(1, p)
		if err := f.Rmdir(c, nil); err != nil {
			t.Errorf("rmdir: %v", err)
		}
		f.host.ReleaseExits()
		f.Drain()
		f.wantTasks(root, 1, p)
	})
}

// TestBlind: that the host cannot be looked at makes nobody gone.
func TestBlind(t *testing.T) {
	for _, mirror := range []bool{false, true} {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		f.attach(c, p)
		f.host.Blind = syscall.EMFILE
		if err := f.Rmdir(c, nil); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("mirror %v: rmdir: %v, want EBUSY", mirror, err)
		}
		f.host.Blind = nil
		f.wantTasks(c, p)

		// The end of one that had the number before is owed.
		f.host.HoldExits()
		f.host.Exit(p)
		if err := f.Rmdir(c, nil); err != nil {
			t.Fatal(err)
		}
		f.host.ForkAs(1, p)
		f.Drain()
		f.host.Blind = syscall.EMFILE
		f.host.ReleaseExits()
		f.Drain()
		f.host.Blind = nil
		f.wantTasks(root, 1, p)
	}
}
