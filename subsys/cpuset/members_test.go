package cpuset

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

const initTID = hostsim.InitTID

func TestAttachAndReturn(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "0-1", "0")
		f.made("b", "3", "0")
		task := f.fork(initTID)
		f.narrow(task, 1, 2)
		f.ok(f.attach(task, "a"))
		f.mask(task, "0-1")
		f.mask(initTID, "0-3")

		// A mask of a's own is not kept in b, and none is in the root.
		f.narrow(task, 1)
		f.ok(f.attach(task, "b"))
		f.mask(task, "3")
		child := f.fork(task)
		grandchild := f.fork(child)
		thread := f.thread(grandchild)
		f.Drain()
		f.ok(f.attach(task, "/"))
		f.mask(task, "1-2")
		f.sim.Exit(task)
		for _, tid := range []int32{child, grandchild, thread} {
			f.in(tid, "b")
			f.mask(tid, "3")
			f.ok(f.attach(tid, "/"))
			f.mask(tid, "1-2")
		}

		// What is back is not touched any more, nor are its children.
		f.narrow(thread, 0)
		next := f.fork(thread)
		f.Drain()
		f.cpuset.Enforce()
		f.mask(thread, "0")
		f.mask(next, "0")
	})
}

// TestLeaveTwice: what a task made of its mask in the root is its origin, though no
// other change came between its return and the next attach.
func TestLeaveTwice(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "0", "0")
		task := f.fork(initTID)
		thread := f.thread(task)
		f.Drain()
		for _, attach := range []func(int32, string) error{f.attach, f.attachProcess} {
			for _, n := range []int{1, 2} {
				f.narrow(task, n)
				f.ok(attach(task, "a"))
				f.mask(task, "0")
				f.ok(attach(task, "/"))
				f.mask(task, NewSet(n).String())
			}
		}
		f.mask(thread, "0-3")

		// What it had is still known when it was refused to leave.
		f.narrow(task, 2)
		f.ok(f.attach(task, "a"))
		f.last.err = syscall.EIO
		f.errno(f.attach(task, "/"), syscall.EIO)
		f.last.err = nil
		f.set("a", "memory_migrate", "0") // any change
		f.ok(f.attach(task, "/"))
		f.mask(task, "2")
	})
}

func TestReattachAppliesAgain(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0-1", "0")
	task := f.fork(initTID)
	f.ok(f.attach(task, "a"))
	f.narrow(task, 1, 3)
	f.ok(f.attach(task, "a"))
	f.mask(task, "0-1")
	f.narrow(initTID, 2)
	f.ok(f.attach(initTID, "/"))
	f.mask(initTID, "2")
	f.machine.refused[task] = syscall.EINVAL
	f.errno(f.attach(task, "a"), syscall.EINVAL)
}

// TestAttachBy: what allows a task other CPUs than it has had comes when these are noted and
// before it gets the container's, and whatever fails then, or after the attach, is undone.
func TestAttachBy(t *testing.T) {
	f := newFixture(t, true)
	a := f.made("a", "1", "0")
	task := f.fork(initTID)
	f.Drain()
	theirs, own := NewSet(0, 2), NewSet(0)
	allow := func(set Set) {
		f.machine.mu.Lock()
		defer f.machine.mu.Unlock()
		f.machine.allowed[task], f.machine.masks[task] = set, set
	}
	var refuse error // by the place
	place := func() (func(), error) {
		f.View(func() {
			if got := f.cpuset.origins[f.Task(task)]; !got.Equal(own) {
				t.Errorf("placed, it has the origin %q", got)
			}
		})
		if refuse != nil {
			return nil, refuse
		}
		allow(NewSet(1, 2))
		return func() { allow(theirs) }, nil
	}
	isBack := func(when string) {
		t.Helper()
		f.mask(task, "0")
		f.View(func() {
			if origin, ok := f.cpuset.origins[f.Task(task)]; ok || !f.machine.allowed[task].Equal(theirs) {
				t.Errorf("%s, it has the origin %q, and is allowed %q", when, origin, f.machine.allowed[task])
			}
		})
	}
	var who *tree.Task
	f.View(func() { who = f.Task(task) })
	_ = f.Change(func() error {
		allow(theirs)
		f.narrow(task, 0)
		undo, err := f.cpuset.AttachBy(who, f.root, a, place)
		f.ok(err)
		f.mask(task, "1")
		undo()
		isBack("undone")
		f.machine.beforeSet = func(int32) {
			f.machine.refused[task] = syscall.EPERM
			f.machine.beforeSet = func(int32) { delete(f.machine.refused, task) }
		}
		_, err = f.cpuset.AttachBy(who, f.root, a, place)
		f.machine.beforeSet = nil
		f.errno(err, syscall.EPERM)
		isBack("without the mask")
		refuse = syscall.EACCES
		_, err = f.cpuset.AttachBy(who, f.root, a, place)
		f.errno(err, syscall.EACCES)
		isBack("refused")
		return nil
	})
	delete(f.machine.allowed, task)
}

