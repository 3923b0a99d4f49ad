package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// TestKernelCpuset has cpuset hand on what is in force to the kernel's own, on this
// host.
func TestKernelCpuset(t *testing.T) {
	needHost(t)
	k := controllers{1, map[string]string{"cpuset": mountOf(t, "cpuset")}, versions[1]}
	s := k.serve(t, "cpuset")
	if ctl := s.run("read", "/ctl"); !strings.Contains(ctl, "\n# cpuset: the kernel's cpuset of cgroup version 1, in ") || strings.Contains(ctl, "kept only") {
		t.Errorf("it is the kernel that keeps both sets, and ctl says\n%s", ctl)
	}
	p := startSpawner(t)
	came, mask := k.dir(t, "cpuset", p.pid()), cpusAllowed(t, p.pid(), p.pid())
	if mask != "0-1" {
		t.Fatalf("this test is for two CPUs, and has %s", mask)
	}
	inKernel := func(path string) (cpus, mems string) {
		t.Helper()
		q := startSpawner(t)
		s.run("write", path+"/tasks", fmt.Sprint(q.pid()))
		dir := k.root["cpuset"] + k.dir(t, "cpuset", q.pid())
		s.run("write", "/h/tasks", fmt.Sprint(q.pid()))
		for i, to := range []*string{&cpus, &mems} {
			b, err := os.ReadFile(dir + "/" + []string{"cpuset.cpus", "cpuset.mems"}[i])
			if err != nil {
				t.Fatal(err)
			}
			*to = strings.TrimSpace(string(b))
		}
		return cpus, mems
	}
	for _, path := range []string{"/h/a", "/h/a/b"} {
		s.run("mkdir", path)
		s.run("write", path+"/cpuset.cpus", "0")
		s.run("write", path+"/cpuset.mems", "0")
		if cpus, mems := inKernel(path); cpus != "0" || mems != "0" {
			t.Errorf("the kernel has %q and %q for %s", cpus, mems, path)
		}
	}
	s.run("write", "/h/a/tasks", fmt.Sprint(p.pid()))
	if got := cpusAllowed(t, p.pid(), p.pid()); got != "0" {
		t.Errorf("a member has CPUs %s", got)
	}
	if err := narrow(t, p.pid(), "1"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a member takes a CPU outside: %v", err)
	}
	// Grown, moved and shrunk, with what is below.
	s.run("write", "/h/a/cpuset.cpus", "0-1")
	s.run("write", "/h/a/b/cpuset.cpus", "1")
	if cpus, _ := inKernel("/h/a/b"); cpus != "1" {
		t.Errorf("the kernel has %q for /h/a/b", cpus)
	}
	s.run("write", "/h/a/cpuset.cpus", "1")
	if cpus, _ := inKernel("/h/a"); cpus != "1" {
		t.Errorf("the kernel has %q for /h/a", cpus)
	}
	if got := cpusAllowed(t, p.pid(), p.pid()); got != "1" {
		t.Errorf("the member has CPUs %s now", got)
	}
	for file, want := range map[string]string{"sched_load_balance": "1\n", "memory_pressure": "0\n", "memory_pressure_enabled": "0\n", "memory_spread_page": "0\n", "memory_spread_slab": "0\n"} {
		if got := s.run("read", "/h/a/cpuset."+file); got != want {
			t.Errorf("%s is %q", file, got)
		}
	}
	s.run("write", "/h/a/cpuset.memory_spread_page", "1")
	if got := s.run("read", "/h/a/cpuset.memory_spread_page"); got != "1\n" {
		t.Errorf("memory_spread_page is %q", got)
	}
	if code, _, _ := s.command("write", "/h/a/cpuset.memory_pressure_enabled", "1"); code == 0 {
		t.Error("what is the whole host's can be written")
	}
	s.run("write", "/h/tasks", fmt.Sprint(p.pid()))
	if got := k.dir(t, "cpuset", p.pid()); got != came {
		t.Errorf("it went back to %s, came from %s", got, came)
	}
	if got := cpusAllowed(t, p.pid(), p.pid()); got != mask {
		t.Errorf("back, it has CPUs %s, had %s", got, mask)
	}
	// What the kernel refuses is taken back: somebody else has a directory below.
	s.run("write", "/h/a/tasks", fmt.Sprint(p.pid()))
	dir := k.root["cpuset"] + k.dir(t, "cpuset", p.pid()) + "/theirs"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.run("write", "/h/a/cpuset.cpus", "0-1")
	s.run("write", "/h/a/b/cpuset.cpus", "0")
	writeFile(t, dir+"/cpuset.cpus", "1")
	code, _, _ := s.command("write", "/h/a/cpuset.cpus", "0")
	if code != 5 {
		t.Errorf("the kernel says EBUSY: exit code %d", code)
	}
	if got := s.run("read", "/h/a/cpuset.cpus"); got != "0-1\n" {
		t.Errorf("refused, cpus is %q", got)
	}
}

