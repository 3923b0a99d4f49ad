package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/subsys/controller"
)

// controllers is the kernel that a test of its controllers runs on.
type controllers struct {
	version int
	root    map[string]string // where a controller's hierarchy is mounted
	limits  limitFiles
}

// limitFiles are the names of what a version has.
type limitFiles struct {
	memory, quota, quotaValue, unlimited, throttled string
	freezer                                         string // the subsystem
	freeze, frozen, thawed                          string
	weight, badWeight                               string
}

var versions = map[int]limitFiles{
	1: {
		memory: "memory.limit_in_bytes", quota: "cpu.cfs_quota_us", quotaValue: "20000", unlimited: "-1", throttled: "cpu.stat",
		freezer: "freezer", freeze: "freezer.state", frozen: "FROZEN", thawed: "THAWED",
		weight: "cpu.shares", badWeight: "x",
	},
	2: {
		memory: "memory.max", quota: "cpu.max", quotaValue: "20000 100000", unlimited: "max 100000", throttled: "cpu.stat",
		freezer: "cgroup", freeze: "cgroup.freeze", frozen: "1", thawed: "0",
		weight: "cpu.weight", badWeight: "0",
	},
}

// TestControllersV2 has the kernel's controllers enforce what containers say, in a
// guest with version 2.
func TestControllersV2(t *testing.T) {
	if !inside {
		runInside(t, "^TestControllersV2$")
		return
	}
	k := controllers{2, map[string]string{}, versions[2]}
	for _, name := range []string{"cpu", "memory", "pids", "cgroup"} {
		k.root[name] = "/sys/fs/cgroup"
	}
	k.test(t)
	t.Run("threads", k.threads)
	t.Run("together", k.together)
	t.Run("delegated", k.delegated)
	t.Run("a controller is taken away", k.taken)
	t.Run("every controller", k.everyV2)
	t.Run("io throttles", k.reads)
	t.Run("lines for devices", k.rows)
	t.Run("in a user's session", k.inUsersSession)
	t.Run("mounted elsewhere", k.unmounted)
}

// TestControllersV1 does it in a guest with version 1.
func TestControllersV1(t *testing.T) {
	if !inside {
		runInside(t, "^TestControllersV1$")
		return
	}
	k := controllers{1, map[string]string{}, versions[1]}
	for _, name := range []string{"cpu", "memory", "pids", "freezer"} {
		dir := "/tmp/" + name
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, name); err != nil {
			t.Fatal(err)
		}
		k.root[name] = dir
	}
	k.test(t)
}

// TestControllersHere does it on this host, if that has the controllers.
func TestControllersHere(t *testing.T) {
	needHost(t)
	k := controllers{1, map[string]string{}, versions[1]}
	for _, name := range []string{"cpu", "memory", "pids", "freezer"} {
		k.root[name] = mountOf(t, name)
	}
	k.test(t)
}

// mountOf is where a version 1 controller is mounted on this host.
func mountOf(t *testing.T, name string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if w := strings.Fields(line); len(w) > 3 && w[2] == "cgroup" && slices.Contains(strings.Split(w[3], ","), name) {
			return w[1]
		}
	}
	lacking(t, "cgroup1", "this host has no version 1 controller "+name)
	return ""
}

func (k controllers) test(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"memory kills at the limit", k.kills},
		{"pids refuses a fork", k.refuses},
		{"numtasks refuses a fork", k.refusesForNumtasks},
		{"bc has the kernel's limits", k.limitsForBC},
		{"cpu throttles", k.throttles},
		{"freeze stops", k.freezes},
		{"errno passes through", k.errno},
		{"inner containers have tasks and limits", k.inner},
		{"back where it came from", k.returns},
		{"who may take a task from a foreign cgroup", k.foreign},
		{"somebody else's hand", k.disturbed},
		{"a server that was killed", k.killed},
		{"another server with the same state", k.restarted},
		{"somebody else between two servers", k.between},
	} {
		t.Run(test.name, test.run)
	}
}

// serve starts a server with hierarchy h of the controllers, and checks that
// nothing of it is left in the kernel at the end.
func (k controllers) serve(t *testing.T, names ...string) *server {
	t.Helper()
	args := []string{"--hierarchy", "h=" + strings.Join(names, ",")}
	for _, name := range names {
		if name != "numtasks" && name != "bc" {
			args = append(args, "--enable", name)
		}
	}
	s := startServer(t, args...)
	pid := s.cmd.Process.Pid
	base := s.base()
	t.Cleanup(func() {
		s.stop()
		for name, root := range k.root {
			if _, err := os.Stat(root + base); err == nil && !t.Failed() {
				t.Errorf("the server %d left %s in %s", pid, base, name)
			}
		}
	})
	return s
}

