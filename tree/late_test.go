package tree_test

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"containerfs/tree"
)

// Where a task that ended was, is a guess when it could not be looked up: its
// children must not inherit it.
func TestChildrenOfATaskGoneBeforeItsLookUp(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	p := f.host.Fork(1)
	k := f.host.Fork(p)
	f.attach(c, k)
	gone := f.host.CloneParent(k) // the event names p
	first := f.host.Fork(gone)
	f.host.Exit(f.host.Fork(gone)) // whose end leaves first alone with gone
	f.host.Exit(first)
	second := f.host.Fork(gone)
	thread := f.host.Thread(gone)
	third := f.host.Fork(thread)
	f.host.Exit(gone)
	f.host.Exit(thread)
	f.wantTasks(c, k, second, third)
}

// A thread that has ended, of which nobody was told yet, is no reason to fail.
func TestProcessWithAnExitStillToBeTold(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	c, d := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	thread, ended := f.host.Thread(p), f.host.Thread(p)
	f.attach(d, thread)
	f.Drain()
	f.host.HoldExits()
	f.host.Exit(ended)
	time.AfterFunc(20*time.Millisecond, f.host.ReleaseExits)
	if err := f.moveProcess(c, p); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, p, thread)
}

// An exit that is told much too late, since who is to tell it does not get the processor, does
// not keep the others of its process from being moved.
func TestProcessWithAnExitThatIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, true, plain("a"), plain("b"))
		c, d := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
		p := f.host.Fork(1)
		thread, ended := f.host.Thread(p), f.host.Thread(p)
		f.attach(d, thread)
		f.Drain()
		f.host.HoldExits()
		f.host.Exit(ended)
		began := time.Now()
		if err := f.moveProcess(c, p); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*tree.ExitDue {
			t.Errorf("it took %v", took)
		}
		f.wantTasks(c, p, thread)
		k := f.host.ForkAs(p, ended) // its number is another's by now
		f.host.ReleaseExits()
		f.wantTasks(c, p, thread, k)
	})
}

// It can also be that one of them executes a program, which is long in being read: it has the
// number of the first one then, and is not taken for one that has ended.
func TestProcessWithAnExecThatIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, true, plain("a"), plain("b"))
		root := f.mount(1, "")
		c, d := f.mkdir(root, "x"), f.mkdir(f.mount(2, ""), "y")
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		f.attach(d, thread)
		f.Drain()
		f.before("move", func() {
			f.host.HoldExits()
			f.host.HoldExecs()
			f.host.Exec(thread)
		})
		f.wantErrno(f.moveProcess(c, p), syscall.EAGAIN)
		f.host.ReleaseExits()
		f.host.ReleaseExecs()
		f.wantTasks(c)
		f.wantTasks(root, 1, p)
	})
}

// The mirror must not move a process at once when one of its threads is to stay,
// even if another that was to go ends meanwhile.
func TestThreadThatStaysWhenAnotherEnds(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	c, d := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	thread, ends := f.host.Thread(p), f.host.Thread(p)
	f.attach(d, p)
	f.attach(c, p)
	f.host.Fail = func(op string, _ int32) error {
		if op == "make" {
			f.host.Exit(ends)
			f.host.Drain()
		}
		return nil
	}
	if err := f.moveProcess(c, p); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(c, p, thread)
	f.wantTasks(d, p)
}