// TestKernelsOwnCpuacct has cpuacct show the kernel's counts, on this host.
func TestKernelsOwnCpuacct(t *testing.T) {
	needHost(t)
	k := controllers{1, map[string]string{"cpuacct": mountOf(t, "cpuacct")}, versions[1]}
	s := k.serve(t, "cpuacct")
	s.run("mkdir", "/h/a")
	s.run("mkdir", "/h/a/b")
	busy := startWaiter(t, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read end")
	s.run("write", "/h/a/b/tasks", busy.pid())
	busy.run(t)
	waitFor(t, "the shell to be done", func() bool { return busy.output.String() != "" })
	waitFor(t, "it to sleep", func() bool {
		stat, err := os.ReadFile("/proc/" + busy.pid() + "/stat")
		return err == nil && strings.Contains(string(stat), ") S ")
	})
	want, err := os.ReadFile(k.root["cpuacct"] + k.dir(t, "cpuacct", busy.Process.Pid) + "/cpuacct.usage")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.run("read", "/h/a/b/cpuacct.usage"); got != string(want) || got == "0\n" {
		t.Errorf("usage is %q, the kernel's %q", got, want)
	}
	if got := number(t, s.run("read", "/h/a/cpuacct.usage")); got < number(t, string(want)) {
		t.Errorf("usage above is %d, below %s", got, want)
	}
	if got := number(t, s.run("read", "/h/cpuacct.usage")); time.Duration(got) < 0 {
		t.Errorf("usage of the root is %d", got)
	}
	if got := s.run("read", "/h/a/b/cpuacct.stat"); !strings.HasPrefix(got, "user ") || !strings.Contains(got, "\nsystem ") {
		t.Errorf("stat is %q", got)
	}
	s.run("write", "/h/a/b/cpuacct.usage", "0")
	if got := s.run("read", "/h/a/b/cpuacct.usage"); got != "0\n" {
		t.Errorf("reset, usage is %q", got)
	}
	if code, _, _ := s.command("write", "/h/a/b/cpuacct.usage", "7"); code == 0 {
		t.Error("7 is taken")
	}
}

// burn has a process of this host run for some hundredths of a second in a container, and leave.
func burn(t *testing.T, s *server, path string) {
	t.Helper()
	p := startWaiter(t, "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; echo done; read end")
	s.run("write", path+"/tasks", p.pid())
	p.run(t)
	waitFor(t, "the shell to be done", func() bool { return p.output.String() != "" })
	s.run("write", "/h/tasks", p.pid())
	p.Process.Kill()
	p.Wait()
}

// counts are usage and the sum of stat, in nanoseconds.
func (s *server) counts(path string) (usage, stat int) {
	s.t.Helper()
	var user, system int
	if _, err := fmt.Sscanf(s.run("read", path+"/cpuacct.stat"), "user %d\nsystem %d\n", &user, &system); err != nil {
		s.t.Errorf("stat: %v", err)
	}
	return number(s.t, s.run("read", path+"/cpuacct.usage")), (user + system) * int(time.Second/100)
}

// hasCounts checks that they are about as large as they should be.
func (s *server) hasCounts(when, path string, want int) {
	s.t.Helper()
	usage, stat := s.counts(path)
	if usage < want*9/10 || usage > want*11/10 {
		s.t.Errorf("%s: usage of %s is %d, want %d", when, path, usage, want)
	}
	if diff := stat - want; max(diff, -diff) > want/10+int(50*time.Millisecond) {
		s.t.Errorf("%s: stat of %s has %d ns, want %d", when, path, stat, want)
	}
}

// cpuacctServers starts one server after another of the same state, on a host with the kernel's
// cpuacct.
func cpuacctServers(t *testing.T) (start func(flags ...string) *server) {
	t.Helper()
	needHost(t)
	mountOf(t, "cpuacct")
	state := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	return func(flags ...string) *server {
		t.Helper()
		return startServer(t, append([]string{"--state", state, "--hierarchy", "h=cpuacct"}, flags...)...)
	}
}

// TestKernelCpuacctKept: the kernel's counts go on where they were after a boot, which has them
// begin at 0, and without the kernel's controller. A reset is one for ever.
func TestKernelCpuacctKept(t *testing.T) {
	start := cpuacctServers(t)
	s := start("--enable", "cpuacct")
	boot := func(flags ...string) {
		base := s.base()
		s.stop()
		forgetKernelDirs(t, base)
		s = start(flags...)
	}
	s.run("mkdir", "/h/a", "/h/b")
	burn(t, s, "/h/a")
	burn(t, s, "/h/b")
	was, _ := s.counts("/h/a")
	s.hasCounts("measured", "/h/a", was)
	boot("--enable", "cpuacct")
	s.hasCounts("after a boot", "/h/a", was)
	s.kill9()
	s = start("--enable", "cpuacct")
	s.hasCounts("killed after it", "/h/a", was)
	burn(t, s, "/h/a")
	both, _ := s.counts("/h/a")
	if both < was*3/2 {
		t.Errorf("as much again: usage is %d, was %d", both, was)
	}
	boot("--enable", "cpuacct")
	s.hasCounts("after another boot", "/h/a", both)
	s.run("write", "/h/a/cpuacct.usage", "0")
	for _, when := range []string{"reset", "reset and killed"} {
		if usage, stat := s.counts("/h/a"); usage != 0 || stat != 0 {
			t.Errorf("%s: usage is %d, stat %d ns", when, usage, stat)
		}
		s.kill9()
		s = start("--enable", "cpuacct")
	}
	b, _ := s.counts("/h/b")
	boot()
	s.hasCounts("without the kernel's", "/h/b", b)
	s.run("rmdir", "/h/a", "/h/b")
	s.stop()
}

// TestKernelCpuacctRefused: a reset that cannot be kept resets nothing, in the kernel neither.
func TestKernelCpuacctRefused(t *testing.T) {
	needHost(t)
	mountOf(t, "cpuacct")
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--hierarchy", "h=cpuacct", "--enable", "cpuacct")
		s.run("mkdir", "/h/a")
		burn(t, s, "/h/a")
		was, _ := s.counts("/h/a")
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		c := s.client("/")
		containers := append(c.mkdirUntilFull("/h/"), "a")
		if err := c.write("/h/a/cpuacct.usage", "0\n"); !isFull(err) {
			t.Errorf("%v, want ENOSPC", err)
		}
		s.hasCounts("a reset that is refused", "/h/a", was)
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		for _, name := range containers {
			s.run("rmdir", "/h/"+name)
		}
		s.stop()
		retireMirrors(t, state)
	})
}