// TestUnknownOrigin: a member that was found where it is gets all CPUs.
func TestUnknownOrigin(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	first := f.fork(initTID)
	f.ok(f.attach(first, "a"))
	group, _ := f.sim.Group(first)
	f.sim.Lose()
	stranger := f.fork(initTID)
	f.sim.Lose() // its fork event
	f.sim.Steal(stranger, group)
	f.narrow(stranger, 0)
	f.ok(f.Resync())
	f.in(stranger, "a")
	f.made("b", "1", "0")
	f.ok(f.attach(stranger, "b")) // where it has no mask of its own either
	f.ok(f.attach(stranger, "/"))
	f.mask(stranger, "0-3")

	// Unless it shows what it had, being nowhere near confined.
	stranger = f.fork(initTID)
	f.sim.Lose()
	f.sim.Steal(stranger, group)
	f.narrow(stranger, 0, 2)
	f.ok(f.Resync())
	f.cpuset.Enforce()
	f.mask(stranger, "0")
	f.ok(f.attach(stranger, "/"))
	f.mask(stranger, "0,2")
}

// TestCloneParent: the event names a parent that did not fork the child.
func TestCloneParent(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	parent := f.fork(initTID)
	forker := f.fork(parent)
	f.ok(f.attach(parent, "a"))
	child := f.inherit(forker, f.sim.CloneParent(forker)) // in the root, parent a member
	f.narrow(child, 2)
	f.in(child, "")
	f.cpuset.Enforce()
	f.mask(child, "2")

	f.ok(f.attach(parent, "/"))
	f.ok(f.attach(forker, "a"))
	child = f.inherit(forker, f.sim.CloneParent(forker)) // a member, parent in the root
	f.in(child, "a")
	f.ok(f.attach(child, "/"))
	f.mask(child, "0-3")
}

// TestForkWhileEntering: children forked at any instant of the attach are
// confined and have the forker's origin.
func TestForkWhileEntering(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "0", "0")
		task := f.fork(initTID)
		f.narrow(task, 1, 2)
		var born []int32
		f.sim.During = func(tid int32) {
			if tid == task {
				born = append(born, f.fork(task))
			}
		}
		f.machine.afterSet = func(tid int32) {
			if tid == task {
				born = append(born, f.fork(task))
				f.sim.Drain() // its event comes at once
			}
		}
		f.ok(f.attach(task, "a"))
		f.machine.afterSet, f.sim.During = nil, nil
		if len(born) == 0 {
			t.Fatal("nothing was forked")
		}
		f.Drain()
		f.cpuset.Enforce()
		for _, tid := range born {
			f.View(func() {
				if f.Task(tid).Container(f.root.Hierarchy()).IsRoot() {
					f.mask(tid, "1-2") // forked before the attach, as far as events tell
				} else {
					f.mask(tid, "0")
				}
			})
			f.ok(f.attach(tid, "a"))
			f.ok(f.attach(tid, "/"))
			f.mask(tid, "1-2")
		}
	})
}

// TestForkWhileLeaving: the same on the way back.
func TestForkWhileLeaving(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "0", "0")
		task := f.fork(initTID)
		f.narrow(task, 1, 2)
		f.ok(f.attach(task, "a"))
		var born []int32
		f.sim.During = func(int32) {
			child := f.fork(task)
			born = append(born, child, f.fork(child))
			f.sim.Drain()
		}
		f.machine.afterSet = func(tid int32) {
			if len(born) < 10 { // children of those that the attach takes in as well
				born = append(born, f.fork(tid))
				born = append(born, f.fork(born[0]))
				f.sim.Drain()
			}
		}
		f.ok(f.attach(task, "/"))
		f.machine.afterSet, f.sim.During = nil, nil
		f.Drain()
		f.cpuset.Enforce()
		for _, tid := range born {
			var inRoot bool
			f.View(func() { inRoot = f.Task(tid).Container(f.root.Hierarchy()).IsRoot() })
			if inRoot {
				f.mask(tid, "1-2")
				f.narrow(tid, 3)
				f.cpuset.Enforce()
				f.mask(tid, "3")
			} else {
				f.mask(tid, "0")
				f.ok(f.attach(tid, "/"))
				f.mask(tid, "1-2")
			}
		}
	})
}

