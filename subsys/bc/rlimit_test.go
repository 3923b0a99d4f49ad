package bc

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

func TestNextCap(t *testing.T) {
	const none = noRlimit
	own := Rlimit{10, 100}
	lowered := cap{own, 20, 20}
	for _, test := range []struct {
		name  string
		was   cap
		now   Rlimit
		bound uint64
		cap   cap
		is    Rlimit
	}{
		{"none", uncapped, own, none, uncapped, own},
		{"over both", uncapped, own, 200, cap{own, 200, 200}, own},
		{"between", uncapped, own, 20, lowered, Rlimit{10, 20}},
		{"under both", uncapped, own, 5, cap{own, 5, 5}, Rlimit{5, 5}},
		{"none of none", uncapped, Rlimit{none, none}, 0, cap{Rlimit{none, none}, 0, 0}, Rlimit{0, 0}},
		{"again", lowered, Rlimit{10, 20}, 20, lowered, Rlimit{10, 20}},
		{"lower", lowered, Rlimit{10, 20}, 5, cap{own, 5, 5}, Rlimit{5, 5}},
		{"higher", lowered, Rlimit{10, 20}, 50, cap{own, 50, 50}, Rlimit{10, 50}},
		{"given back", lowered, Rlimit{10, 20}, none, uncapped, own},
		{"raised", lowered, Rlimit{60, 60}, 20, cap{Rlimit{60, 60}, 20, 20}, Rlimit{20, 20}},
		{"its own soft", lowered, Rlimit{15, 20}, none, uncapped, Rlimit{15, 100}},
		{"its own hard", lowered, Rlimit{10, 12}, none, uncapped, Rlimit{10, 12}},
	} {
		if k, is := test.was.next(test.now, test.bound); k != test.cap || is != test.is {
			t.Errorf("%s: %v and %v, want %v and %v", test.name, k, is, test.cap, test.is)
		}
	}
}

