package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThreads: all of the server's threads have timers with slack and, where the kernel lets
// threads say for how long they want to run at a time, short slices. They are as nice as they
// were.
func TestThreads(t *testing.T) {
	const slack = 200 * time.Microsecond
	const want = time.Millisecond
	p := startSpawner(t)
	attr, err := unix.SchedGetAttr(p.pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	usual := attr.Runtime
	attr.Runtime = uint64(want)
	if err := unix.SchedSetAttr(p.pid(), attr, 0); err != nil {
		t.Fatal(err)
	}
	if attr, err = unix.SchedGetAttr(p.pid(), 0); err != nil {
		t.Fatal(err)
	}
	able := attr.Runtime == uint64(want)
	t.Logf("a slice can be chosen: %v; it is %v else", able, time.Duration(usual))

	nice := min(attr.Nice+3, 19)
	s := startServerAs(t, func(c *exec.Cmd) {
		c.Path, c.Args = "/usr/bin/nice", append([]string{"nice", "-n", "3"}, c.Args...)
	}, "--state", "none", "--hierarchy", "h=debug")
	s.run("mkdir", "/h/a")
	dir := fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range threads {
		tid, _ := strconv.Atoi(d.Name())
		attr, err := unix.SchedGetAttr(tid, 0)
		if err == syscall.ESRCH {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if attr.Nice != nice || attr.Policy != unix.SCHED_NORMAL || able && attr.Runtime != uint64(want) {
			t.Errorf("thread %d: %+v", tid, attr)
		}
		has, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
		if want := fmt.Sprintln(slack.Nanoseconds()); !errors.Is(err, os.ErrNotExist) && string(has) != want {
			t.Errorf("thread %d: slack of %q, %v; want %q", tid, has, err, want)
		}
	}
	if len(threads) < 3 {
		t.Errorf("%d threads", len(threads))
	}
}