// TestRefusedAttach: the host refuses one thread of a process, or another
// subsystem refuses after cpuset: all masks are as they were.
func TestRefusedAttach(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "0-1", "0")
		f.made("b", "1-2", "0")
		task := f.fork(initTID)
		second, third := f.thread(task), f.thread(task)
		f.narrow(second, 1, 2)
		f.machine.refused[third] = syscall.EINVAL
		f.errno(f.attach(third, "a"), syscall.EINVAL)
		f.errno(f.attachProcess(task, "a"), syscall.EINVAL)
		for tid, mask := range map[int32]string{task: "0-3", second: "1-2", third: "0-3"} {
			f.in(tid, "")
			f.mask(tid, mask)
		}

		delete(f.machine.refused, third)
		f.narrow(third, 3) // it is the root's, and not touched
		f.cpuset.Enforce()
		f.mask(third, "3")
		f.narrow(third, 0, 1, 2, 3)
		f.ok(f.attachProcess(task, "a"))
		f.narrow(second, 0)
		f.last.err = syscall.EIO
		for _, path := range []string{"b", "/"} {
			f.errno(f.attachProcess(task, path), syscall.EIO)
			for tid, mask := range map[int32]string{task: "0-1", second: "0", third: "0-1"} {
				f.in(tid, "a")
				f.mask(tid, mask)
			}
		}

		// What a member had outside of its container is not given back.
		f.narrow(second, 1, 3)
		f.errno(f.attach(second, "b"), syscall.EIO)
		f.mask(second, "1")

		// Who was not let in is not touched any more, nor is one let in again with what
		// he had before.
		f.last.err = nil
		other := f.fork(initTID)
		f.narrow(other, 2, 3)
		f.last.err = syscall.EIO
		f.errno(f.attach(other, "a"), syscall.EIO)
		f.last.err = nil
		f.mask(other, "2-3")
		f.narrow(other, 1)
		f.cpuset.Enforce()
		f.mask(other, "1")
		f.ok(f.attach(other, "a"))
		f.ok(f.attach(other, "/"))
		f.mask(other, "1")

		// Children that were forked meanwhile go back as well.
		f.last.err = nil
		f.ok(f.attachProcess(task, "/"))
		f.mask(second, "1-2")
		f.last.err = syscall.EIO
		var child int32
		f.machine.afterSet = func(tid int32) {
			if tid == task && child == 0 {
				child = f.fork(task)
			}
		}
		f.errno(f.attach(task, "a"), syscall.EIO)
		f.last.err = nil
		f.cpuset.Enforce()
		f.in(child, "")
		f.mask(child, "0-3")

		// Also where the attach had taken them in.
		child = 0
		f.machine.afterSet = func(tid int32) {
			if tid == task && child == 0 {
				child = f.fork(task)
				f.last.err, f.last.only = syscall.EIO, child
			}
		}
		if err := f.attach(task, "a"); err != nil {
			f.errno(err, syscall.EIO)
			f.in(child, "")
			f.mask(child, "0-3")
			f.mask(task, "0-3")
		}
		f.last.err = nil

		// And where the host refuses it to the child.
		child = 0
		f.machine.afterSet = func(tid int32) {
			if tid == task && child == 0 {
				child = f.fork(task)
				f.machine.refused[child] = syscall.EINVAL
			}
		}
		if err := f.attach(task, "a"); err != nil {
			f.errno(err, syscall.EINVAL)
			delete(f.machine.refused, child)
			f.cpuset.Enforce()
			f.in(child, "")
			f.mask(child, "0-3")
			f.mask(task, "0-3")
		}
		f.machine.afterSet = nil
	})
}

// TestWriteReachesAll: members, their threads, and those that are born while
// cpus is applied; not the root's; who is refused is in the log.
func TestWriteReachesAll(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0-1", "0")
	task := f.fork(initTID)
	thread := f.thread(task)
	outside := f.fork(initTID)
	f.ok(f.attachProcess(task, "a"))
	var born []int32
	f.machine.afterSet = func(tid int32) {
		if len(born) == 4 {
			return
		}
		// A child that was forked just before, with the mask of that time.
		child := f.sim.Fork(tid)
		f.narrow(child, 0, 1)
		born = append(born, child)
	}
	f.set("a", "cpus", "1-3")
	f.machine.afterSet = nil
	for _, tid := range append(born, task, thread) {
		f.mask(tid, "1-3")
	}
	if len(born) != 4 {
		t.Errorf("%d were born", len(born))
	}
	f.mask(initTID, "0-3")
	f.mask(outside, "0-3")

	f.machine.refused[thread] = syscall.EPERM
	f.machine.allowed[task] = NewSet(0)
	f.set("a", "cpus", "0,2")
	f.mask(task, "0")
	f.mask(thread, "1-3")
	log := f.log.String()
	for _, want := range []string{"refuses", "operation not permitted", "only a part", fmt.Sprintf("tids=[%d]", thread), fmt.Sprintf("tids=[%d]", task)} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	f.sim.Zombie(thread) // and is not asked again
	f.set("a", "cpus", "2")
	delete(f.machine.allowed, task)
	f.set("a", "cpus", "2")
	f.mask(task, "2")
}

