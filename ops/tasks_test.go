package ops

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree/hostsim"
)

func TestTasksAndProcs(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	t1, t2 := w.host.Thread(p), w.host.Thread(p)
	q := w.fork(0)
	k.want("m/tasks", fmt.Sprintf("1\n%d\n%d\n%d\n%d\n", p, t1, t2, q))
	k.want("m/procs", fmt.Sprintf("1\n%d\n%d\n", p, q))
	k.must(k.write("m/a/tasks", fmt.Sprintln(t1))) // one thread
	k.want("m/a/tasks", fmt.Sprintln(t1))
	k.want("m/a/procs", fmt.Sprintln(p))
	k.must(k.mkdir("m/a/b"))
	for c, populated := range map[string]string{"m": "1\n", "m/a": "1\n", "m/a/b": "0\n"} {
		k.want(c+"/populated", populated)
	}
	k.want("m/procs", fmt.Sprintf("1\n%d\n%d\n", p, q))
	k.must(k.write("m/a/procs", fmt.Sprint(t2))) // all of them, by any
	k.want("m/a/tasks", fmt.Sprintf("%d\n%d\n%d\n", p, t1, t2))
	k.want("m/tasks", fmt.Sprintf("1\n%d\n", q))
	k.must(k.write("m/a/tasks", "1")) // pid 1 is a task like any other
	k.want("m/a/procs", fmt.Sprintf("1\n%d\n", p))
	k.must(k.write("m/tasks", "1"))

	w.host.Zombie(q)
	k.want("m/tasks", "1\n")
	w.host.Reap(q)

	// Already there: success, and no callbacks.
	n := w.subs[0].attached
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("m/a/procs", fmt.Sprint(p)))
	if w.subs[0].attached != n {
		t.Error("a task that is there already was attached")
	}
}

func TestRefusedMoves(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/b"))
	p := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	gone, zombie, kernel := w.fork(0), w.fork(0), w.fork(0)
	w.host.Exit(gone)
	w.host.Zombie(zombie)
	w.host.kernel[kernel] = true
	for _, file := range []string{"m/b/tasks", "m/b/procs"} {
		write := func(data string) func() error { return func() error { return k.write(file, data) } }
		for _, test := range numberTests {
			if test.err == linux.EINVAL {
				w.refused(test.err, fmt.Sprintf("%.20q", test.in), write(test.in))
			}
		}
		w.refused(linux.EINVAL, "0", write("0"))
		w.refused(linux.EINVAL, "several", write(fmt.Sprintf("%d\n%d\n", p, p)))
		w.refused(linux.ERANGE, "above any pid", write("2147483648"))
		w.refused(linux.ESRCH, "above pid_max", write("2147483647"))
		w.refused(linux.ESRCH, "no such task", write("4999"))
		w.refused(linux.ESRCH, "gone", write(fmt.Sprint(gone)))
		w.refused(linux.ESRCH, "zombie", write(fmt.Sprint(zombie)))
		w.host.Fail = func(op string, tid int32) error {
			if op == "move" && tid == kernel {
				return syscall.EINVAL
			}
			return nil
		}
		w.refused(linux.EINVAL, "a kernel thread that stays", write(fmt.Sprint(kernel)))
		if why, err := k.read(StatusName); err != nil || !strings.HasSuffix(why, "it is a kernel thread, which the kernel does not move: invalid argument\n") {
			t.Errorf("the reason is %q, %v", why, err)
		}
		w.host.Fail = nil

		w.subs[0].canAttach = syscall.ENOTTY
		w.refused(linux.ENOTTY, "can_attach", write(fmt.Sprint(p)))
		w.subs[2].canAttach = syscall.ENOSPC // only the first is asked
		w.refused(linux.ENOTTY, "can_attach of two", write(fmt.Sprint(p)))
		w.subs[0].canAttach = nil
		w.refused(linux.ENOSPC, "can_attach of the second", write(fmt.Sprint(p)))
		w.subs[2].canAttach = nil
		w.subs[2].attach = syscall.EDOM
		n := w.subs[0].attached
		w.refused(linux.EDOM, "attach of the second", write(fmt.Sprint(p)))
		if w.subs[0].attached != n {
			t.Error("the first subsystem's attach was not undone")
		}
		w.subs[2].attach = nil
	}
	w.host.Reap(zombie)
}

// TestReusedTidIsNotMoved ends the task during the move and gives its tid to
// another.
func TestReusedTidIsNotMoved(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	other := w.fork(0)
	once := false
	w.host.During = func(tid int32) {
		if !once && tid == p {
			once = true
			w.host.Exit(p)
			w.host.ForkAs(other, p)
		}
	}
	if err := k.write("m/a/tasks", fmt.Sprint(p)); errno(err) != linux.ESRCH {
		t.Errorf("%v, want ESRCH", err)
	}
	w.host.During = nil
	k.want("m/a/tasks", "")
	k.want("m/tasks", fmt.Sprintf("1\n%d\n%d\n", p, other))
}

