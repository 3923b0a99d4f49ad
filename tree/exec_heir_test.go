package tree_test

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
)

// Without a mirror, a thread that the move does not have yet executes a program.
func TestExecOfALateThreadWithoutMirror(t *testing.T) {
	f := newFixture(t, false, plain("a"), plain("b"))
	x := f.mkdir(f.mount(1, ""), "x")
	p := f.host.Fork(1)
	f.Drain()
	f.host.Looked = func(id int32) { // the listing of the process is over
		if id == p {
			f.host.Looked = func(int32) {
				f.host.Looked = nil
				b := f.host.Thread(p)
				f.host.HoldExecs()
				f.host.Exec(b)
			}
		}
	}
	if err := f.moveProcess(x, p); err != nil {
		t.Error(err)
	}
	f.host.ReleaseExecs()
	f.wantTasks(x, p)
}

// One thread, not the first, is moved, and executes a program then.
func TestExecOfTheOneThatMoves(t *testing.T) {
	for _, exits := range []string{"told", "held"} {
		t.Run(exits, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, true, plain("a"), plain("b"))
				x := f.mkdir(f.mount(1, ""), "x")
				p := f.host.Fork(1)
				b := f.host.Thread(p)
				f.Drain()
				f.host.During = func(int32) {
					f.host.During = nil
					f.host.HoldExecs()
					if exits == "held" {
						f.host.HoldExits()
					}
					f.host.Exec(b)
				}
				err := f.move(x, b)
				t.Log("attach:", err)
				f.host.ReleaseExits()
				f.host.ReleaseExecs()
				f.Drain()
				if err := f.CheckMirror(f.host.TIDs()); err != nil {
					t.Error(err)
				}
				if err != nil {
					if g, _ := f.host.Group(p); g != 0 {
						t.Errorf("the attach failed, and the task is in group %d of the mirror", g)
					}
					f.wantTasks(x)
				} else {
					f.wantTasks(x, p)
				}
			})
		})
	}
}

// The first thread is in the container already.
func TestExecWhereTheFirstIsThere(t *testing.T) {
	for _, step := range []string{"move", "moved"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, true, plain("a"), plain("b"))
				x := f.mkdir(f.mount(1, ""), "x")
				p := f.host.Fork(1)
				b := f.host.Thread(p)
				f.attach(x, p)
				f.Drain()
				executes := func() {
					f.host.HoldExecs()
					f.host.Exec(b)
				}
				f.at(step, executes)
				err := f.moveProcess(x, p)
				f.host.ReleaseExecs()
				f.Drain()
				if cerr := f.CheckMirror(f.host.TIDs()); cerr != nil {
					t.Error(cerr)
				}
				if err != nil {
					t.Errorf("the process was not moved: %v", err)
				}
				f.wantTasks(x, p)
			})
		})
	}
}

// A third thread has ended, and its exit is not told; who executes is in y.
func TestExecWithAnotherLeft(t *testing.T) {
	for _, order := range []bool{true, false} { // of who is listed first
		for range 10 {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, true, plain("a"), plain("b"))
				x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
				p := f.host.Fork(1)
				var a, b int32
				if order {
					a, b = f.host.Thread(p), f.host.Thread(p)
				} else {
					b, a = f.host.Thread(p), f.host.Thread(p)
				}
				f.attach(y, b)
				f.Drain()
				var did []int32
				f.host.During = func(tid int32) {
					did = append(did, tid)
					if !slices.Contains(did, p) || !slices.Contains(did, b) {
						return // else the first one's move would be b's: nobody knows then who it was
					}
					f.host.During = nil
					f.host.HoldExits()
					f.host.Exit(a)
					f.host.ExitAtOnce(p)
					f.host.HoldExecs()
					f.host.Exec(b)
				}
				err := f.moveProcess(x, p)
				t.Logf("order %v: %v, %v", order, did, err)
				f.host.ReleaseExits()
				f.host.ReleaseExecs()
				f.Drain()
				if err := f.CheckMirror(f.host.TIDs()); err != nil {
					t.Error(err)
				}
				f.wantTasks(y, p)
				if err == nil {
					f.wantTasks(x, p)
				}
			})
		}
	}
}

// What a thread forks that was taken for one that executes, and then moved with the others.
func TestChildOfTheLateOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, true, plain("a"), plain("b"))
		x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
		p := f.host.Fork(1)
		a := f.host.Thread(p)
		f.attach(y, a)
		f.Drain()
		var b, k int32
		first := true
		f.before("move", func() { b = f.host.Thread(p) }) // which the move does not know yet
		n := 0
		f.host.During = func(tid int32) {
			n++
			if first && tid == p {
				first = false
				f.host.HoldExecs()
				f.host.Exec(b)
				return
			}
			if tid == p && k == 0 && !first {
				if g, _ := f.host.Group(p); g != 0 {
					f.host.ReleaseExecs()
					k = f.host.Fork(p) // after it was moved
					t.Log("forked in", g)
				}
			}
		}
		err := f.moveProcess(x, p)
		t.Log(err, n, k)
		f.host.ReleaseExecs()
		f.Drain()
		if err := f.CheckMirror(f.host.TIDs()); err != nil {
			t.Error(err)
		}
		f.wantTasks(x, p, k)
	})
}

// The end of the first is told with the number of who executes, before that of a third.
func TestSwappedExitBeforeAnother(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	y := f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	a, b := f.host.Thread(p), f.host.Thread(p)
	f.attach(y, b)
	f.Drain()
	f.host.HoldExits()
	f.host.Exec(b)
	f.host.Lose()
	f.Exit(b) // in truth the first one's
	f.Exit(a)
	f.Exec(p)
	if err := f.CheckMirror(f.host.TIDs()); err != nil {
		t.Error(err)
	}
	f.wantTasks(y, p)
}

// The end of the first is told with the number of who executes (Linux 5.8), while both are moved.
func TestSwapDuringAMove(t *testing.T) {
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
	if err := f.moveProcess(x, p); err != nil {
		t.Error(err)
	}
	if err := f.CheckMirror(f.host.TIDs()); err != nil {
		t.Error(err)
	}
	f.wantTasks(y, p)
	f.wantTasks(x, p)
}

func TestExecOfWhoIsThere(t *testing.T) {
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
			err := f.moveProcess(x, p)
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

func TestExecOfTheFirstWhereAnotherIsThere(t *testing.T) {
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
	if err := f.moveProcess(x, p); err != nil {
		t.Error(err)
	}
	f.wantTasks(x, p)
}

// The end of the first is told with the number of who executes a program, which is long in being
// loaded: the mirror is asked at once who is left, and where.
func TestSwappedExitOfALongExec(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	x, y := f.mkdir(root, "x"), f.mkdir(root, "y")
	p := f.host.Fork(1)
	b := f.host.Thread(p)
	f.attach(x, p)
	f.attach(y, b)
	f.Update(func() { x.SetNotifyOnRelease(true) })
	f.host.HoldExecs()
	f.host.Swap = true
	f.host.Exec(b)
	f.wantTasks(x)
	f.wantTasks(y, p)
	f.View(func() {
		if !x.Releasable() {
			t.Error("the end of the last in x has not made it releasable")
		}
	})
	f.wantErrno(f.Rmdir(y, nil), syscall.EBUSY)
	f.attach(x, p)
	if err := f.Rmdir(y, nil); err != nil {
		t.Error(err)
	}
	f.host.ReleaseExecs()
	f.wantTasks(x, p)
}
