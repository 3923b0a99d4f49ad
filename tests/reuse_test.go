package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"
)

// The user whose processes are moved here, and who asks. What he may not move,
// root's processes, is never moved, whatever number it has got: so a wrong task
// in the container shows.
const mover = 1000

// reuseServer is a server with a container that a user may move processes to, and
// that user as a client.
func reuseServer(t *testing.T) (s *server, user, root *client) {
	s = startServer(t, "--hierarchy", "h=debug")
	w := newWireSide(t, s)
	root = s.client("")
	if err := root.mkdir("/h/c"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"tasks", "procs"} {
		if _, err := w.do(t, 0, "chmod", []word{{text: "666"}, {text: "/h/c/" + file}}); err != nil {
			t.Fatal(err)
		}
	}
	user, err := w.attach(t, mover, "")
	if err != nil {
		t.Fatal(err)
	}
	return s, user, root
}

func sleeper(t testing.TB, uid uint32) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "1000")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func end(c *exec.Cmd) {
	c.Process.Kill()
	c.Wait()
}

// sleeperAt starts one with a pid of the test's choice, nil if somebody else got
// it.
func sleeperAt(t testing.TB, uid uint32, pid int) *exec.Cmd {
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0); err != nil {
		t.Fatalf("no pid can be chosen here: %v", err)
	}
	c := sleeper(t, uid)
	if c.Process.Pid == pid {
		return c
	}
	end(c)
	return nil
}

// mirrorGroup is a task's place in the mirror, as the kernel has it.
func mirrorGroup(t testing.TB, cgroup string) string {
	for line := range strings.Lines(cgroup) {
		if _, at, ok := strings.Cut(line, ":name=containerfs-"); ok {
			_, at, _ = strings.Cut(at, ":")
			return at
		}
	}
	t.Fatalf("no mirror in %q", cgroup)
	return ""
}

// TestReusedPID stops the server at any instant of a move, has the task end and
// another user's get its number, and lets the server go on: that task is never
// moved, neither in the model nor in the kernel.
func TestReusedPID(t *testing.T) {
	s, user, root := reuseServer(t)
	rounds := 300
	if soaking {
		rounds = 20000
	}
	outcomes := map[error]int{}
	// Else the server was never stopped before the check, and never behind it.
	all := func() bool { return outcomes[linux.EACCES] > 0 && outcomes[linux.ESRCH] > 0 }
	window := 600 * time.Microsecond // in which a move takes place, on this machine at this time
	for round := 0; round < rounds || !all() && round < 30*rounds; round++ {
		victim := sleeper(t, mover)
		pid := victim.Process.Pid
		answer := make(chan error)
		go func() { answer <- user.write("/h/c/tasks", fmt.Sprint(pid)) }()
		time.Sleep(window*7/10 + rand.N(window*6/10))
		s.cmd.Process.Signal(syscall.SIGSTOP)
		if err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != nil {
			t.Fatal(err)
		}
		end(victim)
		other := sleeperAt(t, 0, pid)
		s.cmd.Process.Signal(syscall.SIGCONT)
		err := <-answer
		if other == nil {
			continue // the number went to somebody else
		}
		outcomes[err]++
		switch err {
		case linux.EACCES: // stopped too early, mostly
			window = min(window+window/20, 50*time.Millisecond)
		case nil: // too late
			window = max(window-window/20, 100*time.Microsecond)
		}
		if in, err := root.read("/h/c/tasks"); in != "" || err != nil {
			t.Errorf("%d is in the container: tasks %q, %v", pid, in, err)
		}
		if at, err := root.read(fmt.Sprintf("/proc/%d/container", pid)); at != "debug:/\n" {
			t.Errorf("%d is in %q, %v", pid, at, err)
		}
		cgroup := func(p string) string {
			text, err := os.ReadFile("/proc/" + p + "/cgroup")
			if err != nil {
				t.Fatal(err)
			}
			return mirrorGroup(t, string(text))
		}
		if at, want := cgroup(fmt.Sprint(pid)), cgroup("self"); at != want {
			t.Errorf("the kernel has %d in %s, not in %s", pid, at, want)
		}
		end(other)
		if t.Failed() {
			break
		}
	}
	t.Log(outcomes)
	for err := range outcomes {
		if err != nil && err != linux.ESRCH && err != linux.EACCES {
			t.Errorf("an answer was %v", err)
		}
	}
	if !all() {
		t.Errorf("not all instants were hit")
	}
}