// base is the path of the server's kernel directories, in every hierarchy.
func (s *server) base() string {
	s.t.Helper()
	log := s.log.String()
	at := strings.Index(log, " base=")
	if at < 0 {
		s.t.Fatalf("the server says of no base:\n%s", log)
	}
	return strings.Fields(log[at+len(" base="):])[0]
}

// dir is the directory in which a process is in a controller's hierarchy.
func (k controllers) dir(t *testing.T, controller string, pid int) string {
	t.Helper()
	path := cgroupOf(t, pid, func(list string) bool {
		return k.version == 2 && list == "" || k.version == 1 && slices.Contains(strings.Split(list, ","), controller)
	})
	if path == "" {
		t.Fatalf("%d is in no directory of %s", pid, controller)
	}
	return path
}

// cgroupOf is the directory in which a process is in the hierarchy that is meant by
// what /proc lists for it: "" for version 2, else controllers or name=. Without such
// a hierarchy it is "".
func cgroupOf(t testing.TB, pid int, meant func(list string) bool) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if list, path, _ := strings.Cut(rest, ":"); meant(list) {
			return path
		}
	}
	return ""
}

// waiter is a process that does what it is told when it gets a line.
type waiter struct {
	*exec.Cmd
	in     io.WriteCloser
	output lockedBuffer
}

func startWaiter(t *testing.T, script string) *waiter {
	t.Helper()
	c := &waiter{Cmd: exec.Command("sh", "-c", "read go; "+script)}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c.Stdout, c.Stderr = &c.output, &c.output
	var err error
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	})
	return c
}

func (c *waiter) pid() string { return strconv.Itoa(c.Process.Pid) }

