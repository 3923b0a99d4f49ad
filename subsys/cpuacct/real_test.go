package cpuacct

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostproc"
)

// model is a Tree as the host tells it of events.
type model struct{ *tree.Tree }

func (m model) Resync(uint64) { _ = m.Tree.Resync() }

// realWorld is a Tree with cpuacct over this machine.
type realWorld struct {
	*tree.Tree
	t    *testing.T
	s    *Subsystem
	root *tree.Container
	log  bytes.Buffer
}

// newRealWorld skips where finals of that source cannot be had, for a reason
// that is to be expected.
func newRealWorld(t *testing.T, source finalSource) *realWorld {
	t.Helper()
	host, err := hostproc.Open(hostproc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	if !host.Source().Connector {
		t.Skip(host.Source())
	}
	switch w, err := source.open(); {
	case err == nil:
		w.close()
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist):
		t.Skip(err)
	default:
		t.Fatal(err)
	}
	w := &realWorld{t: t}
	w.s = New(machine{[]finalSource{source}}, slog.New(slog.NewTextHandler(&w.log, nil)))
	if w.Tree, err = tree.New(tree.Config{Host: host, Subsystems: []tree.Subsystem{w.s}}); err != nil {
		t.Fatal(err)
	}
	host.Start(model{w.Tree})
	w.Drain()
	h, err := w.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.root = h.Root()
	t.Cleanup(func() {
		w.s.Enforce()
		if err := w.s.Close(); err != nil {
			t.Error(err)
		}
		if err := w.Check(); err != nil {
			t.Error(err)
		}
		if stats, err := host.Stats(); err != nil || stats.Lost > 0 {
			t.Logf("the host lost %d events: %v", stats.Lost, err)
		}
	})
	return w
}

func (w *realWorld) mkdir(name string) *tree.Container {
	w.t.Helper()
	c, err := w.Mkdir(tree.MkdirRequest{Parent: w.root, Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *realWorld) attach(c *tree.Container, pid int) {
	w.t.Helper()
	if err := w.Attach(tree.AttachRequest{To: c, ID: int32(pid), Process: true}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *realWorld) usage(c *tree.Container) time.Duration {
	w.t.Helper()
	b, err := w.ReadFile(c, &w.s.files[0], nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return nanoseconds(w.t, b)
}

func nanoseconds(t *testing.T, text []byte) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

// kernelGroup is a directory of the kernel's own cpuacct, removed with the test.
type kernelGroup struct {
	t    *testing.T
	path string
}

// newKernelGroup is nil where the kernel's cpuacct is not mounted.
func newKernelGroup(t *testing.T, name string) *kernelGroup {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "cgroup" || !strings.Contains(","+f[3]+",", ",cpuacct,") {
			continue
		}
		g := &kernelGroup{t, filepath.Join(f[1], fmt.Sprintf("containerfs-test-cpuacct-%d-%s", os.Getpid(), name))}
		if err := os.Mkdir(g.path, 0o755); err != nil {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
				break
			}
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for range 1000 {
				if err = os.Remove(g.path); !errors.Is(err, syscall.EBUSY) {
					break
				}
				time.Sleep(10 * time.Millisecond) // what has just been killed
			}
			if err != nil {
				t.Error(err)
			}
		})
		return g
	}
	t.Log("the kernel's own cpuacct cannot be used here: wait4 is what is compared with")
	return nil
}

func (g *kernelGroup) attach(pid int) {
	if g == nil {
		return
	}
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.path, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0); err != nil {
		g.t.Fatal(err)
	}
}

func (g *kernelGroup) awaitEmpty() {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
		if err == nil && len(text) == 0 {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("in %s are %q, %v", g.path, text, err)
		}
	}
}

func (g *kernelGroup) usage() time.Duration {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.path, "cpuacct.usage"))
	if err != nil {
		g.t.Fatal(err)
	}
	return nanoseconds(g.t, text)
}

// job is a shell script that has not begun yet.
type job struct {
	*exec.Cmd
	begin func()
}