// TestQuiet: what goes well is not in the log.
func TestQuiet(t *testing.T) {
	f, _ := newKept(t)
	f.made("a", "0-1", "0")
	f.set("a", "memory_migrate", "1")
	task := f.fork(initTID)
	thread := f.thread(task)
	f.ok(f.attachProcess(task, "a"))
	f.set("a", "cpus", "1-2")
	f.set("a", "mems", "1")
	f.narrow(thread, 3)
	f.cpuset.Enforce()
	f.last.err = syscall.EIO
	f.errno(f.attachProcess(task, "/"), syscall.EIO)
	f.last.err = nil
	f.ok(f.attachProcess(task, "/"))
	f.cpuset.Enforce()
	f.ok(f.cpuset.Close())
	if f.log.Len() > 0 {
		t.Errorf("the log has\n%s", &f.log)
	}
}

func TestEnforce(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0-1", "0")
	task := f.fork(initTID)
	f.ok(f.attach(task, "a"))
	for _, step := range []struct {
		own  []int
		want string
	}{
		{[]int{1}, "1"},         // narrowed, kept
		{[]int{0, 1}, "0-1"},    // and widened again
		{[]int{1, 2, 3}, "1"},   // cut
		{[]int{2, 3}, "0-1"},    // nothing is left
		{[]int{0, 1, 2}, "0-1"}, // cut
	} {
		f.narrow(task, step.own...)
		sets := f.machine.sets
		f.cpuset.Enforce()
		f.mask(task, step.want)
		if own := NewSet(step.own...).String(); own == step.want && f.machine.sets != sets {
			t.Errorf("a mask of %s was set again", own)
		}
	}
	f.narrow(initTID, 3)
	f.cpuset.Enforce()
	f.mask(initTID, "3")

	f.narrow(task, 2)
	f.machine.refused[task] = syscall.EPERM
	f.log.Reset()
	f.cpuset.Enforce()
	f.cpuset.Enforce()
	if n := strings.Count(f.log.String(), "cannot be taken away"); n != 1 {
		t.Errorf("said %d times what cannot be done:\n%s", n, &f.log)
	}
}

// TestMovedInTheMirror: a task that somebody else moved is confined where it is.
func TestMovedInTheMirror(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	first, other := f.fork(initTID), f.fork(initTID)
	f.narrow(other, 2, 3)
	f.ok(f.attach(first, "a"))
	group, _ := f.sim.Group(first)
	f.sim.Steal(other, group)
	f.Audit()
	f.mask(other, "0")
	f.sim.Steal(other, 0)
	f.Audit()
	f.mask(other, "2-3")
}

// TestRebind: what an unmounted cpuset knew is still right when it is bound again.
func TestRebind(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	task := f.fork(initTID)
	f.ok(f.attach(task, "a"))
	f.ok(f.attach(task, "/"))
	f.ok(f.Rmdir(f.at("a"), nil))
	f.set("/", "memory_migrate", "1")
	f.ok(f.Remount(tree.RemountRequest{Hierarchy: f.root.Hierarchy(), Subsystems: 2}))
	f.fork(task)
	f.Drain()
	f.cpuset.Enforce()
	f.ok(f.Remount(tree.RemountRequest{Hierarchy: f.root.Hierarchy(), Subsystems: 3}))
	if got := f.read("/", "memory_migrate"); got != "1\n" {
		t.Errorf("the root's memory_migrate is %q", got)
	}
	f.made("a", "1", "0")
	f.ok(f.attach(task, "a"))
	f.mask(task, "1")
}

// TestForkInRootIsFree: also while there are members.
func TestForkInRootIsFree(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	member := f.fork(initTID)
	f.ok(f.attach(member, "a"))
	parent, child := f.fork(initTID), f.fork(initTID)
	f.Drain()
	f.View(func() {
		p, c := f.Task(parent), f.Task(child)
		if n := testing.AllocsPerRun(100, func() { f.cpuset.Fork(p, c, f.root) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if len(f.cpuset.origins) != 1 {
			t.Errorf("%d members", len(f.cpuset.origins))
		}
	})
}
