package ops

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestKill(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	k.must(k.mkdir("m/c"))
	for _, data := range []string{"", "0", "2", "01", "1 ", " 1", "1\n\n", "+1", "11", "kill", "1\x00", "\n"} {
		w.refused(linux.EINVAL, fmt.Sprintf("%q", data), func() error { return k.write("m/a/kill", data) })
	}
	w.refused(linux.ENOENT, "of a hierarchy", func() error { return k.write("m/kill", "1") })
	k.must(k.write("m/a/kill", "1")) // nobody there
	for i := range 20 {
		p := w.fork(0)
		w.host.Thread(p)
		k.must(k.write([]string{"m/a/procs", "m/a/b/procs"}[i%2], fmt.Sprint(p)))
	}
	outside := w.fork(0)
	k.must(k.write("m/c/tasks", fmt.Sprint(outside)))
	half := w.fork(0) // with one thread inside
	th := w.host.Thread(half)
	k.must(k.write("m/a/tasks", fmt.Sprint(th)))

	// The first generations have children while they are killed, which nobody
	// tells of before the next drain.
	generations := 0
	w.host.onKill = func(tgid int32) {
		if generations < 50 && tgid != half {
			generations++
			w.host.Fork(tgid)
		}
	}
	k.must(k.write("m/a/kill", "1\n"))
	k.want("m/a/populated", "0\n")
	k.want("m/tasks", "1\n")
	k.want("m/c/tasks", fmt.Sprintln(outside))
	if generations != 50 {
		t.Errorf("%d children were born", generations)
	}
	k.must(k.rmdir("m/a/b"))
}

// TestKillAndRemoved: when somebody removes the container as soon as it is empty, the kill
// has done what it was to do.
func TestKillAndRemoved(t *testing.T) {
	w, k := aWorld(t)
	for i := range 20 {
		dir := fmt.Sprintf("m/k%d", i)
		k.must(k.mkdir(dir))
		p := w.fork(0)
		k.must(k.write(dir+"/tasks", fmt.Sprint(p)))
		w.host.HoldExits()
		killed := make(chan struct{})
		once := sync.OnceFunc(func() { close(killed) })
		w.host.onKill = func(int32) { once() }
		removed := make(chan error)
		go func() {
			<-killed
			w.host.ReleaseExits()
			err := k.rmdir(dir)
			for err != nil {
				err = k.rmdir(dir)
			}
			removed <- err
		}()
		if err := k.write(dir+"/kill", "1"); err != nil {
			t.Errorf("kill %d: %v", i, err)
		}
		k.must(<-removed)
	}
}

// TestKillMissesNoChild has a process fork and exit by itself at the worst
// moment: after the members were listed, before they are looked at.
func TestKillMissesNoChild(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	var child int32
	w.host.onTask = func(tid int32) {
		if tid == p && child == 0 {
			child = w.host.Fork(p)
			w.host.Exit(p)
		}
	}
	k.must(k.write("m/a/kill", "1"))
	if child == 0 {
		t.Fatal("there was no child")
	}
	if _, err := w.host.Host.Task(child); err == nil {
		t.Error("the child lives")
	}
	k.want("m/a/tasks", "")

	// The same with a first thread that ends before the others.
	w.host.onTask = nil
	p = w.fork(0)
	var last int32
	for range 3 {
		last = w.host.Thread(p)
	}
	k.must(k.write("m/a/procs", fmt.Sprint(p)))
	seen := false
	w.host.onTask = func(tid int32) {
		if !seen {
			seen = true
			for tid := p; tid < last; tid++ {
				w.host.Exit(tid)
			}
		}
	}
	k.must(k.write("m/a/kill", "1"))
	w.host.onTask = nil
	if _, err := w.host.Host.Task(last); err == nil {
		t.Error("the last thread lives")
	}
}

