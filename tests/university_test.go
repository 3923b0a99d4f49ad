package tests

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestUniversity is the example that several hierarchies were made for: a university's
// server with CPU, memory and disk, and network shared out in trees of different
// shape. A professor's browser is in the professors' class for CPU and memory and in
// the web's for the network.
func TestUniversity(t *testing.T) {
	needHost(t)
	k := controllers{1, map[string]string{}, versions[1]}
	names := []string{"cpu", "memory", "blkio", "net_cls"}
	for _, name := range names[:3] {
		k.root[name] = mountOf(t, name)
	}
	var args []string
	for _, name := range names {
		args = append(args, "--enable", name)
	}
	s := startServer(t, append(args,
		"--hierarchy", "cpu=cpu,cpuset", "--hierarchy", "space=memory,blkio", "--hierarchy", "net=net_cls")...)
	for _, path := range []string{
		"/cpu/top", "/cpu/top/profs", "/cpu/top/students", "/cpu/system",
		"/space/profs", "/space/students", "/space/system",
		"/net/www", "/net/www/profs", "/net/www/students", "/net/nfs", "/net/others",
	} {
		s.run("mkdir", path)
	}
	for _, w := range []string{
		"/cpu/top/cpuset.cpus 0-1", "/cpu/top/cpuset.mems 0",
		"/cpu/top/profs/cpuset.cpus 0", "/cpu/top/profs/cpuset.mems 0",
		"/cpu/top/students/cpuset.cpus 1", "/cpu/top/students/cpuset.mems 0",
		"/cpu/system/cpuset.cpus 0-1", "/cpu/system/cpuset.mems 0",
		"/cpu/system/cpu.cfs_quota_us 20000",
		"/space/profs/memory.limit_in_bytes 48M", "/space/students/memory.limit_in_bytes 24M", "/space/system/memory.limit_in_bytes 24M",
		"/net/www/net_cls.classid 0x100020", "/net/www/profs/net_cls.classid 0x100015", "/net/www/students/net_cls.classid 0x100005",
		"/net/nfs/net_cls.classid 0x100060", "/net/others/net_cls.classid 0x1000ff",
	} {
		path, value, _ := strings.Cut(w, " ")
		s.run("write", path, value)
	}
	if got := s.run("read", "/net/www/students/net_cls.classid"); got != fmt.Sprintf("%d\n", 0x100005) {
		t.Errorf("the students' network class is %q", got)
	}

	// A browser falls into classes by who started it and by what it is.
	begin := func(user string) *spawner {
		p := startSpawner(t)
		s.run("write", "/cpu/top/"+user+"/tasks", fmt.Sprint(p.pid()))
		s.run("write", "/space/"+user+"/tasks", fmt.Sprint(p.pid()))
		return p
	}
	prof, student := begin("profs"), begin("students")
	s.run("write", "/net/www/profs/tasks", fmt.Sprint(prof.pid()))
	s.run("write", "/net/www/students/tasks", fmt.Sprint(student.pid()))
	server := startSpawner(t)
	s.run("write", "/cpu/system/tasks", fmt.Sprint(server.pid()))
	s.run("write", "/space/system/tasks", fmt.Sprint(server.pid()))
	s.run("write", "/net/nfs/tasks", fmt.Sprint(server.pid()))
	was := map[string]string{}
	place := func(pid int) string {
		var all []string
		for _, name := range names {
			all = append(all, name+"="+strings.TrimPrefix(k.dir(t, name, pid), s.base()))
		}
		return strings.Join(all, " ")
	}
	for name, p := range map[string]*spawner{"prof": prof, "student": student, "server": server} {
		was[name] = place(p.pid())
		if got := place(p.fork()); got != was[name] {
			t.Errorf("a child of the %s's is in %s, not %s", name, got, was[name])
		}
		if strings.Contains(was[name], "=/ ") || strings.HasSuffix(was[name], "=/") {
			t.Errorf("the %s is in %s", name, was[name])
		}
	}
	if got := cpusAllowed(t, student.pid(), student.pid()); got != "1" {
		t.Errorf("the student's browser has CPUs %s", got)
	}
	if got, want := s.run("read", fmt.Sprintf("/proc/%d/container", prof.pid())),
		"net_cls:/www/profs\nmemory,blkio:/profs\ncpuset,cpu:/top/profs\n"; !sameLines(got, want) {
		t.Errorf("the professor's browser is in\n%swant\n%s", got, want)
	}

	// At night the student may play: another class of the network for a while, and
	// all else as it was.
	before := k.dir(t, "net_cls", student.pid())
	s.run("write", "/net/others/tasks", fmt.Sprint(student.pid()))
	if got := k.dir(t, "net_cls", student.pid()); got == before {
		t.Errorf("the student's browser is still in %s", got)
	}
	if got, want := withoutLast(place(student.pid())), withoutLast(was["student"]); got != want {
		t.Errorf("another network class, and it is in %s, was in %s", got, want)
	}
	s.run("write", "/net/www/students/tasks", fmt.Sprint(student.pid()))
	if got := place(student.pid()); got != was["student"] {
		t.Errorf("back, it is in %s, was in %s", got, was["student"])
	}

	// Who uses up the students' memory harms students only.
	hog := startWaiter(t, "exec tail /dev/zero")
	s.run("write", "/space/students/tasks", hog.pid())
	s.run("write", "/net/www/profs/tasks", hog.pid())
	hog.run(t)
	var exit *exec.ExitError
	if err := hog.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the hog ended with %v, want SIGKILL", err)
	}
	if !lives(prof.pid()) || !lives(server.pid()) {
		t.Error("others were killed with it")
	}
	if got := s.run("read", "/space/profs/memory.oom_control"); !strings.Contains(got, "oom_kill 0\n") {
		t.Errorf("the professors' memory.oom_control:\n%s", got)
	}
}

func withoutLast(place string) string { return place[:strings.LastIndex(place, " ")] }

// sameLines compares lines in any order.
func sameLines(a, b string) bool {
	in := map[string]int{}
	for line := range strings.Lines(a) {
		in[line]++
	}
	for line := range strings.Lines(b) {
		in[line]--
	}
	for _, n := range in {
		if n != 0 {
			return false
		}
	}
	return true
}
