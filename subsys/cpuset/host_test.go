package cpuset

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
)

// subjectEnv makes the test binary a subject: a process that makes threads and
// children when it is told to.
const subjectEnv = "CPUSET_TEST_SUBJECT"

func TestMain(m *testing.M) {
	if os.Getenv(subjectEnv) != "" {
		subject()
		return
	}
	os.Exit(m.Run())
}

// subject answers each line of its input with a number: "thread" with the tid of
// a new thread, "child" with the pid of a new child. Everything ends with its input.
func subject() {
	runtime.LockOSThread() // Pdeathsig of the children is told by the thread
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(os.Getpid())
	for in.Scan() {
		switch in.Text() {
		case "thread":
			tid := make(chan int)
			go func() {
				runtime.LockOSThread()
				tid <- syscall.Gettid()
				select {}
			}()
			fmt.Println(<-tid)
		case "child":
			c := exec.Command("sleep", "60")
			c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := c.Start(); err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Println(c.Process.Pid)
		}
	}
}

// started is a subject, as the test sees it.
type started struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
	pid int32
}

func startSubject(t *testing.T) *started {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), subjectEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	s := &started{t: t, in: in, out: bufio.NewScanner(out)}
	s.pid = s.answer()
	return s
}

func (s *started) answer() int32 {
	s.t.Helper()
	if !s.out.Scan() {
		s.t.Fatal("a subject has ended")
	}
	n, err := strconv.Atoi(s.out.Text())
	if err != nil {
		s.t.Fatal(err)
	}
	return int32(n)
}

func (s *started) tell(line string) int32 {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
	return s.answer()
}

// procHost is a tree.Host of the real processes in pids and their children,
// without events: Drain looks.
type procHost struct {
	pids []int32
	tree *tree.Tree
}

func (h *procHost) Drain()     { _ = h.tree.Resync() }
func (h *procHost) Now() int64 { return time.Now().UnixNano() }

func (h *procHost) Owner(int32) (ruid, suid uint32, err error) { return 0, 0, nil }

func (h *procHost) Task(tid int32) (tree.TaskInfo, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
	if err != nil {
		return tree.TaskInfo{}, syscall.ESRCH
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if strings.Contains("ZX", fields[0]) {
		return tree.TaskInfo{}, syscall.ESRCH
	}
	ppid, _ := strconv.Atoi(fields[1])
	start, _ := strconv.ParseUint(fields[19], 10, 64)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tree.TaskInfo{}, syscall.ESRCH
	}
	_, rest, _ = strings.Cut(string(status), "Tgid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	tgid, _ := strconv.Atoi(line)
	return tree.TaskInfo{TID: tid, TGID: int32(tgid), PPID: int32(ppid), Start: start}, nil
}

func (h *procHost) Tasks(tgid int32, yield func(tree.TaskInfo) bool) error {
	pids := []int32{tgid}
	if tgid == 0 {
		pids = slices.Clone(h.pids)
	}
	for i := 0; i < len(pids); i++ {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pids[i]))
		for _, e := range tasks {
			tid, _ := strconv.Atoi(e.Name())
			if tgid == 0 {
				children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[i], tid))
				for _, child := range strings.Fields(string(children)) {
					pid, _ := strconv.Atoi(child)
					pids = append(pids, int32(pid))
				}
			}
			if info, err := h.Task(int32(tid)); err == nil && !yield(info) {
				return nil
			}
		}
	}
	return nil
}

// realFixture is a Tree of a subject, on a machine with at least two CPUs, with
// the containers a on the first of them and b on the second.
type realFixture struct {
	*tree.Tree
	*started
	cpuset *Subsystem
	root   *tree.Container
	first  Set
	second Set
	both   Set
}