// rlimit is what the simulated host has for a process.
func (f *fixture) rlimit(tid int32, r resource) Rlimit {
	f.t.Helper()
	l, err := f.host.Rlimit(tid, r, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

func (f *fixture) wantRlimit(tid int32, r resource, soft, hard uint64) {
	f.t.Helper()
	if got, want := f.rlimit(tid, r), (Rlimit{soft, hard}); got != want {
		f.t.Errorf("the limit of %s of %d is %v, want %v", names[r], tid, got, want)
	}
}

// fork forks a process that has its forker's rlimits.
func (f *fixture) fork(p int32) int32 {
	c := f.sim.Fork(p)
	for _, r := range capped {
		l := f.rlimit(p, r)
		if _, err := f.host.Rlimit(c, r, &l); err != nil {
			f.t.Fatal(err)
		}
	}
	return c
}

func TestLimitsBoundProcesses(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	k := f.mkdir(a, "k")
	p := f.fork(1)
	th := f.sim.Thread(p)
	f.attach(k, p)
	f.wantRlimit(p, numfile, 1024, 4096)
	// At once, and below.
	f.set(a, "numfile.barrier", 1)
	f.set(a, "lockedpages.barrier", 1)
	f.wantRlimit(p, numfile, 1024, 4096)
	f.set(a, "numfile.limit", 100)
	f.wantRlimit(p, numfile, 100, 100)
	f.wantRlimit(p, lockedpages, 1024, 4096)
	// The least of those above.
	f.set(k, "numfile.barrier", 1)
	f.set(k, "numfile.limit", 200)
	f.wantRlimit(p, numfile, 100, 100)
	f.set(k, "numfile.limit", 50)
	f.wantRlimit(p, numfile, 50, 50)
	// A child is born with it, and given the forker's own back.
	c := f.fork(p)
	f.wantRlimit(c, numfile, 50, 50)
	f.attach(a, c)
	f.wantRlimit(c, numfile, 100, 100)
	f.attach(f.root, c)
	f.wantRlimit(c, numfile, 1024, 4096)
	// A thread alone takes nothing along.
	f.attach(f.root, th)
	f.wantRlimit(p, numfile, 50, 50)
	// Raised, it is given back as far as it goes.
	f.set(k, "numfile.limit", 2000)
	f.set(a, "numfile.limit", 2000)
	f.wantRlimit(p, numfile, 1024, 2000)
	f.set(k, "numfile.limit", unlimited)
	f.set(a, "numfile.limit", unlimited)
	f.wantRlimit(p, numfile, 1024, 4096)
	if len(f.bc.caps) != 0 {
		t.Errorf("%d processes are remembered", len(f.bc.caps))
	}
	// Newcomers.
	f.set(a, "lockedpages.limit", 7)
	q := f.fork(1)
	f.attach(a, q)
	f.wantRlimit(q, lockedpages, 7, 7)
	f.wantRlimit(q, numfile, 1024, 4096)
	// The root's limits bound nobody.
	f.set(f.root, "numfile.barrier", 1)
	f.set(f.root, "numfile.limit", 1)
	f.enforce()
	f.wantRlimit(q, numfile, 1024, 4096)
	f.wantRlimit(1, numfile, 1024, 4096)
}

func TestLimitsAreKept(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	f.set(a, "numfile.barrier", 1)
	f.set(a, "numfile.limit", 100)
	p := f.fork(1)
	f.attach(a, p)
	// Raised by itself.
	raised := Rlimit{300, 300}
	if _, err := f.host.Rlimit(p, numfile, &raised); err != nil {
		t.Fatal(err)
	}
	f.enforce()
	f.wantRlimit(p, numfile, 100, 100)
	// Those that have ended are forgotten.
	q := f.fork(p)
	f.Drain()
	if len(f.bc.caps) != 2 {
		t.Errorf("%d processes are remembered, want 2", len(f.bc.caps))
	}
	f.sim.Exit(q)
	f.enforce()
	if len(f.bc.caps) != 1 {
		t.Errorf("%d processes are remembered, want 1", len(f.bc.caps))
	}
	f.attach(f.root, p)
	f.wantRlimit(p, numfile, 300, 300)
}

func TestAttachIsUndoneWithItsLimits(t *testing.T) {
	f := newFixture(t, everything)
	a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
	f.set(a, "numfile.barrier", 1)
	f.set(a, "numfile.limit", 100)
	f.set(b, "numfile.barrier", 1)
	f.set(b, "numfile.limit", 50)
	p := f.fork(1)
	f.attach(a, p)
	task := f.task(p)
	undo, err := f.bc.Attach(task, a, b)
	if err != nil {
		t.Fatal(err)
	}
	f.wantRlimit(p, numfile, 50, 50)
	undo()
	f.wantRlimit(p, numfile, 100, 100)
	f.attach(f.root, p)
	f.wantRlimit(p, numfile, 1024, 4096)

	// Undone for another process that has the number by now, it touches nothing.
	f.attach(a, p)
	if undo, err = f.bc.Attach(task, a, b); err != nil {
		t.Fatal(err)
	}
	other := Rlimit{7, 8}
	if _, err := f.host.Rlimit(p, numfile, &other); err != nil {
		t.Fatal(err)
	}
	undo()
	f.wantRlimit(p, numfile, 7, 8)

	// What the host refuses fails the attach.
	q := f.fork(1)
	f.host.refuse = map[int32]error{q: syscall.EPERM}
	if err := f.Attach(tree.AttachRequest{To: a, ID: q}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("attach: %v", err)
	}
	f.View(func() {
		if f.Task(q).Container(f.root.Hierarchy()) != f.root {
			t.Error("the task is not where it was")
		}
	})
	// A write says whom it missed, and goes on.
	r := f.fork(1)
	f.attach(b, r)
	f.host.refuse = map[int32]error{r: syscall.EPERM}
	f.log.Reset()
	f.set(b, "numfile.limit", 40)
	f.enforce()
	f.enforce()
	if got := f.log.String(); strings.Count(got, "processes=1") != 2 {
		t.Errorf("logged %s", got)
	}
	f.host.refuse = nil
	f.enforce()
	f.wantRlimit(r, numfile, 40, 40)
}

func (f *fixture) task(tid int32) (task *tree.Task) {
	f.View(func() { task = f.Task(tid) })
	return task
}

// Without the privilege nothing is touched, and that is said.
func TestLimitsCannotBeSet(t *testing.T) {
	var log strings.Builder
	s := New(&usages{measures: everything, unlimited: true}, slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(log.String(), "CAP_SYS_RESOURCE") {
		t.Errorf("logged %s", log.String())
	}
	if undo, err := s.Attach(nil, nil, nil); undo != nil || err != nil {
		t.Errorf("attach: %v", err)
	}
}

// TestRlimitOfProcess sets those of a real process.
func TestRlimitOfProcess(t *testing.T) {
	host := NewHost()
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	pid := int32(c.Process.Pid)
	page := uint64(os.Getpagesize())
	type setting struct {
		r    resource
		kind int
		set  Rlimit
		want unix.Rlimit
	}
	settings := []setting{
		{numfile, unix.RLIMIT_NOFILE, Rlimit{11, 12}, unix.Rlimit{Cur: 11, Max: 12}},
		{lockedpages, unix.RLIMIT_MEMLOCK, Rlimit{3, 4}, unix.Rlimit{Cur: 3 * page, Max: 4 * page}},
	}
	raised := []setting{
		{lockedpages, unix.RLIMIT_MEMLOCK, Rlimit{3, noRlimit}, unix.Rlimit{Cur: 3 * page, Max: unix.RLIM_INFINITY}},
		{lockedpages, unix.RLIMIT_MEMLOCK, Rlimit{noRlimit / 2, noRlimit}, unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}},
	}
	if host.Limits() {
		settings = append(settings, raised...)
	} else if _, err := host.Rlimit(pid, lockedpages, &raised[1].set); !errors.Is(err, syscall.EPERM) {
		t.Errorf("raised without the privilege: %v", err)
	}
	for _, test := range settings {
		if _, err := host.Rlimit(pid, test.r, &test.set); err != nil {
			t.Fatal(err)
		}
		var got unix.Rlimit
		if err := unix.Prlimit(int(pid), test.kind, nil, &got); err != nil || got != test.want {
			t.Errorf("%s: %v, %v, want %v", names[test.r], got, err, test.want)
		}
	}
	if l, err := host.Rlimit(pid, numfile, nil); err != nil || l != (Rlimit{11, 12}) {
		t.Errorf("it has %v, %v", l, err)
	}
	if _, err := host.Rlimit(1<<22+1, numfile, nil); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("of no process: %v", err)
	}
}