func TestWhoMayMove(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chown("m/a", 1000, 100))
	k.must(k.chmod("m/a/tasks", 0o666))
	k.must(k.chmod("m/a/procs", 0o666))
	mine, theirs, was, runs := w.fork(1000), w.fork(2000), w.fork(2000), w.fork(1000)
	w.host.saved[was], w.host.saved[runs] = 1000, 0 // runs is a program of root's that she has started
	for _, c := range []*Caller{alice, netA} {
		u := w.as(c)
		for _, file := range []string{"m/a/tasks", "m/a/procs"} {
			move := func(pid int32) func() error { return func() error { return u.write(file, fmt.Sprint(pid)) } }
			w.refused(linux.EACCES, "another's task", move(theirs))
			w.refused(linux.EACCES, "root's task", move(w.fork(0)))
			w.refused(linux.EACCES, "pid 1", move(hostsim.InitTID))
			w.refused(linux.ESRCH, "no such task comes first", move(4999))
			for _, pid := range []int32{mine, was, runs} {
				if !c.Local {
					k.must(k.chmod("m/tasks", 0o644))
					w.refused(linux.EACCES, "over the network, out of what is not his", move(pid))
					k.must(k.chmod("m/tasks", 0o646))
				}
				u.must(move(pid)())
				k.must(k.write("m/tasks", fmt.Sprint(pid)))
			}
		}
	}
	// A process is moved only if each thread may be.
	th := w.host.Thread(mine)
	w.host.SetOwner(th, 2000)
	w.refused(linux.EACCES, "a process with a thread of another", func() error {
		return w.as(alice).write("m/a/procs", fmt.Sprint(mine))
	})
	w.as(alice).must(w.as(alice).write("m/a/tasks", fmt.Sprint(mine)))

	// Protected tasks move for root on this host only.
	nr := w.as(netRoot)
	w.refused(linux.EACCES, "pid 1 over the network", func() error { return nr.write("m/a/tasks", "1") })
	w.refused(linux.EACCES, "pid 1's process over the network", func() error { return nr.write("m/a/procs", "1") })
	nr.must(nr.write("m/a/tasks", fmt.Sprint(theirs)))
	k.must(k.write("m/a/procs", "1"))
	k.want("m/a/tasks", fmt.Sprintf("1\n%d\n%d\n", mine, theirs))

	// Also where they are the caller's own.
	own := w.fork(1000)
	info, err := w.host.Task(own)
	k.must(err)
	w.fs.protected[own] = info.Start
	w.refused(linux.EACCES, "an ancestor of the server's that is his", func() error { return w.as(alice).write("m/a/tasks", fmt.Sprint(own)) })
	k.must(k.write("m/a/tasks", fmt.Sprint(own)))
	k.must(k.write("m/tasks", fmt.Sprint(own)))

	// Whoever the task is, the file's mode comes first.
	k.must(k.chmod("m/a/tasks", 0o644))
	w.refused(linux.EACCES, "a file that is not his", func() error { return w.as(alice).write("m/a/tasks", fmt.Sprint(mine)) })
}

// TestAncestry: protected are a process, those that it comes from, and pid 1.
func TestAncestry(t *testing.T) {
	w, _ := aWorld(t)
	first := w.fork(0)
	second := w.host.Fork(first)
	w.host.Fork(first)
	third := w.host.Fork(second)
	w.host.Fork(third)
	for pid, want := range map[int32][]int32{third: {hostsim.InitTID, first, second, third}, hostsim.InitTID: {hostsim.InitTID}, 4999: {hostsim.InitTID}} {
		got := w.fs.ancestry(pid)
		if tids := slices.Sorted(maps.Keys(got)); !slices.Equal(tids, want) {
			t.Errorf("of %d: %v, want %v", pid, tids, want)
		}
		for tid, start := range got {
			if info, err := w.host.Task(tid); err != nil || info.Start != start {
				t.Errorf("%d has started at %d, not %d (%v)", tid, info.Start, start, err)
			}
		}
	}
}

func TestMoveOfAnotherHierarchysTask(t *testing.T) {
	w, k := aWorld(t)
	w.mount("mount n beta")
	k.must(k.mkdir("n/x"))
	p := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("n/x/tasks", fmt.Sprint(p)))
	k.want("m/a/tasks", fmt.Sprintln(p))
	k.want("n/x/tasks", fmt.Sprintln(p))
	c := w.host.Fork(p)
	k.want(fmt.Sprintf("proc/%d/container", c), "beta:/x\nalpha,cpuset:/a\n")
}

