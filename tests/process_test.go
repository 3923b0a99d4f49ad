package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spawner is a process of this host that forks children on demand.
type spawner struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader

	children []int
}

// startSpawner starts a shell, which has one thread. It and its children end
// with the test.
func startSpawner(t testing.TB) *spawner { return startSpawnerAs(t, os.Geteuid()) }

// startSpawnerAs starts one that is another user's.
func startSpawnerAs(t testing.TB, uid int) *spawner {
	cmd := exec.Command("sh", "-c", `
		while read line; do sleep 1000 </dev/null >/dev/null & kids="$kids $!"; echo $!; done
		[ -z "$kids" ] || kill -9 $kids 2>/dev/null; wait`)
	cmd.Dir = "/"
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return spawn(t, cmd)
}

// startThreadedSpawner starts a process with several threads, any of which may
// fork.
func startThreadedSpawner(t testing.TB) *spawner {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CONTAINERFS_TEST_SPAWNER=1")
	s := spawn(t, cmd)
	s.fork() // it has all its threads by now
	return s
}

// spawnerMain is what a threaded spawner does.
func spawnerMain() {
	for range 4 {
		started := make(chan bool)
		go func() {
			runtime.LockOSThread()
			close(started)
			select {}
		}()
		<-started
	}
	var children []*exec.Cmd
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		children = append(children, c)
		fmt.Println(c.Process.Pid)
	}
	for _, c := range children {
		c.Process.Kill()
		c.Wait()
	}
}

func spawn(t testing.TB, cmd *exec.Cmd) *spawner {
	t.Helper()
	s := &spawner{t: t, cmd: cmd}
	cmd.Stderr = os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func (s *spawner) pid() int { return s.cmd.Process.Pid }

// fork has the process fork a child and returns its pid.
func (s *spawner) fork() int {
	s.t.Helper()
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	child := number(s.t, line)
	s.children = append(s.children, child)
	return child
}

// kill ends the process and its children, and waits until they are gone. The
// process kills and waits for its children itself: whoever inherited them might
// never wait.
func (s *spawner) kill() {
	if s.cmd.ProcessState != nil {
		return
	}
	group := s.pid()
	s.in.Close()
	late := time.AfterFunc(5*time.Second, func() { syscall.Kill(-group, syscall.SIGKILL) })
	s.cmd.Wait()
	late.Stop()
	syscall.Kill(-group, syscall.SIGKILL) // if somebody killed it, they live on
	for _, child := range s.children {
		waitFor(s.t, "the spawner's children to be gone", func() bool { return !lives(child) })
	}
}

// lives reports whether a process is there and no zombie: one that was killed
// together with its parent may be nobody's to wait for.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") X ")
}

// zombie returns the pid of a process that has exited and that nobody has
// waited for until the test ends.
func zombie(t testing.TB) int {
	t.Helper()
	c := exec.Command("true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Wait() })
	waitFor(t, "a zombie", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	return c.Process.Pid
}

// threads lists the threads of a process.
func threads(t testing.TB, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		tids = append(tids, number(t, e.Name()))
	}
	slices.Sort(tids)
	return tids
}

// settledThreads lists the threads of a process whose runtime starts one now
// and then, once it has stopped doing that.
func settledThreads(t testing.TB, pid int) []int {
	t.Helper()
	tids := threads(t, pid)
	waitFor(t, "the threads to be the same for a while", func() bool {
		before := tids
		time.Sleep(300 * time.Millisecond)
		tids = threads(t, pid)
		return slices.Equal(tids, before)
	})
	return tids
}

// cpusAllowed returns the CPUs that a thread may run on, as the kernel writes
// them.
func cpusAllowed(t testing.TB, pid, tid int) string {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(tid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no Cpus_allowed_list for %d", tid)
	return ""
}

// narrow has a thread run on some CPUs only, `a` or `a-b`, as it could ask for
// itself.
func narrow(t testing.TB, tid int, cpus string) error {
	t.Helper()
	first, last, isRange := strings.Cut(cpus, "-")
	if !isRange {
		last = first
	}
	var set unix.CPUSet
	for n := number(t, first); n <= number(t, last); n++ {
		set.Set(n)
	}
	return unix.SchedSetaffinity(tid, &set)
}

// waitFor polls until a condition holds, for what the kernel does in its own
// time.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func numbers(t testing.TB, lines string) []int {
	t.Helper()
	var all []int
	for line := range strings.Lines(lines) {
		all = append(all, number(t, line))
	}
	return all
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSpawner tests the tool: what it forks is really its child, and nothing is
// left.
func TestSpawner(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *spawner{"shell": startSpawner, "threads": startThreadedSpawner} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			child := s.fork()
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
			if err != nil {
				t.Fatal(err)
			}
			rest := string(stat[strings.LastIndex(string(stat), ")")+2:])
			if parent := number(t, strings.Fields(rest)[1]); parent != s.pid() {
				t.Errorf("the parent of %d is %d, not %d", child, parent, s.pid())
			}
			if n := len(threads(t, s.pid())); (n > 1) != (name == "threads") {
				t.Errorf("%d threads", n)
			}
			s.kill()
			if err := syscall.Kill(child, 0); err != syscall.ESRCH {
				t.Errorf("child %d: %v", child, err)
			}
		})
	}
}

// onOwnThread calls f on a thread that ends with it, and with what f makes of the
// thread: its user, its namespaces. The first thread is never that one, since it does
// not end, and what it is the whole process is shown as; nor is one that has started
// processes, which are told of the end of their thread (Pdeathsig) and end with it.
func onOwnThread(f func()) {
	done := make(chan struct{})
	var call func()
	call = func() {
		runtime.LockOSThread() // and never unlocked, unless another thread has to do
		children, _ := os.ReadFile("/proc/thread-self/children")
		if unix.Gettid() == os.Getpid() || len(children) > 0 {
			defer runtime.UnlockOSThread()
			go call()
			<-done
			return
		}
		defer close(done)
		f()
	}
	go call()
	<-done
}

// TestOwnThread: what a thread was made is nowhere left behind, on whatever thread the
// test is.
func TestOwnThread(t *testing.T) {
	namespace := func(of string) string {
		t.Helper()
		link, err := os.Readlink("/proc/" + of + "/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	needHost(t)
	mine := namespace("self")
	child := sleeper(t, 0)
	defer end(child)
	for range 100 { // some of which would be the first thread, or the child's parent
		exec.Command("true").Run() // has the test go to another thread
		onOwnThread(func() {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				t.Error(err)
			}
			if namespace("thread-self") == mine {
				t.Error("nothing new")
			}
		})
	}
	if now := namespace("self"); now != mine {
		t.Errorf("the process is in %s, was in %s", now, mine)
	}
	if !lives(child.Process.Pid) {
		t.Error("a child ended with a thread")
	}
}
