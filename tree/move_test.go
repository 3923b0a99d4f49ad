package tree_test

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"containerfs/tree"
)

// moves is a fixture with a recording subsystem beside another, and two
// containers.
func moves(t *testing.T, mirror bool) (f *fixture, first, second *probe, root, c, d *tree.Container) {
	first, second = &probe{plain: "a"}, &probe{plain: "b"}
	f = newFixture(t, mirror, first, second)
	root = f.mount(3, "")
	return f, first, second, root, f.mkdir(root, "c"), f.mkdir(root, "d")
}

func TestForkBeforeTheMirrorMovesStaysAndItsSiblingsAreAsked(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	var k int32
	f.before("move", func() { k = f.host.Fork(p); f.host.Drain() })
	f.attach(c, p)
	f.wantTasks(c, p)
	f.wantTasks(root, 1, k)
	k2 := f.host.CloneParent(k) // named a child of p, which is elsewhere
	f.wantTasks(root, 1, k, k2)
}

func TestForksOfTheWindowWithoutMirrorAreHereOrThere(t *testing.T) {
	f, first, _, root, c, _ := moves(t, false)
	p := f.host.Fork(1)
	var k int32
	first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error { k = f.host.Fork(p); return nil }
	f.attach(c, p)
	f.wantTasks(c, p)
	f.wantTasks(root, 1, k) // before the split
	k2 := f.host.Fork(p)
	f.wantTasks(c, p, k2)
}

func TestFailingSecondSubsystemUndoesTheFirstAndTheChildren(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, first, second, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		var k, g int32
		second.onAttach = func(_ *tree.Task, from, to *tree.Container) error {
			if to == root {
				return nil
			}
			k = f.host.Fork(p)
			g = f.host.Fork(k)
			return syscall.EINVAL
		}
		f.wantErrno(f.move(c, p), syscall.EINVAL)
		f.wantTasks(c)
		f.wantTasks(root, 1, p, k, g)
		if !slices.Equal(first.undone, []int32{p}) {
			t.Errorf("undone for %v, want %d", first.undone, p)
		}
	})
}

func TestThreadsForEverIsEAGAINWithEverythingPutBack(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, first, _, root, c, d := moves(t, mirror)
		p := f.host.Fork(1)
		t1 := f.host.Thread(p)
		f.attach(d, t1)
		first.onAttach = func(_ *tree.Task, _, to *tree.Container) error {
			if to == c {
				f.host.Thread(p)
			}
			return nil
		}
		f.wantErrno(f.moveProcess(c, p), syscall.EAGAIN)
		first.onAttach = nil
		f.wantTasks(c)
		f.wantTasks(d, t1)
		if err := f.moveProcess(c, p); err != nil {
			t.Fatal(err)
		}
		f.wantTasks(root, 1)
	})
}

func TestThreadsBornDuringAProcessMoveMoveToo(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, first, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		n := 0
		first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
			if n++; n < 4 {
				f.host.Thread(p)
			}
			return nil
		}
		if err := f.moveProcess(c, p); err != nil {
			t.Fatal(err)
		}
		f.wantTasks(root, 1)
	})
}

// So does one that takes the place of the only thread that was elsewhere, after they were listed.
func TestThreadThatIsNotListedMovesToo(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	f.attach(c, p)
	var born int32
	f.looked(2, func() { // the first is a glance
		born = f.host.Thread(th)
		f.host.Exit(th)
		f.host.Drain()
	})
	if err := f.moveProcess(c, p); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, p, born)
	f.wantTasks(root, 1)
}

func TestTaskOfAUsedTidIsPutBack(t *testing.T) {
	for _, process := range []bool{false, true} {
		f, _, _, root, c, d := moves(t, true)
		other := f.host.Fork(1)
		f.attach(d, other)
		p := f.host.Fork(1)
		var k int32
		f.before("move", func() {
			f.host.Exit(p)
			f.host.ForkAs(other, p)
		})
		f.host.During = func(tid int32) {
			if k == 0 {
				k = f.host.Fork(tid)
			}
		}
		f.wantErrno(f.Attach(tree.AttachRequest{To: c, ID: p, Process: process}), syscall.ESRCH)
		f.wantTasks(c)
		f.wantTasks(d, other, p, k)
		f.wantTasks(root, 1)
	}
}