// TestRefusedForksKept: forks that the kernel has refused are failures for ever, also after a boot,
// which has it count anew.
func TestRefusedForksKept(t *testing.T) {
	needHost(t)
	state := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	k := controllers{1, map[string]string{"pids": mountOf(t, "pids")}, versions[1]}
	start := func() *server {
		return startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "h=numtasks,pids")
	}
	s := start()
	s.run("mkdir", "/h/a")
	s.run("write", "/h/numtasks.shares", "child_shares_divisor="+strings.TrimSpace(s.run("read", "/h/numtasks.limit")))
	s.run("write", "/h/a/numtasks.shares", "max_shares=1")
	for n := 1; n <= 2; n++ {
		sh := k.triesToFork(t, s)
		sh.Process.Kill()
		sh.Wait()
		base := s.base()
		s.stop() // before anybody asked
		forgetKernelDirs(t, base)
		s = start()
		want := fmt.Sprintf("Number of failures %d\n", n)
		if got := s.run("read", "/h/a/numtasks.stats"); !strings.Contains(got, want) {
			t.Errorf("after boot %d, stats are\n%s", n, got)
		}
	}
	s.run("rmdir", "/h/a")
	s.stop()
}

// TestKernelCpuacctOff: a reset stays one where a server without the kernel's counts was in between,
// and the time of that is in what is shown after it, once. A kill loses nothing that the kernel has.
func TestKernelCpuacctOff(t *testing.T) {
	start := cpuacctServers(t)
	s := start("--enable", "cpuacct")
	s.run("mkdir", "/h/a")
	for range 4 {
		burn(t, s, "/h/a")
	}
	was, _ := s.counts("/h/a")
	s.kill9()
	s = start("--enable", "cpuacct")
	s.hasCounts("killed", "/h/a", was)
	s.run("write", "/h/a/cpuacct.usage", "0")
	s.stop()
	s = start()
	burn(t, s, "/h/a")
	one, _ := s.counts("/h/a")
	if one > was/2 {
		t.Errorf("what is to be a quarter of %d is %d", was, one)
	}
	s.stop()
	s = start("--enable", "cpuacct")
	s.hasCounts("with the kernel's again", "/h/a", one)
	burn(t, s, "/h/a")
	both, _ := s.counts("/h/a")
	if both < one*3/2 {
		t.Errorf("as much again: usage is %d, was %d", both, one)
	}
	s.stop()
	s = start("--enable", "cpuacct")
	s.hasCounts("started again", "/h/a", both)
	s.run("rmdir", "/h/a")
	s.stop()
}

