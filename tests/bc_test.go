package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBeancounters has what a real process holds show up in its container, and a
// barrier tell when it is crossed.
func TestBeancounters(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=bc")
	s.run("mkdir", "/h/a")
	c := startTalker(t, "echo here; read go; exec 6</dev/null 7</dev/null 8</dev/null; echo open; read end")
	if got := c.hear(); got != "here" {
		t.Fatal(got)
	}
	s.run("write", "/h/a/tasks", c.pid())
	held := func(resource string) (n int) {
		t.Helper()
		if _, err := fmt.Sscan(s.run("read", "/h/a/bc."+resource+".held"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if held("numproc") != 1 || held("physpages") < 10 || held("lockedpages") != 0 {
		t.Errorf("resources:\n%s", s.run("read", "/h/a/bc.resources"))
	}
	before := held("numfile")
	s.run("write", "/h/a/bc.numfile.barrier", fmt.Sprint(before))
	c.tell("go")
	if got := c.hear(); got != "open" {
		t.Fatal(got)
	}
	// Nobody has to read for it to be told.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if strings.Contains(s.run("read", "/h/events"), " limit hierarchy=h path=/a over=bc.numfile.barrier\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no limit event:\n%s%s", s.run("read", "/h/events"), s.run("read", "/h/a/bc.resources"))
		}
	}
	if got := held("numfile"); got != before+3 {
		t.Errorf("%d files, want %d", got, before+3)
	}
	if got := s.run("read", "/h/a/bc.numfile.failcnt"); got != "1\n" {
		t.Errorf("failcnt is %q", got)
	}
	if code, _, _ := s.command("write", "/h/a/bc.numfile.limit", "1"); code == 0 {
		t.Error("a limit under the barrier is taken")
	}
}

// TestBeancounterLimits has a real process run into the limit of its container, and
// get its own back: in a guest, whose root may set rlimits for sure.
func TestBeancounterLimits(t *testing.T) {
	if !inside {
		runInside(t, "^TestBeancounterLimits$")
		return
	}
	s := startServer(t, "--hierarchy", "h=bc")
	if log := s.log.String(); !strings.Contains(log, "it bounds each process by the limits of numfile and lockedpages") {
		t.Errorf("what is in force is not said:\n%s", log)
	}
	s.run("mkdir", "/h/a")
	// It says what limits it has.
	c := startTalker(t, "ulimit -n 64; while read go; do ulimit -Sn; ulimit -Hn; ulimit -Hl; done")
	says := func() (said [3]string) {
		t.Helper()
		c.tell("go")
		for i := range said {
			said[i] = c.hear()
		}
		return said
	}
	own := says()
	s.run("write", "/h/a/tasks", c.pid())
	s.run("write", "/h/a/bc.lockedpages.barrier", "4")
	s.run("write", "/h/a/bc.lockedpages.limit", "4")
	s.run("write", "/h/a/bc.numfile.barrier", "40")
	s.run("write", "/h/a/bc.numfile.limit", "40")
	if got, want := says(), [3]string{"40", "40", "16"}; got != want {
		t.Errorf("in the container its limits are %q, want %q", got, want)
	}
	s.run("write", "/h/tasks", c.pid())
	if got := says(); got != own {
		t.Errorf("after it has left its limits are %q, want %q", got, own)
	}
}

// TestBeancounterLimitsBack: a process that leaves its container has the rlimits again
// that it had, also when the server was ended meanwhile, in both ways; so has a child
// that was born without one. And limits are held as before.
func TestBeancounterLimitsBack(t *testing.T) {
	if !inside {
		runInside(t, "^TestBeancounterLimitsBack$")
		return
	}
	dir := t.TempDir()
	args := []string{"--state", dir, "--hierarchy", "h=bc"}
	s := startServer(t, args...)
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/bc.numfile.barrier", "40")
	s.run("write", "/h/a/bc.numfile.limit", "40")
	rlimit := func(pid int, set *unix.Rlimit) (l unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, set, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	own, lowered := unix.Rlimit{Cur: 64, Max: 128}, unix.Rlimit{Cur: 40, Max: 40}
	for how, end := range map[string]func(){"killed": func() { s.kill9() }, "stopped": func() { s.stop() }} {
		p := startSpawner(t)
		rlimit(p.pid(), &own)
		s.run("write", "/h/a/tasks", fmt.Sprint(p.pid()))
		if got := rlimit(p.pid(), nil); got != lowered {
			t.Fatalf("in the container its limit is %v, want %v", got, lowered)
		}
		before := p.fork()
		end()
		born := p.fork()
		rlimit(before, &unix.Rlimit{Cur: 500, Max: 600})
		s = startServer(t, args...)
		waitFor(t, how+": a child to be lowered again", func() bool { return rlimit(before, nil) == lowered })
		for _, pid := range []int{p.pid(), born} {
			if got := rlimit(pid, nil); got != lowered {
				t.Errorf("%s: after a restart the limit of %d is %v, want %v", how, pid, got, lowered)
			}
			s.run("write", "/h/tasks", fmt.Sprint(pid))
			if got := rlimit(pid, nil); got != own {
				t.Errorf("%s: after it has left the limit of %d is %v, want %v", how, pid, got, own)
			}
		}
		s.run("write", "/h/tasks", fmt.Sprint(before))
		if got, want := rlimit(before, nil), (unix.Rlimit{Cur: 500, Max: 600}); got != want {
			t.Errorf("%s: what it has raised itself is %v, want %v", how, got, want)
		}
	}
	s.stop()
}