// The mirror has them where their parent was moved by mistake, and may be asked about them.
func TestChildrenOfATaskOfAUsedTidArePutBack(t *testing.T) {
	for _, test := range []struct {
		name  string
		lives bool // another thread of what moves, so that the move goes on
		// next happens when tid has been moved by mistake. It returns who lives of these.
		next func(f *fixture, tid int32) []int32
	}{
		{"child", false, func(f *fixture, tid int32) []int32 { return []int32{tid, f.host.Fork(tid)} }},
		{"of a child", false, func(f *fixture, tid int32) []int32 {
			k := f.host.Fork(tid)
			return []int32{tid, k, f.host.Fork(k)}
		}},
		{"thread", false, func(f *fixture, tid int32) []int32 { return []int32{tid, f.host.Thread(tid)} }},
		{"of a thread", false, func(f *fixture, tid int32) []int32 {
			th := f.host.Thread(tid)
			return []int32{tid, th, f.host.Fork(th)}
		}},
		{"executed", false, func(f *fixture, tid int32) []int32 {
			f.host.Exec(f.host.Thread(tid))
			return []int32{tid, f.host.Fork(tid)}
		}},
		{"executed, exits told late", false, func(f *fixture, tid int32) []int32 {
			f.host.HoldExits()
			f.host.Exec(f.host.Thread(tid))
			f.host.ReleaseExits()
			return []int32{tid, f.host.Fork(tid)}
		}},
		{"of a child that is not put back yet", false, func(f *fixture, tid int32) []int32 {
			k, late := f.host.Fork(tid), int32(50)
			f.host.Listed = func(uint64) {
				f.host.Listed = nil
				f.host.ForkAs(k, late)
			}
			return []int32{tid, k, late}
		}},
		{"for its parent", false, func(f *fixture, tid int32) []int32 {
			k := f.host.CloneParent(tid)
			return []int32{tid, k, f.host.Fork(k)}
		}},
		{"events lost", false, func(f *fixture, tid int32) []int32 {
			k := f.host.Fork(tid)
			f.host.Lose()
			f.resync()
			return []int32{tid, k, f.host.Fork(k)}
		}},
		{"of one that ended", false, func(f *fixture, tid int32) []int32 {
			k := f.host.Fork(tid)
			f.host.Exit(tid)
			return []int32{k}
		}},
		{"of another thread's", true, func(f *fixture, tid int32) []int32 { return []int32{tid, f.host.Fork(tid)} }},
		{"of another thread's that ended", true, func(f *fixture, tid int32) []int32 {
			k := f.host.Fork(tid)
			f.host.Exit(tid)
			return []int32{k}
		}},
	} {
		for _, mixed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s mixed=%v", test.name, mixed), func(t *testing.T) {
				f, _, _, root, c, d := moves(t, true)
				other := f.host.Fork(1)
				elsewhere := []int32{1}
				if mixed {
					elsewhere = append(elsewhere, f.host.Fork(other))
				}
				f.attach(d, other)
				p := f.host.Fork(1)
				tid := p
				var there []int32
				if test.lives {
					tid = f.host.Thread(p)
					there = append(there, p, f.host.Thread(p))
					f.attach(c, there[1]) // so that they do not move at once
				}
				inD := []int32{other}
				f.host.Fail = func(op string, id int32) error {
					if op == "move" && id == tid && len(inD) == 1 {
						f.host.Exit(tid)
						f.host.ForkAs(other, tid)
						f.host.During = func(id int32) {
							if id == tid && len(inD) == 1 {
								inD = append(inD, test.next(f, tid)...)
							}
						}
					}
					return nil
				}
				err := f.Attach(tree.AttachRequest{To: c, ID: p, Process: test.lives})
				if !test.lives {
					f.wantErrno(err, syscall.ESRCH)
				} else if err != nil {
					t.Fatal(err)
				}
				f.wantTasks(c, there...)
				f.wantTasks(d, inD...)
				f.wantTasks(root, elsewhere...)
			})
		}
	}
}