// Where the events of forks are lost nobody knows which task forked a child. One
// of a process with tasks in the target before is not taken for the moved task's:
// more of them are no reason to go on for ever, and a failed move leaves them.
func TestLostForksOfTheFamilyInTheTarget(t *testing.T) {
	for _, test := range []struct {
		name  string
		moved func(f *fixture, p int32) int32 // of p, which has a thread in the target
	}{
		{"child", func(f *fixture, p int32) int32 { f.host.Thread(p); return f.host.Fork(p) }},
		{"thread", func(f *fixture, p int32) int32 { return f.host.Thread(p) }},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fails=%v", test.name, fails), func(t *testing.T) {
				s := &cloner{plain: "s"}
				f := newFixture(t, true, s)
				c := f.mkdirAs(root, f.mount(1, ""), "x")
				p := f.host.Fork(1)
				there := f.host.Thread(p)
				f.attach(c, there)
				k := test.moved(f, p)
				f.Drain()
				if fails {
					s.attach = syscall.EIO
				}
				inC, looking := []int32{there}, false
				forks := func(int32) {
					if looking {
						return
					}
					looking = true
					inC = append(inC, f.host.Fork(there))
					f.host.Lose()
					f.resync()
					looking = false
				}
				f.host.Look, f.host.During = forks, forks
				err := f.Attach(tree.AttachRequest{To: c, ID: k})
				f.host.Look, f.host.During = nil, nil
				if fails != errors.Is(err, syscall.EIO) || !fails && err != nil {
					t.Fatal(err)
				}
				if !fails {
					inC = append(inC, k)
				}
				slices.Sort(inC)
				f.wantTasks(c, inC...)
			})
		}
	}
}

// A thread of a process of which the model has none any more: the ends of those before it were
// told late, when the process's number was shown no more either. The event says whose child that is.
func TestThreadOfAProcessThatIsNotKnownAnyMore(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	q := f.host.Fork(p)
	thread := f.host.Thread(q)
	f.attach(c, p)
	f.host.HoldExits()
	f.host.Exec(thread)
	f.host.ReleaseExits()
	thread = f.host.Thread(q)
	f.host.Exit(q)
	f.Drain()
	k := f.host.CloneParent(thread) // named a child of p, which is elsewhere
	f.wantTasks(c, p)
	f.wantTasks(root, 1, thread, k)
}

// A scan that comes after an exec finds one thread, and not how many there were: the end of the
// first one, which is told after the exec, is not taken for that of who has its number now.
func TestExitOfTheFirstThreadAfterAScanThatFoundAnother(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprint("known=", known), func(t *testing.T) {
			f, _, _, root, c, _ := moves(t, true)
			p := f.host.Fork(1)
			if known {
				f.Drain()
			}
			thread := f.host.Thread(p)
			f.host.Lose()
			f.host.HoldExits()
			f.host.Exec(thread)
			f.host.ReleaseExits()
			if err := f.Resync(); err != nil { // what happened before is told after it
				t.Fatal(err)
			}
			f.wantTasks(root, 1, p)
			f.attach(c, p)
			f.host.Blind = syscall.EMFILE
			f.host.Exit(p)
			f.wantTasks(c)
			f.host.Blind = nil
		})
	}
}

// The same where the process has made a thread by then, and where that has executed a program
// after the scan.
func TestExitOfTheFirstThreadAfterAScanThatFoundAnotherWithThreads(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint("again=", again), func(t *testing.T) {
			f, _, _, _, c, d := moves(t, true)
			p := f.host.Fork(1)
			f.host.Exec(f.host.Thread(p))
			f.host.Lose()
			f.resync()
			want := []int32{p, f.host.Thread(p)}
			if err := f.moveProcess(c, p); err != nil {
				t.Fatal(err)
			}
			if again {
				f.attach(d, want[1])
				f.host.HoldExits()
				f.host.Exec(want[1])
				f.Drain()
				c, want = d, want[:1]
			}
			f.Exit(p) // of the first thread that there was
			f.wantTasks(c, want...)
			f.host.ReleaseExits()
			f.wantTasks(c, want...)
			for _, tid := range want {
				f.host.Exit(tid)
			}
			f.wantTasks(c)
		})
	}
}

