package tests

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// accounts are two containers and, in the kernel's own cpuacct, two of the same
// names.
type accounts struct {
	*server
	kernel string
}

// attach moves a process that does not run at the moment into both.
func (a *accounts) attach(name string, pid int) {
	a.t.Helper()
	a.run("write", "/h/"+name+"/procs", fmt.Sprint(pid))
	writeFile(a.t, filepath.Join(a.kernel, name, "cgroup.procs"), fmt.Sprint(pid))
}

// compare fails the test where the two usages differ by 1 % or more.
func (a *accounts) compare(name string) {
	a.t.Helper()
	text, err := os.ReadFile(filepath.Join(a.kernel, name, "cpuacct.usage"))
	if err != nil {
		a.t.Fatal(err)
	}
	want := time.Duration(number(a.t, string(text)))
	got := time.Duration(number(a.t, a.run("read", "/h/"+name+"/cpuacct.usage")))
	diff := 100 * float64(got-want) / float64(want)
	a.t.Logf("%s: %v, the kernel's %v: %+.3f %%", name, got, want, diff)
	if math.Abs(diff) >= 1 || want < 500*time.Millisecond {
		a.t.Errorf("%s: usage is %v, the kernel's %v: off by %.2f %%", name, got, want, diff)
	}
}

// burner is a shell that has not begun its script, which may `spin N`: use the
// CPU for about N ms.
func burner(t *testing.T, loops int, script string) (pid int, begin func(), wait func()) {
	t.Helper()
	c := exec.Command("sh", "-c", fmt.Sprintf("spin() { i=0; while [ $i -lt $(($1*%d)) ]; do i=$((i+1)); done; }; read begin; ", loops)+script)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	begin = func() {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
	return c.Process.Pid, begin, func() {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// loopsPerMs measures what a shell does in a millisecond here, at best: a guest takes
// for used what its host has given to others.
func loopsPerMs(t *testing.T) (most int) {
	t.Helper()
	const loops = 50000
	for range 3 {
		c := exec.Command("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); done", loops))
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		used := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		most = max(most, 1, int(loops*time.Millisecond/max(used, time.Millisecond)))
	}
	return most
}

// TestKernelCPUAcct has processes in containers and in the kernel's own cpuacct at
// the same time: many that live 5 ms, some that live long, and one that is moved
// when half of what it does is done. Usage is the same but for 1 %.
func TestKernelCPUAcct(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{cpus: 2}, "^TestKernelCPUAcct$")
		return
	}
	a := &accounts{startServer(t, "--hierarchy", "h=cpuacct"), t.TempDir()}
	if err := unix.Mount("cpuacct", a.kernel, "cgroup", 0, "cpuacct"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"a", "b"} {
			waitFor(t, "the kernel's container to be empty", func() bool { return os.Remove(filepath.Join(a.kernel, name)) == nil })
		}
		if err := unix.Unmount(a.kernel, 0); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"a", "b"} {
		a.run("mkdir", "/h/"+name)
		if err := os.Mkdir(filepath.Join(a.kernel, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	loops := loopsPerMs(t)
	short, beginShort, waitShort := burner(t, loops, "n=0; while [ $n -lt 200 ]; do (spin 5); n=$((n+1)); done")
	long, beginLong, waitLong := burner(t, loops, "spin 300 & (spin 200; (:); sleep 0.1; spin 200) & spin 500; wait")
	moved, beginMoved, waitMoved := burner(t, loops, "spin 2000")
	for _, pid := range []int{short, long, moved} {
		// It has come to its read, and does not run between the two attaches.
		waitFor(t, "a shell to sleep", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err == nil && strings.Contains(string(stat), ") S ")
		})
		a.attach("a", pid)
	}
	beginShort()
	beginLong()
	beginMoved()
	time.Sleep(time.Second)
	if err := syscall.Kill(moved, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a shell to stop", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", moved))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	a.attach("b", moved)
	if err := syscall.Kill(moved, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitMoved()
	waitShort()
	waitLong()
	a.compare("a")
	a.compare("b")
}