// A thread that executes gives its number up, by which another is moved: it is moved as what it is
// then, and that one is put back.
func TestThreadThatExecutesAndWhoseNumberIsUsedAgainMoves(t *testing.T) {
	for _, fails := range []bool{false, true} {
		f, first, _, root, c, d := moves(t, true)
		other := f.host.Fork(1)
		sibling := f.host.Fork(other)
		f.attach(d, other)
		p := f.host.Fork(1)
		th := f.host.Thread(p)
		var k int32
		f.before("move", func() {
			f.host.Exec(th)
			f.host.ForkAs(other, th)
		})
		f.host.During = func(tid int32) {
			if tid == th && k == 0 {
				k = f.host.Fork(th)
			}
			if tid == p && fails {
				first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error { return syscall.EIO }
			}
		}
		err := f.move(c, th)
		f.wantTasks(d, other, th, k)
		if fails {
			f.wantErrno(err, syscall.EIO)
			f.wantTasks(root, 1, sibling, p)
		} else {
			f.wantTasks(c, p)
		}
	}
}

// Also one with the number of a process that moved at once, and whose first thread had ended.
func TestProcessOfAUsedNumberIsPutBack(t *testing.T) {
	for _, mixed := range []bool{false, true} {
		f, _, _, root, c, d := moves(t, true)
		other := f.host.Fork(1)
		elsewhere := []int32{1}
		if mixed {
			elsewhere = append(elsewhere, f.host.Fork(other))
		}
		f.attach(d, other)
		p := f.host.Fork(1)
		th := f.host.Thread(p)
		f.host.Exit(p)
		var k int32
		f.before("move", func() {
			f.host.Exit(th)
			f.host.ForkAs(other, p)
			k = f.host.Thread(p)
		})
		f.wantErrno(f.moveProcess(c, th), syscall.ESRCH)
		f.wantTasks(c)
		f.wantTasks(d, other, p, k)
		f.wantTasks(root, elsewhere...)
	}
}

// Also where that is moved when a failed move is taken back.
func TestTaskOfAUsedTidStaysWhenAMoveIsTakenBack(t *testing.T) {
	f, first, _, root, c, d := moves(t, true)
	other := f.host.Fork(1)
	f.attach(d, other)
	p := f.host.Fork(1)
	var k int32
	first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
		f.before("move", func() {
			f.host.Exit(p)
			f.host.ForkAs(other, p)
			f.host.During = func(tid int32) {
				if k == 0 {
					k = f.host.Fork(tid)
				}
			}
		})
		return syscall.EIO
	}
	f.wantErrno(f.move(c, p), syscall.EIO)
	f.wantTasks(c)
	f.wantTasks(d, other, p, k)
	f.wantTasks(root, 1)
}

func TestThreadThatExecutesDuringAFailingMoveIsPutBack(t *testing.T) {
	f, first, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
		f.host.Exec(th)
		return syscall.EIO
	}
	f.wantErrno(f.move(c, th), syscall.EIO)
	f.wantTasks(c)
	f.wantTasks(root, 1, p)
}

// Its child is not taken for one of a thread that was born while its process moved.
func TestChildOfAThreadThatIsThereStaysWhenTheMoveFails(t *testing.T) {
	f, first, _, root, c, d := moves(t, true)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	f.attach(c, p)
	f.attach(d, th)
	var k int32
	first.onAttach = func(_ *tree.Task, from, _ *tree.Container) error {
		if from != c {
			return nil
		}
		f.host.Thread(p)
		k = f.host.Fork(th)
		return syscall.EIO
	}
	f.wantErrno(f.moveProcess(d, p), syscall.EIO)
	f.wantTasks(d, th, k)
	f.wantTasks(root, 1)
}