func newRealFixture(t *testing.T) *realFixture {
	t.Helper()
	// What the kernel leaves this process may be less than what is online.
	mine, err := NewHost().Affinity(0)
	if err != nil {
		t.Fatal(err)
	}
	if mine.next(mine.next(0, true)+1, true) < 0 {
		t.Skipf("this needs two CPUs, the process may use %v", mine)
	}
	f := &realFixture{started: startSubject(t)}
	f.first = NewSet(mine.next(0, true))
	f.second = NewSet(mine.next(f.first.Limit(), true))
	f.both = f.first.Or(f.second)
	if err := NewHost().SetAffinity(f.pid, f.both); err != nil {
		t.Fatal(err)
	}

	host := &procHost{pids: []int32{f.pid}}
	f.cpuset = New(NewHost(), slog.New(slog.DiscardHandler))
	f.Tree, err = tree.New(tree.Config{Host: host, Subsystems: []tree.Subsystem{f.cpuset}})
	if err != nil {
		t.Fatal(err)
	}
	host.tree = f.Tree
	if err := f.Resync(); err != nil {
		t.Fatal(err)
	}
	h, err := f.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	f.mkdir("a", f.first)
	f.mkdir("b", f.second)
	t.Cleanup(func() {
		_ = f.cpuset.Close()
		if err := f.Check(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *realFixture) mkdir(name string, set Set) {
	f.t.Helper()
	c, err := f.Mkdir(tree.MkdirRequest{Parent: f.root, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(c, "cpus", set.String())
	f.View(func() { set = f.cpuset.inForce(f.root, mems) })
	f.write(c, "mems", set.String())
}

func (f *realFixture) write(c *tree.Container, name, value string) {
	f.t.Helper()
	i := slices.IndexFunc(f.cpuset.files, func(file tree.File) bool { return file.Name == name })
	if err := f.WriteFile(&tree.Actor{}, c, &f.cpuset.files[i], []byte(value)); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
}

func (f *realFixture) attach(pid int32, name string) {
	f.t.Helper()
	c := f.root
	if name != "" {
		c = f.root.Child(name)
	}
	if err := f.Attach(tree.AttachRequest{Actor: &tree.Actor{}, To: c, ID: pid, Process: true}); err != nil {
		f.t.Fatal(err)
	}
}

// allowed is what the kernel says in Cpus_allowed_list.
func (f *realFixture) allowed(tid int32, want Set) {
	f.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		f.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
	if got, _, _ := strings.Cut(rest, "\n"); got != want.String() {
		f.t.Fatalf("task %d is allowed %s, want %v", tid, got, want)
	}
}

func (f *realFixture) threads() (tids []int32) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", f.pid))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		tid, _ := strconv.Atoi(e.Name())
		tids = append(tids, int32(tid))
	}
	return tids
}

func TestRealProcess(t *testing.T) {
	f := newRealFixture(t)
	f.tell("thread")
	f.tell("thread")
	f.attach(f.pid, "a")
	if n := len(f.threads()); n < 3 {
		t.Fatalf("%d threads", n)
	}
	for _, tid := range f.threads() {
		f.allowed(tid, f.first)
	}
	thread, child := f.tell("thread"), f.tell("child")
	f.allowed(thread, f.first)
	f.allowed(child, f.first)

	f.write(f.root.Child("a"), "cpus", f.both.String())
	f.Drain()
	for _, tid := range append(f.threads(), child) {
		f.allowed(tid, f.both)
	}

	// Its own mask is kept within cpus, and cut outside.
	if err := NewHost().SetAffinity(thread, f.second); err != nil {
		t.Fatal(err)
	}
	f.cpuset.Enforce()
	f.allowed(thread, f.second)
	f.attach(f.pid, "b")
	if err := NewHost().SetAffinity(thread, f.both); err != nil {
		t.Fatal(err)
	}
	f.cpuset.Enforce()
	f.allowed(thread, f.second)
	if err := NewHost().SetAffinity(thread, f.first); err != nil {
		t.Fatal(err)
	}
	f.cpuset.Enforce()
	f.allowed(thread, f.second)

	// The child is in a still.
	f.allowed(child, f.both)
	f.attach(child, "b")
	f.allowed(child, f.second)
	for _, pid := range []int32{f.pid, child} {
		f.attach(pid, "")
	}
	for _, tid := range append(f.threads(), child) {
		f.allowed(tid, f.both)
	}
}

// TestRealMaskComesBack: a mask that is not the machine's, to a thread that was
// there and to a child that was not.
func TestRealMaskComesBack(t *testing.T) {
	f := newRealFixture(t)
	for _, tid := range f.threads() {
		if err := NewHost().SetAffinity(tid, f.second); err != nil {
			t.Fatal(err)
		}
	}
	f.Drain()
	f.attach(f.pid, "a")
	f.allowed(f.pid, f.first)
	child := f.tell("child")
	f.allowed(child, f.first)
	f.attach(f.pid, "")
	f.attach(child, "")
	f.allowed(f.pid, f.second)
	f.allowed(child, f.second)
}

func TestRealHost(t *testing.T) {
	h := NewHost()
	cpuSet, memSet, err := h.Online()
	if err != nil || cpuSet.Empty() || memSet.Empty() {
		t.Fatalf("online: %v %v %v", cpuSet, memSet, err)
	}
	if mine, err := h.Affinity(0); err != nil || !mine.SubsetOf(cpuSet) {
		t.Errorf("own mask: %v %v", mine, err)
	}
	const nobody = 1<<22 + 1 // above any pid_max
	if _, err := h.Affinity(nobody); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("no such task: %v", err)
	}
	if err := h.SetAffinity(nobody, cpuSet); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("no such task: %v", err)
	}
	if err := h.SetAffinity(0, NewSet(largeMask-1)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a CPU that is not there: %v", err)
	}
	t.Log(h.Probe())
	if _, err := h.MigratePages(int32(os.Getpid()), memSet, memSet); err != nil && len(h.Probe()) == 0 {
		t.Errorf("migrate_pages: %v, and Probe says nothing", err)
	}
}