// TestKillWhileAFirstThreadIsReplaced has a thread execute a program, and so get the number
// of the process, after that was seen to have ended, with the end told late.
func TestKillWhileAFirstThreadIsReplaced(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	thread := w.host.Thread(p)
	k.must(k.write("m/a/tasks", fmt.Sprint(thread)))
	k.must(k.write("m/a/tasks", fmt.Sprint(p))) // is looked at first
	w.host.HoldExits()
	stage := 0
	w.host.onTask = func(tid int32) {
		switch {
		case stage == 0 && tid == p:
			stage = 1
			w.host.Exit(p) // the others do not end with it
		case stage == 1 && tid == thread:
			stage = 2
			w.host.Exec(thread)
		}
	}
	k.must(k.write("m/a/kill", "1"))
	w.host.onTask = nil
	if _, err := w.host.Host.Task(p); err == nil || stage != 2 {
		t.Errorf("the process lives, or there was no exec (%d)", stage)
	}
	w.host.ReleaseExits()
	k.want("m/a/tasks", "")
}

// TestProtectedIsNoNumber: who has the number of an ancestor of the server's that has ended
// is killed and moved like anybody.
func TestProtectedIsNoNumber(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(1000)
	info, err := w.host.Task(p)
	k.must(err)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	w.fs.protected[p] = info.Start
	w.refused(linux.EACCES, "kill of an ancestor", func() error { return k.write("m/a/kill", "1") })
	w.host.Exit(p)
	for range 200 { // until a tick of the clock has gone by
		w.fork(0)
	}
	w.host.ForkAs(hostsim.InitTID, p)
	w.host.SetOwner(p, 1000)
	if again, err := w.host.Task(p); err != nil || again.Start == info.Start {
		t.Fatal("it has the start time too", err)
	}
	k.must(k.chmod("m/a/tasks", 0o666))
	net := w.as(netRoot)
	net.must(net.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("m/a/kill", "1"))
	if _, err := w.host.Host.Task(p); err == nil {
		t.Error("it lives")
	}
}

func TestWhoMayKill(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chown("m/a/kill", 1000, 100))
	k.must(k.mkdir("m/a/b"))
	mine, theirs := w.fork(1000), w.fork(2000)
	for _, pid := range []int32{mine, theirs} {
		k.must(k.write("m/a/b/tasks", fmt.Sprint(pid)))
	}
	al, na := w.as(alice), w.as(netA)
	w.refused(linux.EACCES, "one of them is another's", func() error { return al.write("m/a/kill", "1") })
	w.refused(linux.EACCES, "the file is not his", func() error { return w.as(bob).write("m/a/kill", "1") })
	k.must(k.write("m/tasks", fmt.Sprint(theirs)))
	w.refused(linux.EACCES, "over the network, tasks is not his", func() error { return na.write("m/a/kill", "1") })
	k.must(k.chown("m/a/b/tasks", 1000, 100))
	na.must(na.write("m/a/kill", "1"))
	k.want("m/a/b/tasks", "")
	mine = w.fork(1000)
	k.must(k.write("m/a/b/tasks", fmt.Sprint(mine)))
	al.must(al.write("m/a/kill", "1"))

	k.must(k.write("m/a/tasks", "1"))
	w.refused(linux.EACCES, "pid 1", func() error { return k.write("m/a/kill", "1") })
	k.must(k.write("m/tasks", "1"))

	// The server need not be root.
	refuses := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(refuses)))
	w.host.refuse = map[int32]bool{refuses: true}
	w.refused(linux.EPERM, "what the server may not kill", func() error { return k.write("m/a/kill", "1") })
	w.host.refuse = nil
	w.host.Thread(refuses)
	w.host.killed = 0
	k.must(k.write("m/a/kill", "1"))
	if w.host.killed != 1 {
		t.Errorf("a process of two threads was killed %d times", w.host.killed)
	}

	// A kernel thread is no process that could be killed.
	kernel, p := w.fork(0), w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(kernel)))
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	w.host.kernel[kernel] = true
	k.must(k.write("m/a/kill", "1"))
	k.want("m/a/tasks", fmt.Sprintln(kernel))
}