// TestPIDWraps moves processes while pids go round: in a guest that has a hundred
// of them, where a user's and root's processes live and die all the time.
func TestPIDWraps(t *testing.T) {
	if !inside {
		runInside(t, "^TestPIDWraps$", "SOAK="+os.Getenv("SOAK"))
		return
	}
	wraps, deadline := 20, time.Now().Add(100*time.Second) // for a machine that has other things to do
	if soaking {
		wraps, deadline = 1000, time.Now().Add(time.Hour)
	}
	_, user, root := reuseServer(t)
	const low, high = 300, 400 // the kernel starts again at 300
	writeFile(t, "/proc/sys/kernel/pid_max", fmt.Sprint(high))
	t.Cleanup(func() { os.WriteFile("/proc/sys/kernel/pid_max", []byte("32768"), 0) })
	const brief, longer = "while :; do (:) & (:) & wait; done", "while :; do sleep 0.3 & sleep 0.1 & wait; done"
	for i, uid := range []uint32{mover, 0, mover, 0, mover, 0} {
		c := exec.Command("sh", "-c", []string{brief, longer, longer}[i/2])
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(c) })
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	home := mirrorGroup(t, string(self))
	outcomes := map[error]int{}
	moved := 0
	forks, wrapped := forksSoFar(t), 0
	var movers []int // that were there a moment ago
	tried := func() bool {
		return wrapped > 0 && outcomes[nil] > 0 && outcomes[linux.ESRCH] > 0 && (!soaking || outcomes[linux.EACCES] > 0)
	}
	for (wrapped < wraps || !tried()) && time.Now().Before(deadline) {
		pid := low + rand.N(high-low)
		if len(movers) > 0 {
			pid = movers[rand.N(len(movers))]
		}
		err := user.write("/h/c/tasks", fmt.Sprint(pid))
		outcomes[err]++
		// Nobody asks for anything now: what is of root must be at home.
		movers = movers[:0]
		entries, err := os.ReadDir("/proc")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			pid, _ := strconv.Atoi(e.Name())
			if pid < low {
				continue
			}
			uid, cgroup := look(pid)
			if uid == mover && cgroup != "" {
				movers = append(movers, pid)
			}
			if uid == 0 && cgroup != "" && mirrorGroup(t, cgroup) != home {
				t.Errorf("%d of root is in %s", pid, mirrorGroup(t, cgroup))
			}
			if uid == mover && cgroup != "" && mirrorGroup(t, cgroup) != home {
				moved++
			}
		}
		// There is no fork without a pid, and never more than so many between one
		// wrap and the next.
		wrapped = (forksSoFar(t) - forks) / (high - low)
		if t.Failed() {
			break
		}
	}
	if _, err := root.read("/h/c/tasks"); err != nil {
		t.Error(err)
	}
	t.Log(wrapped, "wraps", outcomes, "processes seen in the container:", moved)
	for err := range outcomes {
		if err != nil && err != linux.ESRCH && err != linux.EACCES && err != linux.EINVAL {
			t.Errorf("an answer was %v", err)
		}
	}
	if !tried() || (soaking && wrapped < wraps) {
		t.Error("not everything was tried")
	}
}

// forksSoFar is how many tasks the kernel has made since it started.
func forksSoFar(t testing.TB) int {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nprocesses ")
	count, _, _ := strings.Cut(rest, "\n")
	return number(t, count)
}

// look reads a process's real user and its cgroups, both of the same process: a
// directory of /proc stays with one. A process that is gone has no cgroups.
func look(pid int) (uid int, cgroup string) {
	dir, err := os.OpenRoot(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return 0, ""
	}
	defer dir.Close()
	status, err := dir.ReadFile("status")
	if err != nil {
		return 0, ""
	}
	_, rest, _ := strings.Cut(string(status), "\nUid:\t")
	fmt.Sscan(rest, &uid)
	if strings.Contains(string(status), "\nState:\tZ") {
		return uid, ""
	}
	text, err := dir.ReadFile("cgroup")
	if err != nil {
		return uid, ""
	}
	return uid, string(text)
}
