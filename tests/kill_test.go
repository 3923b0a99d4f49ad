package tests

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestKillForkBomb ends a fork bomb: processes that all fork as fast as they
// can, 200 at a time, so that for each one that is killed another is there at
// once.
func TestKillForkBomb(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=debug")
	s.run("mkdir", "/h/bomb", "/h/bomb/below")
	b := newBomb(t)
	s.run("write", "/h/bomb/below/procs", fmt.Sprint(b.pid))
	b.light()
	c := s.client("")
	waitFor(t, "the bomb to go off", func() bool { return len(s.tasks("/h/bomb/below")) > bombSize*3/4 })

	start := time.Now()
	err := c.write("/h/bomb/kill", "1")
	took := time.Since(start)
	if err != nil {
		t.Fatalf("kill: %v, after %v; %d tasks are left", err, took, len(s.tasks("/h/bomb/below")))
	}
	t.Logf("kill took %v", took)
	// The kernel tells of an end a little after it; nobody is born any more.
	waitFor(t, "an empty container", func() bool { return len(s.tasks("/h/bomb/below")) == 0 })
	b.over()
	s.run("rmdir", "/h/bomb/below", "/h/bomb")
}

// TestKillUnreaped: the first process of a pid namespace does not come to its end as long as
// one of the namespace is not waited for, whose parent is outside. It was killed all the same.
func TestKillUnreaped(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=debug")
	s.run("mkdir", "/h/a")
	first, second := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	onOwnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWPID)
		for _, c := range []*exec.Cmd{first, second} {
			if err == nil {
				err = c.Start()
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	defer end(first)
	defer end(second) // before the first can end
	s.run("write", "/h/a/tasks", fmt.Sprint(first.Process.Pid))
	c := s.client("")
	if err := c.write("/h/a/kill", "1"); err != nil {
		t.Error(err)
	}
	if !lives(first.Process.Pid) {
		t.Error("it has ended")
	}
	s.run("rmdir", "/h/a")
}

// bombSize is how many processes a bomb has at most, by RLIMIT_NPROC: the kernel
// itself keeps the host safe.
const bombSize = 200

// bomb is a user's processes, and the process above them that has to wait for
// each that is left.
type bomb struct {
	t      testing.TB
	keeper *exec.Cmd
	pid    int // of its first process
	fuse   *os.File
	uid    uint32
}

func newBomb(t testing.TB) *bomb {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fuse, light, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer fuse.Close()
	b := &bomb{t: t, fuse: light, uid: uint32(1_000_000 + os.Getpid())}
	b.keeper = exec.Command(self)
	b.keeper.Env = append(os.Environ(), fmt.Sprintf("CONTAINERFS_TEST_BOMB=%d", b.uid))
	b.keeper.Stdin, b.keeper.Stderr = fuse, os.Stderr
	b.keeper.Dir = "/"
	out, err := b.keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.disarm)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	b.pid = number(t, line)
	return b
}

func (b *bomb) light() { b.fuse.Close() }

// over waits until no process of the bomb is left.
func (b *bomb) over() {
	b.t.Helper()
	late := time.AfterFunc(10*time.Second, b.disarm)
	if err := b.keeper.Wait(); err != nil || !late.Stop() {
		b.t.Errorf("processes of the bomb lived on: %v", err)
	}
}

// disarm ends all processes of the bomb's user, at once.
func (b *bomb) disarm() {
	if b.keeper.ProcessState != nil {
		return
	}
	c := exec.Command("sh", "-c", "kill -9 -1")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: b.uid, Gid: b.uid}}
	c.Dir = "/"
	c.Run() // it ends itself too
	b.fuse.Close()
	b.keeper.Wait()
}

// bombMain is the keeper, who becomes the parent of all orphans of the bomb and
// ends when none is left; or the bomb itself, before it goes off.
func bombMain(role string) {
	if role == "lit" {
		signal.Ignore(syscall.SIGCHLD) // nobody waits for the dead
		os.Stdin.Read(make([]byte, 1)) // the end of the file lights it
		limit := unix.Rlimit{Cur: bombSize, Max: bombSize}
		if err := unix.Setrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		goOff()
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var uid uint32
	fmt.Sscan(role, &uid)
	b := exec.Command("/proc/self/exe")
	b.Env = append(os.Environ(), "CONTAINERFS_TEST_BOMB=lit")
	b.Stdin, b.Stderr = os.Stdin, os.Stderr
	b.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := b.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(b.Process.Pid)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
			return
		}
	}
}

// goOff forks for ever, as all its children do. A child has one thread and no
// runtime: so this must not allocate, grow its stack or take a lock.
//
//go:norace
//go:nosplit
func goOff() {
	pause := unix.Timespec{Nsec: 200_000} // where there is no room
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
	}
}

// TestBomb tests the tool: it forks again what is killed, and can be ended.
func TestBomb(t *testing.T) {
	needHost(t)
	b := newBomb(t)
	b.light()
	count := func() (n int) {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			status, _ := os.ReadFile("/proc/" + e.Name() + "/status")
			if strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", b.uid)) {
				n++
			}
		}
		return n
	}
	full := func() bool { n := count(); return n > bombSize*3/4 && n <= bombSize }
	waitFor(t, "the bomb to go off", full)
	syscall.Kill(b.pid, syscall.SIGKILL)
	waitFor(t, "the bomb to go on without its first process", full)
	b.disarm()
	if n := count(); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}