// A thread that is born where a child of its process moves to was forked by a thread of its own
// process, and has nothing to do with the move: it gets no effects, and stays when that fails.
func TestThreadOfTheParentOfWhoMoves(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails=", fails), func(t *testing.T) {
			f, first, _, root, c, _ := moves(t, true)
			p := f.host.Fork(1)
			there := f.host.Thread(p)
			f.attach(c, there)
			k := f.host.Fork(p)
			var born int32
			first.attached = nil
			first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
				if born != 0 {
					return nil
				}
				born = f.host.Thread(there)
				f.host.Drain()
				if fails {
					return syscall.EIO
				}
				return nil
			}
			if err := f.move(c, k); fails != errors.Is(err, syscall.EIO) || !fails && err != nil {
				t.Fatal(err)
			}
			in, out := []int32{there, k, born}, []int32{1, p}
			if fails {
				in, out = []int32{there, born}, []int32{1, p, k}
			}
			f.wantTasks(c, in...)
			f.wantTasks(root, out...)
			if slices.Contains(first.attached, born) {
				t.Errorf("%v were attached", first.attached)
			}
		})
	}
}

// Nor is it a child of the thread whose number it has: by that it was moved, and is put back.
func TestThreadOfTheParentWithTheNumberOfWhoMoves(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	root := f.mount(1, "")
	c, d := f.mkdir(root, "x"), f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	k := f.host.Fork(p)
	th := f.host.Thread(k)
	f.attach(d, th) // so that they are moved one by one
	f.before("move", func() {
		f.host.Exit(th)
		f.host.ThreadAs(p, th)
	})
	if err := f.moveProcess(c, k); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, k)
	f.wantTasks(root, 1, p, th)
}

// Who has forked a thread during a move that had ended by its end is not taken to move any more.
func TestNobodyMovesWhenTheMoveIsOver(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	there := f.host.Thread(p)
	f.attach(c, there)
	k := f.host.Fork(p)
	f.host.During = func(int32) {
		f.host.During = nil
		born := f.host.Thread(there)
		f.host.Drain()
		f.host.Exit(born)
		f.host.Drain()
	}
	f.attach(c, k)
	f.wantTasks(c, there, k)
	f.wantTasks(root, 1, p)
	f.View(func() {
		if f.Task(p).Moving() {
			t.Error("it moves")
		}
	})
}

// TestProcessMovesAtOnce: the mirror is asked once for all of its threads, and for each where one
// stays.
func TestProcessMovesAtOnce(t *testing.T) {
	f, _, _, root, c, d := moves(t, true)
	p := f.host.Fork(1)
	t1, t2 := f.host.Thread(p), f.host.Thread(p)
	var asked []int32
	f.host.Fail = func(op string, tid int32) error {
		if op == "move" {
			asked = append(asked, tid)
		}
		return nil
	}
	for _, test := range []struct {
		to   *tree.Container
		want []int32
	}{{c, []int32{p}}, {d, []int32{p}}, {root, []int32{p, t1}}} {
		if test.to == root {
			f.attach(root, t2)
		}
		asked = nil
		if err := f.moveProcess(test.to, t1); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(asked); !slices.Equal(asked, test.want) {
			t.Errorf("to %s the mirror has moved %v, want %v", test.to.Path(), asked, test.want)
		}
	}
	f.wantTasks(root, 1, p, t1, t2)
}

// TestThreadThatMovedUnawaresIsPutBack: one that was born before the mirror moved its process at
// once, and of which the move did not know.
func TestThreadThatMovedUnawaresIsPutBack(t *testing.T) {
	for _, test := range []struct {
		name  string
		fails func(f *fixture, s *probe, thread *int32)
	}{
		{"before it is known", func(_ *fixture, s *probe, _ *int32) {
			s.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error { return syscall.EIO }
		}},
		{"by its own move", func(f *fixture, _ *probe, thread *int32) {
			before, failed := f.host.Fail, false
			f.host.Fail = func(op string, tid int32) error {
				if op == "move" && *thread != 0 && tid == *thread && !failed {
					failed = true
					return syscall.EIO
				}
				return before(op, tid)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, first, _, root, c, _ := moves(t, true)
			p := f.host.Fork(1)
			var thread int32
			f.before("move", func() {
				thread = f.host.Thread(p)
				f.Drain()
			})
			test.fails(f, first, &thread)
			f.wantErrno(f.moveProcess(c, p), syscall.EIO)
			f.wantTasks(c)
			f.wantTasks(root, 1, p, thread)
		})
	}
}

// TestTaskThatIsNotPutBack is taken where it is by the next Audit.
func TestTaskThatIsNotPutBack(t *testing.T) {
	f, first, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	first.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
		f.host.Fail = func(op string, _ int32) error {
			if op == "move" {
				return syscall.EPERM
			}
			return nil
		}
		return syscall.EIO
	}
	f.wantErrno(f.move(c, p), syscall.EIO)
	f.host.Fail, first.onAttach = nil, nil
	f.wantTasks(root, 1, p)
	if !f.Strayed() {
		t.Error("nobody will look for it")
	}
	if n := f.Audit(); n != 1 {
		t.Errorf("%d were put right, want 1", n)
	}
	f.wantTasks(c, p)
}

