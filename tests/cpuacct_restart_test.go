package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"containerfs/ops/store"
)

// ran is what a thread has run, in nanoseconds, as the scheduler says.
func ran(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return number(t, strings.Fields(string(text))[0])
}

// TestCpuacctWhileStopped: what a process runs while the server is stopped is counted by the
// next one, also that of a child which was born then; not once more by the one after that.
func TestCpuacctWhileStopped(t *testing.T) {
	state := t.TempDir()
	start := func() *server { return startServer(t, "--state", state, "--hierarchy", "cpu=cpuacct") }
	s := start()
	s.run("mkdir", "/cpu/a")
	// It runs all the time, and forks one that does when it is told to.
	cmd := exec.Command("sh", "-c", `trap 'while :; do :; done & echo $!' USR1; while :; do :; done`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := spawn(t, cmd)
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	pid := cmd.Process.Pid
	least := ran(t, pid)
	s.run("write", "/cpu/a/tasks", fmt.Sprint(pid))
	most := ran(t, pid) // the container's began in between
	s.stop()

	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child := number(t, strings.TrimSpace(line))
	began := ran(t, pid)
	waitFor(t, "time to be used", func() bool {
		return ran(t, pid)-began > int(300*time.Millisecond) && ran(t, child) > int(300*time.Millisecond)
	})
	// Readings of who runs are as of the last tick.
	const tick = int(20 * time.Millisecond)
	agree := func(when string) {
		t.Helper()
		low := ran(t, pid) - most + ran(t, child) - 2*tick
		got := number(t, strings.TrimSpace(s.run("read", "/cpu/a/cpuacct.usage")))
		if high := ran(t, pid) - least + ran(t, child) + 2*tick; got < low || got > high {
			t.Errorf("%s: usage %v, want %v to %v", when, time.Duration(got), time.Duration(low), time.Duration(high))
		}
	}
	s = start()
	agree("started again")
	s.stop()
	s = start()
	agree("and again")

	syscall.Kill(-pid, syscall.SIGKILL)
	cmd.Wait()
	waitFor(t, "the container to be empty", func() bool { return s.run("read", "/cpu/a/tasks") == "" })
	s.run("rmdir", "/cpu/a")
	s.stop()
	retireMirrors(t, state)
}

// TestCpuacctKept: what was run until the server was stopped is counted, also of who ends while there
// is none; and of a server that is killed what was run until the last checkpoint, whether or not
// it was asked for.
func TestCpuacctKept(t *testing.T) {
	state := t.TempDir()
	start := func() *server { return startServer(t, "--state", state, "--hierarchy", "other=debug") }
	s := start()
	s.run("write", "/ctl", "mount cpu cpuacct")
	s.run("mkdir", "/cpu/a")
	burn := func() (cmd *exec.Cmd, before int) {
		t.Helper()
		cmd = exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		spawn(t, cmd)
		s.run("write", "/cpu/a/tasks", fmt.Sprint(cmd.Process.Pid))
		return cmd, ran(t, cmd.Process.Pid) // the container's began before
	}
	end := func(cmd *exec.Cmd) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	usage := func() int { return number(t, s.run("read", "/cpu/a/cpuacct.usage")) }
	const tick = int(20 * time.Millisecond) // readings of who runs are as of the last one

	was := usage()
	cmd, before := burn()
	waitFor(t, "time to be used", func() bool { return ran(t, cmd.Process.Pid)-before > int(300*time.Millisecond) })
	least := was + ran(t, cmd.Process.Pid) - before - tick
	s.stop()
	end(cmd)
	s = start()
	if got := usage(); got < least {
		t.Errorf("stopped, and the process has ended: usage %v, want %v or more", time.Duration(got), time.Duration(least))
	}

	// row is what is kept of the only container that there is.
	row := func() (row []byte) {
		t.Helper()
		_, err := store.Read(state, func(k store.Key, value []byte) error {
			if k.Bucket == store.Containers {
				row = bytes.Clone(value)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	// The interval of load, at whose end all is read, begins with the mount, and so ends after the
	// checkpoint, which comes by the server's time.
	s.run("rmdir", "/cpu/a")
	s.run("write", "/ctl", "umount cpu")
	s.run("write", "/ctl", "mount cpu cpuacct")
	s.run("mkdir", "/cpu/a")
	cmd, before = burn()
	first := row()
	for {
		now := ran(t, cmd.Process.Pid)
		if is := row(); !bytes.Equal(is, first) {
			break
		}
		least = now - before - tick
		time.Sleep(100 * time.Millisecond)
	}
	s.kill9()
	end(cmd)
	s = start()
	if got := usage(); got < least {
		t.Errorf("killed: usage %v, want %v or more", time.Duration(got), time.Duration(least))
	}
	waitFor(t, "the container to be empty", func() bool { return s.run("read", "/cpu/a/tasks") == "" })
	s.run("rmdir", "/cpu/a")
	s.stop()
	retireMirrors(t, state)
}