// TestKernelCpusetOff: a server without the kernel's cpuset says of what one with it has left there
// that it holds on; to have it again, and to take the tasks out, leaves nothing.
func TestKernelCpusetOff(t *testing.T) {
	needHost(t)
	mountOf(t, "cpuset")
	state := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	start := func(flags ...string) *server {
		t.Helper()
		return startServer(t, append([]string{"--state", state, "--hierarchy", "h=cpuset"}, flags...)...)
	}
	p := startSpawner(t)
	says := func(s *server, want bool) {
		t.Helper()
		if ctl := s.run("read", "/ctl"); strings.Contains(ctl, "\n# cpuset: the kernel's cpuset is as a server with --enable cpuset has left it, in /containerfs-") != want {
			t.Errorf("whether something is left is not said as %v:\n%s", want, ctl)
		}
	}
	s := start()
	says(s, false)
	s.stop()
	s = start("--enable", "cpuset")
	says(s, false)
	s.run("mkdir", "/h/a")
	s.run("set", "/h/a", "cpuset.cpus=0", "cpuset.mems=0")
	s.run("attach", "/h/a", fmt.Sprint(p.pid()))
	base := s.base()
	s.stop()
	s = start()
	says(s, true)
	if log := s.log.String(); !strings.Contains(log, "level=WARN msg=\"the kernel's cpuset is as") {
		t.Errorf("the start does not warn of it:\n%s", log)
	}
	s.stop()
	s = start("--enable", "cpuset")
	says(s, false)
	s.run("attach", "/h", fmt.Sprint(p.pid()))
	s.run("rmdir", "/h/a")
	s.stop()
	if dirs := kernelDirs(base); len(dirs) > 0 {
		t.Errorf("left over: %q", dirs)
	}
	s = start()
	says(s, false)
	s.stop()
}

// TestKernelDirectoriesMadeAgain: where somebody removes the kernel's directory of a container, or
// all of them, the one that is made again has what is in force of cpuset, and what cpuacct has
// counted is not lost.
func TestKernelDirectoriesMadeAgain(t *testing.T) {
	needHost(t)
	roots := []string{mountOf(t, "cpuset"), mountOf(t, "cpuacct")}
	s := startServer(t, "--enable", "cpuset", "--enable", "cpuacct", "--hierarchy", "h=cpuset,cpuacct")
	s.run("mkdir", "/h/a", "/h/a/b")
	for _, path := range []string{"/h/a", "/h/a/b"} {
		s.run("set", path, "cpuset.cpus=0", "cpuset.mems=0")
	}
	for range 3 {
		burn(t, s, "/h/a/b")
	}
	was, _ := s.counts("/h/a/b")
	p := startSpawner(t)
	k := controllers{version: 1}
	s.run("attach", "/h/a/b", fmt.Sprint(p.pid()))
	dirs := []string{k.dir(t, "cpuset", p.pid())} // the same in both
	for dir := filepath.Dir(dirs[0]); dir != "/"; dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
	}
	s.run("attach", "/h", fmt.Sprint(p.pid()))
	for n := range dirs {
		for _, root := range roots {
			waitFor(t, "the directories to be away", func() bool { // the server makes them again meanwhile
				return !slices.ContainsFunc(dirs[:n+1], func(dir string) bool {
					err := os.Remove(root + dir)
					return err != nil && !os.IsNotExist(err)
				})
			})
		}
		if n == 0 { // else an attach makes them
			for _, root := range roots {
				waitFor(t, "the directory to be made again", func() bool { _, err := os.Stat(root + dirs[0]); return err == nil })
			}
		}
		s.run("attach", "/h/a/b", fmt.Sprint(p.pid()))
		if got := cpusAllowed(t, p.pid(), p.pid()); got != "0" {
			t.Errorf("without %q it has CPUs %s", dirs[:n+1], got)
		}
		s.run("attach", "/h", fmt.Sprint(p.pid()))
		s.hasCounts("made again", "/h/a/b", was)
		burn(t, s, "/h/a/b")
		was, _ = s.counts("/h/a/b")
	}
}