func (c *waiter) run(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(c.in, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// saysWhoLimits looks at what limits a server says that the kernel keeps, by the controller.
func saysWhoLimits(t *testing.T, s *server, pids, memory bool) {
	t.Helper()
	ctl := s.run("read", "/ctl")
	for fact, want := range map[string]bool{
		"\n# numtasks: a fork over a limit is refused in the hierarchy that the kernel's pids controller is bound to as well\n": pids,
		"\n# bc: the limit of numproc is the kernel's in the hierarchy that its pids controller is bound to as well\n":          pids,
		"\n# bc: the limit of physpages is the kernel's in the hierarchy that its memory controller is bound to as well\n":      memory,
	} {
		if strings.Contains(ctl, fact) != want {
			t.Errorf("whether it is said is not %v:%sctl is\n%s", want, fact, ctl)
		}
	}
}

func (k controllers) kills(t *testing.T) {
	s := k.serve(t, "memory")
	saysWhoLimits(t, s, false, true)
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/"+k.limits.memory, "24M")
	hog := startWaiter(t, "exec tail /dev/zero")
	s.run("write", "/h/a/procs", hog.pid())
	hog.run(t)
	err := hog.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended with %v, want SIGKILL: %s", err, hog.output.String())
	}
	events := map[int]string{1: "memory.oom_control", 2: "memory.events"}[k.version]
	if got := s.run("read", "/h/a/"+events); !strings.Contains(got, "oom_kill 1\n") {
		t.Errorf("%s:\n%s", events, got)
	}

	// Who has it run as a job is told, of what the kernel ended meanwhile.
	for i, want := range []string{" oom_kills=1\n", "\n"} {
		command := []string{"tail", "/dev/zero"}
		if i > 0 {
			command = []string{"true"}
		}
		_, output := commandAs(t, 0, "unix://"+s.sock, append([]string{"run", "--usage", "-c", "/h/a", "--"}, command...)...)
		if !strings.HasSuffix(output, want) || strings.Contains(output, "oom") != (i == 0) {
			t.Errorf("usage of %s: %q", command, output)
		}
	}
	s.run("rmdir", "/h/a")
}

func (k controllers) refuses(t *testing.T) {
	s := k.serve(t, "pids")
	saysWhoLimits(t, s, true, false)
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/pids.max", "1")
	k.triesToFork(t, s)
	if got := s.run("read", "/h/a/pids.events"); !strings.Contains(got, "max ") || strings.Contains(got, "max 0\n") {
		t.Errorf("pids.events: %q", got)
	}
}

func (k controllers) refusesForNumtasks(t *testing.T) {
	s := k.serve(t, "pids", "numtasks")
	s.run("mkdir", "/h/a")
	s.run("mkdir", "/h/a/b")
	s.run("mkdir", "/h/c")
	limit := strings.TrimSpace(s.run("read", "/h/numtasks.limit"))
	s.run("write", "/h/numtasks.shares", "child_shares_divisor="+limit)
	s.run("write", "/h/a/b/numtasks.shares", "max_shares=50")
	s.run("write", "/h/a/numtasks.shares", "max_shares=1")
	for path, want := range map[string]string{"/h/a": "1\n", "/h/a/b": "0\n", "/h/c": "max\n"} {
		if got := s.run("read", path+"/pids.max"); got != want {
			t.Errorf("pids.max of %s is %q, want %q", path, got, want)
		}
	}
	k.triesToFork(t, s)
	for path, want := range map[string]string{"/h": "0", "/h/a": "1", "/h/c": "0"} { // whose limit it was over
		if got := s.run("read", path+"/numtasks.stats"); !strings.Contains(got, "Number of failures "+want+"\n") {
			t.Errorf("stats of %s, want %s:\n%s", path, want, got)
		}
	}
	s.run("write", "/h/a/numtasks.shares", "max_shares=-3")
	if got := s.run("read", "/h/a/b/pids.max"); got != "max\n" {
		t.Errorf("nobody cares any more, and pids.max is %q", got)
	}
}

func (k controllers) limitsForBC(t *testing.T) {
	s := k.serve(t, "pids", "memory", "bc", "numtasks")
	saysWhoLimits(t, s, true, true)
	s.run("mkdir", "/h/a")
	limit := strings.TrimSpace(s.run("read", "/h/numtasks.limit"))
	s.run("write", "/h/numtasks.shares", "child_shares_divisor="+limit)
	want := func(file, want string) {
		t.Helper()
		if got := s.run("read", "/h/a/"+file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	s.run("write", "/h/a/bc.numproc.barrier", "1")
	s.run("write", "/h/a/bc.numproc.limit", "5")
	want("pids.max", "5\n")
	s.run("write", "/h/a/numtasks.shares", "max_shares=1") // the lesser holds
	want("pids.max", "1\n")
	s.run("write", "/h/a/bc.numproc.limit", "3")
	want("pids.max", "1\n")
	s.run("write", "/h/a/numtasks.shares", "max_shares=-3")
	want("pids.max", "3\n")
	s.run("write", "/h/a/bc.numproc.limit", "1")
	k.triesToFork(t, s)
	s.run("write", "/h/a/bc.physpages.barrier", "4096")
	s.run("write", "/h/a/bc.physpages.limit", "8192")
	want(k.limits.memory, fmt.Sprintf("%d\n", 8192*os.Getpagesize()))
	if code, _, _ := s.command("write", "/h/a/bc.physpages.limit", "4095"); code == 0 {
		t.Error("a limit below the barrier is taken")
	}
	want(k.limits.memory, fmt.Sprintf("%d\n", 8192*os.Getpagesize()))
	s.run("write", "/h/a/bc.physpages.limit", "9223372036854775807")
	if got := s.run("read", "/h/a/"+k.limits.memory); got != "max\n" && len(got) < 16 {
		t.Errorf("no limit, and the kernel has %q", got)
	}
}

// triesToFork has a shell fork in a container of one task.
func (k controllers) triesToFork(t *testing.T, s *server) (sh *waiter) {
	t.Helper()
	sh = startWaiter(t, "(true) && echo forked; read end")
	s.run("write", "/h/a/procs", sh.pid())
	sh.run(t)
	waitFor(t, "the shell to try", func() bool { return strings.HasSuffix(sh.output.String(), "\n") })
	want := "fork: Resource temporarily unavailable\n" // busybox says EAGAIN
	if !inside {
		want = "Cannot fork\n"
	}
	if got := sh.output.String(); !strings.HasSuffix(got, want) {
		t.Errorf("the shell said %q, want %q", got, want)
	}
	return sh
}

// cpuTime is the CPU time of a process so far.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	w := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+2:]))
	return time.Duration(number(t, w[11])+number(t, w[12])) * 10 * time.Millisecond
}

func (k controllers) throttles(t *testing.T) {
	s := k.serve(t, "cpu")
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/"+k.limits.quota, k.limits.quotaValue)
	busy := startWaiter(t, "while :; do :; done")
	s.run("write", "/h/a/procs", busy.pid())
	busy.run(t)
	began, had := time.Now(), cpuTime(t, busy.Process.Pid)
	waitFor(t, "some throttling", func() bool {
		return !strings.Contains(s.run("read", "/h/a/"+k.limits.throttled), "nr_throttled 0\n") && time.Since(began) > 2*time.Second
	})
	used := float64(cpuTime(t, busy.Process.Pid)-had) / float64(time.Since(began))
	t.Logf("a fifth of a CPU was allowed, %.3f used", used)
	if used > 0.4 {
		t.Errorf("%.3f of a CPU used where a fifth is allowed", used)
	}
}

func (k controllers) freezes(t *testing.T) {
	s := k.serve(t, k.limits.freezer)
	s.run("mkdir", "/h/a")
	busy := startWaiter(t, "while :; do :; done")
	s.run("write", "/h/a/procs", busy.pid())
	busy.run(t)
	state := func() string {
		if k.version == 2 {
			return s.run("read", "/h/a/cgroup.events")
		}
		return s.run("read", "/h/a/freezer.state")
	}
	s.run("write", "/h/a/"+k.limits.freeze, k.limits.frozen)
	waitFor(t, "the process to be frozen", func() bool {
		got := state()
		return strings.Contains(got, "frozen 1") || strings.Contains(got, "FROZEN")
	})
	was := cpuTime(t, busy.Process.Pid)
	time.Sleep(200 * time.Millisecond)
	if is := cpuTime(t, busy.Process.Pid); is != was {
		t.Errorf("frozen, it used %v", is-was)
	}
	s.run("write", "/h/a/"+k.limits.freeze, k.limits.thawed)
	waitFor(t, "the process to go on", func() bool { return cpuTime(t, busy.Process.Pid) > was })
	// The commands return when it is done.
	s.run("freeze", "/h/a")
	was = cpuTime(t, busy.Process.Pid)
	time.Sleep(200 * time.Millisecond)
	if is := cpuTime(t, busy.Process.Pid); is != was {
		t.Errorf("after freeze it used %v", is-was)
	}
	s.run("thaw", "/h/a")
	waitFor(t, "the process to go on after thaw", func() bool { return cpuTime(t, busy.Process.Pid) > was })
	if k.version == 2 { // in version 1 who is frozen dies when he is thawed
		s.run("write", "/h/a/"+k.limits.freeze, k.limits.frozen)
		s.run("write", "/h/a/kill", "1")
		waitFor(t, "the frozen process to be killed", func() bool { return !lives(busy.Process.Pid) })
	}
}

// errno compares what a write answers with the kernel's own answer.
func (k controllers) errno(t *testing.T) {
	s := k.serve(t, "memory", "pids", "cpu")
	s.run("mkdir", "/h/a")
	sh := startWaiter(t, "read end")
	s.run("write", "/h/a/procs", sh.pid())
	c := s.client("h")
	for _, w := range []struct{ controller, file, value string }{
		{"pids", "pids.max", "garbage"},
		{"pids", "pids.max", "99999999999"},
		{"pids", "pids.max", "-1"},
		{"pids", "pids.current", "1"},
		{"memory", k.limits.memory, "1x"},
		{"cpu", k.limits.weight, k.limits.badWeight},
		{"cpu", k.limits.quota, "1"},
		{"cpu", k.limits.weight, ""},
	} {
		dir := strings.TrimSuffix(k.root[w.controller]+k.dir(t, w.controller, sh.Process.Pid), "/leaf")
		want := kernelWrite(dir+"/"+w.file, w.value)
		if w.file == "pids.current" {
			want = syscall.EACCES // a file without a writer: who is root may open it, and then gets EINVAL
		}
		got := c.write("/a/"+w.file, w.value)
		var is syscall.Errno
		if errors.As(got, &is); got != nil && is == 0 {
			is = errnoIn(got)
		}
		if is != want && !(w.file == "pids.current" && is == syscall.EINVAL) {
			t.Errorf("%q to %s: %v, the kernel says %v", w.value, w.file, got, want)
		}
	}
	for _, name := range []string{"pids.current", k.limits.memory} {
		controller, _, _ := strings.Cut(name, ".")
		dir := strings.TrimSuffix(k.root[controller]+k.dir(t, controller, sh.Process.Pid), "/leaf")
		want, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.run("read", "/h/a/"+name); got != string(want) {
			t.Errorf("%s is %q, the kernel has %q", name, got, want)
		}
	}
}

func kernelWrite(path, value string) syscall.Errno {
	fd, err := unix.Open(path, unix.O_WRONLY, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	errno, _ := err.(syscall.Errno)
	return errno
}

// errnoIn is the errno of a library's error, which has the number only.
func errnoIn(err error) syscall.Errno {
	for n := syscall.Errno(1); n < 200; n++ {
		if strings.Contains(err.Error(), n.Error()) {
			return n
		}
	}
	return 0
}

// inner: a container with children has tasks of its own, and its limit is for all
// of them.
func (k controllers) inner(t *testing.T) {
	s := k.serve(t, "pids", "memory")
	s.run("mkdir", "/h/a")
	one, three := startSpawner(t), startSpawner(t)
	two := startWaiter(t, "(true) && echo forked; read end")
	s.run("write", "/h/a/procs", fmt.Sprint(one.pid()))
	s.run("mkdir", "/h/a/b")
	s.run("mkdir", "/h/a/b/c")
	s.run("write", "/h/a/b/c/procs", two.pid())
	s.run("write", "/h/a/b/procs", fmt.Sprint(three.pid()))
	for path, want := range map[string]string{"/h/a": "3\n", "/h/a/b": "2\n", "/h/a/b/c": "1\n"} {
		if got := s.run("read", path+"/pids.current"); got != want {
			t.Errorf("pids.current of %s is %q, want %q", path, got, want)
		}
	}
	s.run("write", "/h/a/b/pids.max", "2")
	s.run("write", "/h/a/b/c/"+k.limits.memory, "64M")
	two.run(t)
	waitFor(t, "the shell to try", func() bool { return strings.HasSuffix(two.output.String(), "\n") })
	if got := two.output.String(); !strings.Contains(got, "fork") || strings.Contains(got, "forked") {
		t.Errorf("over the limit of the container above, the shell said %q", got)
	}
}

// returns: a task goes back to the directory that it came from, its children to
// their forker's; to the base when that directory is gone.
func (k controllers) returns(t *testing.T) {
	const name = "containerfs-test-origin"
	root := k.root["pids"]
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		waitFor(t, "the origin to be empty", func() bool { err := os.Remove(dir); return err == nil || os.IsNotExist(err) })
	})
	p := startSpawner(t)
	writeFile(t, dir+"/cgroup.procs", fmt.Sprint(p.pid()))
	s := k.serve(t, "pids")
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	child := p.fork()
	for _, pid := range []int{p.pid(), child} {
		if got := k.dir(t, "pids", pid); !strings.HasPrefix(got, s.base()+"/") {
			t.Fatalf("in the container, %d is in %s", pid, got)
		}
	}
	s.run("write", "/h/procs", fmt.Sprint(child))
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	for _, pid := range []int{p.pid(), child} {
		if got := k.dir(t, "pids", pid); got != "/"+name {
			t.Errorf("%d went back to %s", pid, got)
		}
	}
	// Another directory of that name is not where it came from.
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/a/procs", fmt.Sprint(child))
	waitFor(t, "the origin to be empty", func() bool { return os.Remove(dir) == nil })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	want := s.base()
	if k.version == 2 {
		want += "/leaf"
	}
	if got := k.dir(t, "pids", p.pid()); got != want {
		t.Errorf("its directory is gone: it is in %s, want %s", got, want)
	}
	// At the server's end, and from where nobody was before.
	q := startSpawner(t)
	writeFile(t, dir+"/cgroup.procs", fmt.Sprint(q.pid()))
	was := k.dir(t, "pids", q.pid())
	s.run("write", "/h/a/procs", fmt.Sprint(q.pid()))
	late := q.fork()
	s.stop()
	for _, pid := range []int{q.pid(), late} {
		if got := k.dir(t, "pids", pid); got != was {
			t.Errorf("after the server's end %d is in %s, was in %s", pid, got, was)
		}
	}
}

// foreign: only a privileged caller takes a task from a cgroup that somebody has
// put it in.
func (k controllers) foreign(t *testing.T) {
	const name = "containerfs-test-foreign"
	dir := filepath.Join(k.root["pids"], name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := startSpawnerAs(t, 1000)
	free := startSpawnerAs(t, 1000)
	t.Cleanup(func() {
		p.kill()
		waitFor(t, "the foreign cgroup to be empty", func() bool { return os.Remove(dir) == nil })
	})
	writeFile(t, dir+"/cgroup.procs", fmt.Sprint(p.pid()))
	writeFile(t, k.root["pids"]+"/cgroup.procs", fmt.Sprint(free.pid()))
	s := k.serve(t, "pids")
	s.run("mkdir", "/h/a")
	os.Chmod(filepath.Dir(s.sock), 0o755)
	s.client("h").setAttr("/a/procs", 1000, 0o644)
	if code, out := commandAs(t, 1000, "unix://"+s.sock, "write", "/h/a/procs", fmt.Sprint(p.pid())); code != 4 {
		t.Errorf("a user takes his process from a foreign cgroup: exit code %d, %s", code, out)
	}
	if got := k.dir(t, "pids", p.pid()); got != "/"+name {
		t.Errorf("refused, it is in %s", got)
	}
	if got := s.tasks("/h/a"); len(got) != 0 {
		t.Errorf("refused, the container has %d", got)
	}
	if code, out := commandAs(t, 1000, "unix://"+s.sock, "write", "/h/a/procs", fmt.Sprint(free.pid())); code != 0 {
		t.Errorf("a user takes his process from the kernel's root: exit code %d, %s", code, out)
	}
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	if want := "path=/" + name; !strings.Contains(s.log.String(), want) {
		t.Errorf("nothing is said of %s:\n%s", want, s.log.String())
	}
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
}

// disturbed: somebody else removes a directory, puts a task into one and takes one
// out; what can be done is done, and the rest is said.
func (k controllers) disturbed(t *testing.T) {
	s := k.serve(t, "pids")
	says := func(what string) {
		t.Helper()
		waitFor(t, "the log to say "+what, func() bool { return strings.Contains(s.log.String(), what) })
	}
	s.run("mkdir", "/h/a")
	s.run("mkdir", "/h/b")
	p, q := startSpawner(t), startSpawner(t)
	was := k.dir(t, "pids", q.pid())
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	dir := k.root["pids"] + strings.TrimSuffix(k.dir(t, "pids", p.pid()), "/leaf")
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	_ = os.Remove(dir + "/leaf")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	if got := k.dir(t, "pids", p.pid()); !strings.HasPrefix(got, s.base()+"/") {
		t.Errorf("it is in %s", got)
	}
	says("made again")

	own := k.root["pids"] + k.dir(t, "pids", p.pid())
	writeFile(t, own+"/cgroup.procs", fmt.Sprint(q.pid()))
	says("somebody else moved tasks in the kernel")
	if err := os.Mkdir(own+"/filled", 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, k.root["pids"]+was+"/cgroup.procs", fmt.Sprint(p.pid()))
	says("out=[" + fmt.Sprint(p.pid()) + "]")
	s.run("write", "/h/b/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.run("rmdir", "/h/a")
	waitFor(t, "the directory to be gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	says("it goes to the base")
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
}

// killed: the next server removes what a killed one has left.
func (k controllers) killed(t *testing.T) {
	first := startServer(t, "--enable", "pids", "--hierarchy", "h=pids")
	base := first.base()
	first.run("mkdir", "/h/a")
	p := startSpawner(t)
	first.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	first.cmd.Process.Kill()
	<-first.done
	first.cmd.Wait()
	os.Remove(first.sock)
	if _, err := os.Stat(k.root["pids"] + base); err != nil {
		t.Fatalf("nothing is left to be removed: %v", err)
	}
	second := k.serve(t, "pids")
	if _, err := os.Stat(k.root["pids"] + base); err == nil {
		t.Errorf("%s is left over:\n%s", base, second.log.String())
	}
	if !lives(p.pid()) {
		t.Errorf("the process is gone")
	}
}

// threads: version 2 moves no single thread.
func (k controllers) threads(t *testing.T) {
	s := k.serve(t, "pids")
	s.run("mkdir", "/h/a")
	p := startThreadedSpawner(t)
	tids := settledThreads(t, p.pid())
	was := k.dir(t, "pids", p.pid())
	c := s.client("h")
	for _, tid := range []int{tids[0], tids[len(tids)-1]} {
		if err := c.write("/a/tasks", fmt.Sprint(tid)); errnoIn(err) != syscall.EOPNOTSUPP {
			t.Errorf("one of %d threads: %v", len(tids), err)
		}
	}
	if got := s.tasks("/h/a"); len(got) != 0 || k.dir(t, "pids", p.pid()) != was {
		t.Errorf("refused, there are %d", got)
	}
	if err := c.write("/a/procs", fmt.Sprint(tids[len(tids)-1])); err != nil {
		t.Fatal(err)
	}
	if got := s.tasks("/h/a"); !slices.Equal(got, settledThreads(t, p.pid())) {
		t.Errorf("the container has %d", got)
	}
	for _, tid := range threads(t, p.pid()) {
		if got := k.dir(t, "pids", tid); !strings.HasPrefix(got, s.base()+"/") {
			t.Errorf("thread %d is in %s", tid, got)
		}
	}
	// Who has one thread moves by either.
	q := startSpawner(t)
	if err := c.write("/a/tasks", fmt.Sprint(q.pid())); err != nil {
		t.Error(err)
	}
	if err := c.write("/procs", fmt.Sprint(p.pid())); err != nil {
		t.Error(err)
	}
	if got := k.dir(t, "pids", tids[len(tids)-1]); got != was {
		t.Errorf("it went back to %s", got)
	}
}

// together: version 2's controllers are in one hierarchy.
func (k controllers) together(t *testing.T) {
	s := startServer(t, "--enable", "pids", "--enable", "memory", "--enable", "cpu", "--hierarchy", "h=pids,memory")
	if code, _, stderr := s.command("write", "/ctl", "mount g cpu"); code != 5 {
		t.Errorf("a second hierarchy: exit code %d, %s", code, stderr)
	}
	if want := "bound to another of ours"; !strings.Contains(s.log.String(), want) {
		t.Errorf("nothing is said of why:\n%s", s.log.String())
	}
	s.run("write", "/ctl", "remount h pids,memory,cpu")
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/cpu.weight", "50")
	s.run("rmdir", "/h/a")
	s.run("write", "/ctl", "umount h")
	s.run("write", "/ctl", "mount g cpu")
}

// delegated: a server in a cgroup that is delegated to it has its directories
// there.
func (k controllers) delegated(t *testing.T) {
	const own = "/sys/fs/cgroup/containerfs-test.service"
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(own, "trusted.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	writeFile(t, "/sys/fs/cgroup/cgroup.subtree_control", "+pids")
	sock := filepath.Join(t.TempDir(), "9p.sock")
	c := exec.Command("sh", "-c", `echo $$ >`+own+`/cgroup.procs
		exec containerfs serve --listen unix://`+sock+` --enable pids --hierarchy h=pids`)
	log := &lockedBuffer{}
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the server", func() bool { return strings.Contains(log.String(), "ready\n") })
	s := &server{t: t, sock: sock}
	s.run("mkdir", "/h/a")
	p := startSpawner(t)
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	if got := k.dir(t, "pids", p.pid()); !strings.HasPrefix(got, "/containerfs-test.service/containerfs-") {
		t.Errorf("it is in %s", got)
	}
	if got := k.dir(t, "pids", c.Process.Pid); got != "/containerfs-test.service/server" {
		t.Errorf("the server is in %s", got)
	}
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, log.String())
	}
	if got := k.dir(t, "pids", p.pid()); got != "/" {
		t.Errorf("it went back to %s", got)
	}
	if err := os.Remove(own + "/server"); err != nil {
		t.Error(err)
	}
	waitFor(t, "the delegated cgroup to be empty", func() bool { return os.Remove(own) == nil })
}

// taken: somebody else takes a controller away from the server's directories.
func (k controllers) taken(t *testing.T) {
	s := k.serve(t, "pids", "memory")
	s.run("mkdir", "/h/a")
	s.run("mkdir", "/h/a/b")
	s.run("write", "/h/a/pids.max", "9")
	base := "/sys/fs/cgroup" + s.base()
	inner, err := filepath.Glob(base + "/*/cgroup.subtree_control")
	if err != nil || len(inner) == 0 {
		t.Fatal(inner, err)
	}
	for _, file := range append(inner, base+"/cgroup.subtree_control") {
		if text, _ := os.ReadFile(file); strings.Contains(string(text), "pids") {
			writeFile(t, file, "-pids")
		}
	}
	waitFor(t, "the log to say so", func() bool {
		return strings.Contains(s.log.String(), "took a controller away") && strings.Contains(s.log.String(), "controller=pids")
	})
	if code, _, _ := s.command("read", "/h/a/pids.max"); code != 3 {
		t.Errorf("the file of a controller that is away: exit code %d", code)
	}
	s.run("write", "/h/a/memory.max", "64M")
	p := startSpawner(t)
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	writeFile(t, base+"/cgroup.subtree_control", "+pids")
	waitFor(t, "the log to say that it is back", func() bool { return strings.Contains(s.log.String(), "a controller is back") })
	if got := s.run("read", "/h/a/pids.max"); got != "max\n" {
		t.Errorf("back, pids.max is %q", got)
	}
}

// TestNoMirror: a kernel that refuses named hierarchies says so at start, and all
// the rest works.
func TestNoMirror(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{words: "cgroup_no_v1=named"}, "^TestNoMirror$")
		return
	}
	s := startServer(t, "--enable", "pids", "--hierarchy", "h=pids", "--hierarchy", "g=debug,numtasks")
	const why = "mirror: none (configure hierarchy"
	if log := s.log.String(); !strings.Contains(log, why) || !strings.Contains(log, "cgroup_no_v1=named") ||
		!strings.Contains(log, "children made with CLONE_PARENT can be misplaced") {
		t.Errorf("nothing is said of the mirror:\n%s", log)
	}
	if got := s.run("read", "/ctl"); !strings.Contains(got, "mirror: none") {
		t.Errorf("ctl says\n%s", got)
	}
	p := startSpawner(t)
	for _, path := range []string{"/h/a", "/g/a"} {
		s.run("mkdir", path)
		s.run("write", path+"/tasks", fmt.Sprint(p.pid()))
	}
	child := p.fork()
	for _, path := range []string{"/h/a", "/g/a"} {
		if got := s.tasks(path); !slices.Equal(got, sorted(p.pid(), child)) {
			t.Errorf("%s has %d", path, got)
		}
	}
	if got := s.run("read", "/h/a/pids.current"); got != "2\n" {
		t.Errorf("pids.current is %q", got)
	}
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	if got := s.tasks("/h/a"); !slices.Equal(got, []int{child}) {
		t.Errorf("/h/a has %d", got)
	}
	s.run("write", "/h/a/kill", "1")
	waitFor(t, "the child to be killed", func() bool { return !lives(child) })
	s.run("rmdir", "/h/a")
}

// TestSwitchedOff: where the kernel keeps its controllers from version 1, those of version 2
// work, and what there is not is said.
func TestSwitchedOff(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{words: "cgroup_no_v1=all cgroup_disable=memory"}, "^TestSwitchedOff$")
		return
	}
	for name, why := range map[string]string{"freezer": "cgroup_no_v1", "memory": "cgroup_disable"} {
		if code, _, stderr := refusedStart(t, "--enable", name); code != usage || !strings.Contains(stderr, why) {
			t.Errorf("enable %s: exit code %d, and nothing of %s:\n%s", name, code, why, stderr)
		}
	}
	s := startServer(t, "--enable", "pids", "--enable", "cpuset", "--hierarchy", "h=pids,cpuset")
	if got := s.run("read", "/ctl"); !strings.Contains(got, "mirror: on") {
		t.Errorf("ctl says\n%s", got)
	}
	p := startSpawner(t)
	s.run("mkdir", "/h/a")
	s.run("set", "/h/a", "cpuset.cpus=0", "cpuset.mems=0", "pids.max=9")
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	if got := s.run("read", "/h/a/pids.current"); got != "1\n" {
		t.Errorf("pids.current is %q", got)
	}
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.run("rmdir", "/h/a")
}

// TestEnableAbsent: a controller that this kernel does not have is a mistake of the command
// line, which a start later does not make good.
func TestEnableAbsent(t *testing.T) {
	known, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		t.Fatal(err)
	}
	v2, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	if err != nil {
		v2, err = os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	}
	if err != nil {
		t.Skip("what version 2 has is not to be seen here")
	}
	has := strings.Fields(string(known) + string(v2))
	for _, name := range controller.Names {
		if slices.Contains(has, name) || name == controller.Core {
			continue
		}
		if code, _, stderr := refusedStart(t, "--enable", name); code != usage || !strings.Contains(stderr, "this kernel has no controller "+name) {
			t.Errorf("enable %s: exit code %d:\n%s", name, code, stderr)
		}
	}
}