// A thread that a scan found has the number of its process by an exec that failed then: the fork of
// the next task with that number is not taken for its own, which was lost.
func TestForkOfTheNumberOfAThreadThatExecuted(t *testing.T) {
	f, _, _, root, c, _ := moves(t, true)
	p := f.host.Fork(1)
	other := f.host.Fork(1)
	f.attach(c, other)
	thread := f.host.Thread(p)
	f.host.Lose()
	f.resync()
	f.host.Exit(p)
	f.Drain()
	f.host.FailExec(thread)
	f.host.ForkAs(other, p)
	k := f.host.Fork(p)
	f.Drain()
	f.host.Steal(p, 0)
	f.Audit()
	k2 := f.host.CloneParent(k) // named a child of p, which is elsewhere
	f.wantTasks(c, other, k, k2)
	f.wantTasks(root, 1, p)
}

// A number that is used again makes a child seem its parent's parent: then it is not known who
// forked whom, and the mirror is asked.
func TestForkThatNamesADescendant(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	p, q := f.host.Fork(1), f.host.Fork(1)
	f.host.Lose()
	f.resync() // their forks may be told yet
	k := f.host.Fork(p)
	f.Drain()
	tell := func(tid int32) {
		info, err := f.host.Task(tid)
		if err != nil {
			t.Fatal(err)
		}
		f.Fork(tree.ForkEvent{ParentTID: k, ParentTGID: k, TID: tid, TGID: tid, Time: f.host.Now(), StartMax: info.Start})
	}
	tell(p)
	f.attach(c, k)
	f.attach(root, k) // nobody is below, as far as is known
	tell(q)
	f.attach(c, p)
	late := f.host.Fork(p)
	f.host.Lose()
	tell(late)
	f.wantTasks(c, p, late)
	f.wantTasks(root, 1, q, k)
}

// A fork that is told long after a task of that number was found is another's.
func TestLateForkIsOfTheNextTask(t *testing.T) {
	f, _, _, root, _, d := moves(t, true)
	other := f.host.Fork(1)
	f.attach(d, other)
	p := f.host.Fork(1)
	f.host.Lose()
	f.resync() // p's fork may be told yet
	for range 200 {
		f.host.Now()
	}
	f.host.Exit(p)
	f.host.Lose()
	f.host.ForkAs(other, p)
	f.wantTasks(d, other, p)
	f.wantTasks(root, 1)
}

// A child that the model finds elsewhere than its parent can have forked others in its parent's
// name.
func TestSiblingOfAChildThatIsFoundElsewhere(t *testing.T) {
	f, _, _, root, c, d := moves(t, true)
	shell := f.host.Fork(1)
	runc := f.host.Fork(shell)
	f.attach(c, runc)
	k := f.host.CloneParent(runc)
	f.host.Lose()
	f.host.Exit(runc) // the last child of shell that is known
	f.Drain()
	deny := func(tree.TaskInfo, *tree.Container, *tree.Container) error { return syscall.EACCES }
	f.wantErrno(f.Attach(tree.AttachRequest{To: d, ID: k, Allow: deny}), syscall.EACCES)
	l := f.host.CloneParent(k)
	f.wantTasks(c, k, l)
	f.wantTasks(root, 1, shell)
}

// The end of a parent is told after its children have been given to another: an event of what
// they fork with CLONE_PARENT names that one before.
func TestCloneParentOfAnOrphanOfWhoseParentNobodyWasTold(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	p := f.host.Fork(1)
	k := f.host.Fork(p)
	f.attach(c, k)
	f.host.HoldExits()
	f.host.Exit(p)
	l := f.host.CloneParent(k) // names 1
	f.Drain()
	f.host.ReleaseExits()
	f.wantTasks(c, k, l)
	f.wantTasks(root, 1)
}

// Of a process whose parent has ended it is not known which of its ancestors is the parent
// now: an event of what it forks with CLONE_PARENT can name any of them.
func TestCloneParentOfAnOrphanThatWasMoved(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	session := f.host.Fork(1)
	shell := f.host.Fork(session)
	p := f.host.Fork(shell)
	f.host.Exit(shell) // p is a child of 1, though the next ancestor is session
	f.Drain()          // so that a glance is enough, which does not tell the parent
	f.attach(c, p)
	k := f.host.CloneParent(p) // names 1
	f.wantTasks(c, p, k)
	f.wantTasks(root, 1, session)
}