// TestKernelDirectoryGone: as long as a directory is gone that somebody has removed, what passes
// through is ENODEV, and a write to cpuset makes it again.
func TestKernelDirectoryGone(t *testing.T) {
	needHost(t)
	roots := []string{mountOf(t, "cpuset"), mountOf(t, "pids")}
	s := startServer(t, "--enable", "cpuset", "--enable", "pids", "--hierarchy", "h=cpuset,pids,numtasks")
	s.run("mkdir", "/h/a")
	s.run("set", "/h/a", "cpuset.cpus=0", "cpuset.mems=0", "pids.max=7")
	p := startSpawner(t)
	s.run("attach", "/h/a", fmt.Sprint(p.pid()))
	dir := controllers{version: 1}.dir(t, "pids", p.pid()) // the same in both
	s.run("attach", "/h", fmt.Sprint(p.pid()))
	c := s.client("h")
	for _, test := range []struct {
		what string
		do   func() error
		want error
	}{
		{"read of pids.max", func() error { _, err := c.read("a/pids.max"); return err }, linux.ENODEV},
		{"write to pids.max", func() error { return c.write("a/pids.max", "6") }, linux.ENODEV},
		{"write to numtasks.shares", func() error { return c.write("a/numtasks.shares", "max_shares=3") }, linux.ENODEV},
		{"read of numtasks.stats", func() error { _, err := c.read("a/numtasks.stats"); return err }, nil},
		{"write to cpuset.cpus", func() error { return c.write("a/cpuset.cpus", "0-0") }, nil},
		{"write to cpuset.mems", func() error { return c.write("a/cpuset.mems", "0-0") }, nil},
	} {
		waitFor(t, test.what+" without the directory", func() bool {
			for _, root := range roots {
				if err := os.Remove(root + dir); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			err := test.do()
			if err == nil && test.want != nil { // it was made again already, and has what was written
				s.run("set", "/h/a", "pids.max=7")
				return false
			}
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", test.what, err, test.want)
			}
			return true
		})
	}
	waitFor(t, "what was set to be there again", func() bool {
		b, err := os.ReadFile(roots[1] + dir + "/pids.max")
		return err == nil && string(b) == "7\n"
	})
}

// TestKernelCpusetAfterBoot: where the kernel's directories are gone when a server is started, as
// after a boot of the host, containers have their CPUs and nodes there from the start.
func TestKernelCpusetAfterBoot(t *testing.T) {
	needHost(t)
	mountOf(t, "cpuset")
	state := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	s := startServer(t, "--state", state, "--enable", "cpuset", "--hierarchy", "h=cpuset")
	s.run("mkdir", "/h/a", "/h/a/b")
	for _, path := range []string{"/h/a", "/h/a/b"} {
		s.run("set", path, "cpuset.cpus=0", "cpuset.mems=0")
	}
	p := startSpawner(t)
	for _, first := range [][]string{
		{"attach", "/h/a/b", fmt.Sprint(p.pid())},
		{"set", "/h/a/b", "cpuset.cpus=0,0"},
		{"set", "/h/a/b", "cpuset.mems=0,0"},
		{"set", "/h/a/b", "cpuset.cpus="},
	} {
		base := s.base()
		s.stop()
		forgetKernelDirs(t, base)
		s = startServer(t, "--state", state, "--enable", "cpuset")
		s.run(first...)
		s.run("set", "/h/a/b", "cpuset.cpus=0")
		s.run("attach", "/h/a/b", fmt.Sprint(p.pid()))
		if got := cpusAllowed(t, p.pid(), p.pid()); got != "0" {
			t.Errorf("after %q it has CPUs %s", first, got)
		}
		s.run("attach", "/h", fmt.Sprint(p.pid()))
	}
	s.run("rmdir", "/h/a/b", "/h/a")
	s.stop()
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Errorf("logged\n%s", s.log.String())
	}
}