func newJob(t *testing.T, script string) job {
	t.Helper()
	c := exec.Command("sh", "-c", "read begin\n"+script)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			_ = c.Wait()
		}
	})
	// It has come to its read, and does not run while it is attached.
	awaitState(t, c.Process.Pid, "S")
	return job{c, func() { _, _ = in.Write([]byte("\n")) }}
}

// awaitState waits until a process is in one of some states, or gone.
func awaitState(t *testing.T, pid int, states string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if at := bytes.LastIndexByte(stat, ')'); err != nil || strings.IndexByte(states, stat[at+2]) >= 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d is in none of the states %s: %s", pid, states, stat)
		}
	}
}

// stop stops a process group and returns its processes, the leader first. None of them
// runs any more.
func stop(t *testing.T, leader int) (pids []int) {
	t.Helper()
	if err := syscall.Kill(-leader, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitState(t, leader, "T")
	pids = groupOf(t, leader) // it forks no more
	for _, pid := range pids {
		awaitState(t, pid, "TZX")
	}
	return pids
}

// rusage is what the job and all that it waited for have used.
func (j job) rusage(t *testing.T) time.Duration {
	t.Helper()
	if err := j.Wait(); err != nil {
		t.Fatal(err)
	}
	return j.ProcessState.UserTime() + j.ProcessState.SystemTime()
}

// ran is for how long a process with one thread has run.
func ran(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	return nanoseconds(t, []byte(first))
}

// compare fails the test where two durations differ by more than a part.
func compare(t *testing.T, what string, got, want time.Duration, part float64) {
	t.Helper()
	diff := float64(got-want) / float64(want)
	t.Logf("%s: %v, of %v: %+.3f %%", what, got, want, 100*diff)
	if math.Abs(diff) > part {
		t.Errorf("%s: usage is %v, not %v: off by %.2f %%", what, got, want, 100*diff)
	}
}

// spin is shell for what uses CPU time without any system call. Its argument is
// in units of 1/10 ms; how many rounds that is, is measured once.
var spin = sync.OnceValue(func() string {
	const rounds = 20000
	define := "spin() { i=0; while [ $i -lt $(($1*%d)) ]; do i=$((i+1)); done; }\n"
	c := exec.Command("sh", "-c", fmt.Sprintf(define, 1)+fmt.Sprintf("spin %d", rounds))
	if err := c.Run(); err != nil {
		panic(err)
	}
	used := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	return fmt.Sprintf(define, max(1, rounds*(100*time.Microsecond)/max(used, 1)))
})

var workloads = []struct{ name, script string }{
	// A thousand processes that live some 5 ms, all of it on a CPU.
	{"short", `n=0; while [ $n -lt 1000 ]; do (spin 50); n=$((n+1)); done`},
	// Those that do next to nothing: their beginnings and ends are all there is.
	{"empty", `n=0; while [ $n -lt 1000 ]; do (:); n=$((n+1)); done`},
	// Programs that sleep.
	{"sleepers", `n=0; while [ $n -lt 200 ]; do sleep 0.005; n=$((n+1)); done`},
	// Some that live long beside many that do not, and pipes of them.
	{"mix", `(spin 5000) & (spin 3000) & n=0
		while [ $n -lt 150 ]; do (spin 30) & (:); echo x | cat >/dev/null; wait $!; n=$((n+1)); done; wait`},
}

// TestRealUsage compares usage with the kernel's own cpuacct, and with what wait4
// says, of processes that are all in one container.
func TestRealUsage(t *testing.T) {
	w := newRealWorld(t, finalSources[0])
	for _, load := range workloads {
		t.Run(load.name, func(t *testing.T) {
			w.t = t
			c, kernel := w.mkdir(load.name), newKernelGroup(t, load.name)
			j := newJob(t, spin()+load.script)
			w.attach(c, j.Process.Pid)
			kernel.attach(j.Process.Pid)
			before := ran(t, j.Process.Pid) // what sh was before it was attached is in wait4's
			j.begin()
			waited := j.rusage(t) - before
			got := w.usage(c)
			if kernel != nil {
				compare(t, "the kernel's cpuacct", got, kernel.usage(), 0.01)
			}
			compare(t, "wait4", got, waited, 0.02)
			if err := w.Rmdir(c, nil); err != nil {
				t.Error(err)
			}
		})
	}
	w.t = t
	if all := w.usage(w.root); all < time.Second {
		t.Errorf("the root has %v of those that were removed", all)
	}
	if strings.Contains(w.log.String(), "WARN") {
		t.Error(w.log.String())
	}
}

// TestRealTaskstats is of the second best source. What the exit records lack is
// what it says that it is; nothing is counted that was not used.
func TestRealTaskstats(t *testing.T) {
	w := newRealWorld(t, finalSources[1])
	for _, load := range workloads[1:] {
		t.Run(load.name, func(t *testing.T) {
			w.t = t
			c := w.mkdir(load.name)
			j := newJob(t, spin()+load.script)
			w.attach(c, j.Process.Pid)
			j.begin()
			waited := j.rusage(t)
			got := w.usage(c)
			t.Logf("of %v that wait4 knows %v, %.1f %%, are in the records", waited, got, 100*float64(got)/float64(waited))
			if got > waited+waited/100 || got < waited/20 {
				t.Errorf("usage is %v, not about %v", got, waited)
			}
		})
	}
}

// TestRealMoves stops and moves what runs, with and without threads' exits in
// between, in the kernel's cpuacct at the same time.
func TestRealMoves(t *testing.T) {
	w := newRealWorld(t, finalSources[0])
	ours := []*tree.Container{w.mkdir("a"), w.mkdir("b")}
	kernels := []*kernelGroup{newKernelGroup(t, "a"), newKernelGroup(t, "b")}
	if kernels[0] == nil {
		t.Skip("nothing to compare with")
	}
	j := newJob(t, spin()+`while :; do (spin 15); spin 20; done`)
	pid := j.Process.Pid
	j.begin()
	for i := range 30 {
		// With SIGSTOP to all of them nobody runs between the two moves.
		to := i % 2
		for _, member := range stop(t, pid) {
			if err := w.Attach(tree.AttachRequest{To: ours[to], ID: int32(member), Process: true}); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
			kernels[to].attach(member)
		}
		if err := syscall.Kill(-pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+10*to) * time.Millisecond)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	_ = j.Wait()
	for _, kernel := range kernels { // until the last orphan is gone
		kernel.awaitEmpty()
	}
	sum := w.usage(ours[0]) + w.usage(ours[1])
	for i, kernel := range kernels {
		compare(t, "container "+ours[i].Name(), w.usage(ours[i]), kernel.usage(), 0.01)
	}
	// The root has all that others on this machine use too.
	if all := w.usage(w.root); all < sum {
		t.Errorf("the root has %v, its children %v", all, sum)
	}
}

// groupOf lists the live processes of a process group, the leader first.
func groupOf(t *testing.T, leader int) []int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", leader, leader))
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{leader}
	for _, f := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestRealLive is of what has not ended: usage is there while it runs, and stat
// and load go with it.
func TestRealLive(t *testing.T) {
	w := newRealWorld(t, finalSources[0])
	c := w.mkdir("a")
	kernel := newKernelGroup(t, "live")
	j := newJob(t, spin()+`while :; do spin 10; done`)
	w.attach(c, j.Process.Pid)
	kernel.attach(j.Process.Pid)
	j.begin()
	last := time.Duration(0)
	for range 10 {
		// A machine with other things to do lets it run when it pleases.
		now := w.usage(c)
		for deadline := time.Now().Add(10 * time.Second); now == last && time.Now().Before(deadline); now = w.usage(c) {
			time.Sleep(20 * time.Millisecond)
		}
		if now <= last {
			t.Fatalf("usage is %v after %v", now, last)
		}
		last = now
	}
	stop(t, j.Process.Pid)
	if kernel != nil {
		compare(t, "live", w.usage(c), kernel.usage(), 0.01)
	}
	b, err := w.ReadFile(c, &w.s.files[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	var user, system int64
	if _, err := fmt.Sscanf(string(b), "user %d\nsystem %d\n", &user, &system); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	const tick = time.Second / userHZ
	if sum := time.Duration(user+system) * tick; sum > w.usage(c) || sum < w.usage(c)-2*tick || user == 0 {
		t.Errorf("stat is %q of a usage of %v", b, w.usage(c))
	}
}