// TestKillStopsNewcomers: those that are born while others are killed are stopped first. One that
// is not killed goes on: the caller may not kill another, or somebody has moved it away.
func TestKillStopsNewcomers(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chown("m/a/kill", 1000, 100))
	var first, second, theirs int32
	w.host.onKill = func(tgid int32) {
		if first == 0 {
			first, second = w.host.Fork(tgid), w.host.Fork(tgid)
		}
	}
	w.host.onStop = func(tgid int32) {
		if tgid == first {
			theirs = w.host.Fork(tgid)
			w.host.SetOwner(theirs, 2000)
		}
	}
	p := w.fork(1000)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	al := w.as(alice)
	if err := al.write("m/a/kill", "1"); errno(err) != linux.EACCES {
		t.Errorf("%v, want EACCES", err)
	}
	w.host.onStop = nil
	k.want("m/a/tasks", fmt.Sprintf("%d\n%d\n%d\n", first, second, theirs))
	if len(w.host.stops) != 2 || w.host.stops[first] || w.host.stops[second] {
		t.Errorf("stopped are %v, want none any more of %d and %d", w.host.stops, first, second)
	}
	k.must(k.write("m/a/kill", "1"))
	k.want("m/a/tasks", "")

	clear(w.host.stops)
	p, first = w.fork(0), 0
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	at := k.root.(*file).at
	h := newHunt()
	once := func(now bool) (left int) {
		err := w.tree.Change(func() (err error) {
			left, err = at.killOnce(w.container("m/a"), h, now)
			return err
		})
		k.must(err)
		return left
	}
	once(true)
	once(false)
	if !w.host.stops[first] || !w.host.stops[second] {
		t.Errorf("stopped are %v, want %d and %d", w.host.stops, first, second)
	}
	k.must(k.write("m/tasks", fmt.Sprint(first)))
	once(false)
	if left := once(false); left != 0 {
		t.Errorf("%d are left", left)
	}
	w.fs.resume(h)
	if w.host.stops[first] {
		t.Error("one that was moved away stays stopped")
	}
	k.want("m/tasks", fmt.Sprintf("1\n%d\n", first))
}

// TestKillOfExiting: who was killed, has begun to exit and does not get to the end, as the first
// process of a pid namespace can be kept from it, is not waited for; another is.
func TestKillOfExiting(t *testing.T) {
	w, k := aWorld(t)
	p := w.fork(0)
	thread := w.host.Thread(p)
	k.must(k.write("m/a/procs", fmt.Sprint(p)))
	w.host.immune = map[int32]bool{p: true}
	w.host.onKill = func(int32) { w.host.Exiting(p); w.host.Exiting(thread) }
	begun := time.Now()
	k.must(k.write("m/a/kill", "1"))
	if took := time.Since(begun); took < tree.ExitDue {
		t.Errorf("it was given up after %v", took)
	}
	k.want("m/a/tasks", "")
	k.want("m/a/populated", "0\n")
	w.host.Exit(thread)
	w.host.Exit(p)
	k.want("m/tasks", "1\n")
	k.must(k.rmdir("m/a"))

	killLimit = 4 * tree.ExitDue
	t.Cleanup(func() { killLimit = 30 * time.Second })
	k.must(k.mkdir("m/a"))
	p = w.fork(0)
	thread = w.host.Thread(p)
	k.must(k.write("m/a/procs", fmt.Sprint(p)))
	w.host.immune = map[int32]bool{p: true}
	w.host.onKill = func(int32) { w.host.Exiting(p) } // the other hangs
	if err := k.write("m/a/kill", "1"); errno(err) != linux.EAGAIN {
		t.Errorf("with one that hangs: %v, want EAGAIN", err)
	}
	k.want("m/a/tasks", fmt.Sprintln(thread))
}

func TestKillGivesUp(t *testing.T) {
	w, k := aWorld(t)
	killLimit = 50 * time.Millisecond
	t.Cleanup(func() { killLimit = 30 * time.Second })
	p := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	w.host.immune = map[int32]bool{p: true}
	w.refused(linux.EAGAIN, "what does not die", func() error { return k.write("m/a/kill", "1") })
}

// Whose exit is late, or was never told, is not in the container when the kill is over.
func TestKillWhenAnExitIsLate(t *testing.T) {
	for _, told := range []bool{true, false} {
		w, k := aWorld(t)
		p := w.host.Fork(1)
		k.must(k.write("m/a/tasks", fmt.Sprint(p)))
		w.host.HoldExits()
		if told {
			time.AfterFunc(20*time.Millisecond, w.host.ReleaseExits)
		}
		k.must(k.write("m/a/kill", "1"))
		k.want("m/a/tasks", "")
		k.want("m/a/populated", "0\n")
	}
}