func TestProc(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	th := w.host.Thread(p)
	k.must(k.write("m/a/tasks", fmt.Sprint(th)))
	k.want(fmt.Sprintf("proc/%d/container", p), "alpha,cpuset:/\n") // known at once
	k.want(fmt.Sprintf("proc/%d/container", th), "alpha,cpuset:/a\n")
	k.want(fmt.Sprintf("proc/%d/cpuset", th), "/a\n")
	if got := strings.Join(k.names("proc"), " "); got != fmt.Sprintf("1 %d", p) {
		t.Errorf("proc lists %q", got)
	}
	for _, name := range []string{"0", "-1", "+1", "01", "1x", "x", " 1", "1\n", "4999", "2147483648", "99999999999999999999", "self"} {
		w.refused(linux.ENOENT, "proc/"+name, func() error { _, err := k.walk("proc/" + name); return err })
	}
	w.refused(linux.ENOENT, "proc/1/x", func() error { _, err := k.walk("proc/1/x"); return err })
	w.refused(linux.ENOTDIR, "proc/1/cpuset/x", func() error { _, err := k.walk("proc/1/cpuset/x"); return err })
	w.refused(linux.EINVAL, "write", func() error { return k.write("proc/1/cpuset", "/a") })
	w.as(alice).want(fmt.Sprintf("proc/%d/cpuset", th), "/a\n")
	w.as(netA).want(fmt.Sprintf("proc/%d/container", th), "alpha,cpuset:/a\n")

	dir := k.parentOf(fmt.Sprintf("proc/%d/", p))
	file := k.parentOf(fmt.Sprintf("proc/%d/cpuset/", p))
	w.host.Exit(th)
	w.host.Exit(p)
	w.refused(linux.ENOENT, "walk after the exit", func() error { _, err := k.walk(fmt.Sprintf("proc/%d", p)); return err })
	w.refused(linux.ESRCH, "walk in it", func() error { _, _, err := dir.Walk([]string{"cpuset"}); return err })
	w.refused(linux.ESRCH, "open", func() error { _, _, err := file.Open(0); return err })
	for _, f := range []p9.File{dir, file} {
		w.refused(linux.ESRCH, "getattr", func() error { _, _, _, err := f.GetAttr(p9.AttrMask{}); return err })
	}
	// Another process of that number is another directory.
	w.host.ForkAs(1, p)
	w.refused(linux.ESRCH, "open after reuse", func() error { _, _, err := file.Open(0); return err })
	k.want(fmt.Sprintf("proc/%d/cpuset", p), "/\n")

	// Unbound, the subsystem is in the default hierarchy's only container.
	v := newWorld(t)
	v.as(root).want("proc/1/cpuset", "/\n")
	v.as(root).want("proc/1/container", "")
}

// TestProcWithoutItsFirstThread: a process is there as long as one of its threads is.
func TestProcWithoutItsFirstThread(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	th := w.host.Thread(p)
	k.must(k.write("m/a/tasks", fmt.Sprint(th)))
	path := fmt.Sprintf("proc/%d", p)
	dir, file := k.parentOf(path+"/"), k.parentOf(path+"/container/")
	before, _, _, err := dir.GetAttr(p9.AttrMask{})
	k.must(err)
	first := k.parentOf(fmt.Sprintf("proc/%d/", th))
	w.host.Exit(p)
	k.want("m/procs", "1\n")
	k.want("m/a/procs", fmt.Sprintln(p))
	k.want(path+"/container", "alpha,cpuset:/a\n")
	k.want(path+"/cpuset", "/a\n")
	if got := strings.Join(k.names("proc"), " "); got != fmt.Sprintf("1 %d", p) {
		t.Errorf("proc lists %q", got)
	}
	if after, _, _, err := k.parentOf(path + "/").GetAttr(p9.AttrMask{}); after != before || err != nil {
		t.Errorf("qid %v, %v; was %v", after, err, before)
	}
	if qid, _, _, err := dir.GetAttr(p9.AttrMask{}); qid != before || err != nil {
		t.Errorf("by a fid of before: %v, %v", qid, err)
	}
	_, _, err = file.Open(p9.ReadOnly)
	k.must(err)
	if got, err := readAll(file); got != "alpha,cpuset:/a\n" || err != nil {
		t.Errorf("by a fid of before: %q, %v", got, err)
	}
	w.host.Exit(th)
	w.refused(linux.ENOENT, "walk after the last exit", func() error { _, err := k.walk(path); return err })
	for _, f := range []p9.File{dir, first} {
		w.refused(linux.ESRCH, "getattr", func() error { _, _, _, err := f.GetAttr(p9.AttrMask{}); return err })
	}
}

func TestTableOfSubsystems(t *testing.T) {
	w, k := aWorld(t)
	w.mount("mount n beta")
	k.must(k.mkdir("m/a/b"))
	const header = "#subsys_name\thierarchy\tnum_containers\tenabled\n"
	k.want("containers", header+"alpha\t1\t3\t1\nbeta\t2\t1\t1\ncpuset\t1\t3\t1\ndelta\t0\t1\t1\n")
	k.must(k.rmdir("m/a/b"))
	k.must(k.write("ctl", "umount n"))
	k.want("containers", header+"alpha\t1\t2\t1\nbeta\t0\t1\t1\ncpuset\t1\t2\t1\ndelta\t0\t1\t1\n")
}