func TestProcessThatMayNotMoveWholeIsLeftAlone(t *testing.T) {
	f, first, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	n := 0
	first.canAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
		if n++; n == 2 {
			return syscall.EPERM
		}
		return nil
	}
	f.wantErrno(f.moveProcess(c, p), syscall.EPERM)
	f.wantTasks(root, 1, p, th)
}

func TestForkThatAnAttachFindsFirstIsOneTask(t *testing.T) {
	f, first, _, root, c, d := moves(t, true)
	p := f.host.Fork(1)
	f.attach(d, f.host.Fork(p)) // p's family is in several groups
	k := f.host.Fork(p)
	done := false
	f.host.Fail = func(op string, tid int32) error {
		if op == "where" && tid == k && !done {
			done = true
			// The fork's event is being delivered; another one attaches. Its
			// Drain would wait, so the model finds the task by itself.
			f.host.Fail = nil
			_ = f.Resync()
		}
		return nil
	}
	f.Drain()
	f.host.Fail = nil
	f.wantTasks(root, 1, p, k)
	f.attach(c, k)
	f.wantTasks(c, k)
	if first.forks != 4 {
		t.Errorf("%d forks told, want 4", first.forks)
	}
}

func TestAttachRefuses(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		z := f.host.Fork(1)
		f.host.Zombie(z)
		for _, id := range []int32{0, -1, z, 99} {
			f.wantErrno(f.move(c, id), syscall.ESRCH)
			f.wantErrno(f.moveProcess(c, id), syscall.ESRCH)
		}
		deny := func(tree.TaskInfo, *tree.Container, *tree.Container) error { return syscall.EACCES }
		f.wantErrno(f.Attach(tree.AttachRequest{To: c, ID: p, Allow: deny}), syscall.EACCES)
		if err := f.Rmdir(c, nil); err != nil {
			t.Fatal(err)
		}
		f.wantErrno(f.move(c, p), syscall.ENODEV)
		f.wantTasks(root, 1, p)
	})
}

func TestGroupThatWasLeftIsEnteredAgainAndGoesWhenSwept(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	f.attach(c, p)
	was, _ := f.host.Group(p)
	f.attach(root, p)
	f.attach(c, p)
	if now, _ := f.host.Group(p); now != was {
		t.Errorf("group %d, was %d", now, was)
	}
	f.attach(root, p)
	f.Sweep(0)
	if gs := f.host.Groups(); !slices.Equal(gs, []uint64{0}) {
		t.Errorf("directories of %v are left", gs)
	}
	f.attach(c, p)
	if now, _ := f.host.Group(p); now == was {
		t.Error("a group's number is used twice")
	}
}

// TestRmdirOfATaskWhoseNumberIsUsedAgain: who is shown with the number of a member is another.
func TestRmdirOfATaskWhoseNumberIsUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, root, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		f.attach(c, p)
		f.lookOnce(1, func() {
			f.host.Exit(p)
			f.host.ForkAs(1, p)
		})
		if err := f.Rmdir(c, nil); err != nil {
			t.Fatal(err)
		}
		f.wantTasks(root, 1, p)
	})
}

func TestRmdirSeesTheChildOfADeadMember(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f, _, _, _, c, _ := moves(t, mirror)
		p := f.host.Fork(1)
		f.attach(c, p)
		f.host.HoldExits()
		k := f.host.Fork(p)
		f.host.Exit(p)
		f.wantErrno(f.Rmdir(c, nil), syscall.EBUSY)
		f.host.ReleaseExits()
		f.wantTasks(c, k)
		f.host.Exit(k)
		if err := f.Rmdir(c, nil); err != nil {
			t.Fatal(err)
		}
	})
}
