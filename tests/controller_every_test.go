package tests

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// everyV1 are the controllers of version 1 that the kernel has, and that can be asked
// for.
func everyV1(t testing.TB) (names []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		t.Fatal(err)
	}
	can := []string{"cpuset", "cpuacct", "cpu", "memory", "blkio", "devices", "freezer", "net_cls", "net_prio", "pids", "hugetlb", "perf_event"}
	for line := range strings.Lines(string(text)) {
		if w := strings.Fields(line); len(w) == 4 && w[3] == "1" && slices.Contains(can, w[0]) {
			names = append(names, w[0])
		}
	}
	return names
}

// TestEveryController has all of version 1 that the host has take part in one hierarchy:
// a process enters the directories of all, and goes back to where it was in each.
func TestEveryController(t *testing.T) {
	needHost(t)
	mountOf(t, "pids") // where the host has version 1
	names := everyV1(t)
	args := []string{"--hierarchy", "every=" + strings.Join(names, ",")}
	for _, name := range names {
		args = append(args, "--enable", name)
	}
	p := startSpawner(t)
	was, mounted := make(map[string]string), make(map[string]bool)
	for _, name := range names {
		was[name], mounted[name] = place(t, name, p.pid())
	}
	s := startServer(t, args...)
	s.run("mkdir", "/every/a")
	s.run("write", "/every/a/cpuset.cpus", "0")
	s.run("write", "/every/a/cpuset.mems", "0")
	s.run("write", "/every/a/procs", fmt.Sprint(p.pid()))
	child := p.fork()
	files := s.run("ls", "/every/a")
	if got := s.run("get", "/every/a"); !strings.Contains(got, "cpuset.cpus=0\n") { // in spite of what cannot be read
		t.Errorf("get: %q", got)
	}
	for _, name := range names {
		for _, pid := range []int{p.pid(), child} {
			if got, _ := place(t, name, pid); !strings.Contains(got, "containerfs") {
				t.Errorf("%s: %d is in %q", name, pid, got)
			}
		}
		if !strings.Contains(files, name+".") && name != "perf_event" { // which has none of its own
			t.Errorf("%s has no file:\n%s", name, files)
		}
	}
	for _, pid := range []int{p.pid(), child} {
		s.run("write", "/every/procs", fmt.Sprint(pid))
		for _, name := range names {
			// One that is mounted nowhere the server has mounted for itself.
			if got, _ := place(t, name, pid); got != was[name] && mounted[name] {
				t.Errorf("%s: %d went back to %q, was in %q", name, pid, got, was[name])
			}
		}
	}
	s.run("rmdir", "/every/a")
	s.stop()
	if log := s.log.String(); strings.Contains(log, "left over") {
		t.Errorf("something is left over:\n%s", log)
	}
	for _, name := range names {
		if got, _ := place(t, name, p.pid()); got != was[name] {
			t.Errorf("%s: after the server's end it is in %q, was in %q", name, got, was[name])
		}
	}
}

// place is where the kernel has a process for a controller: in the hierarchy of version 1
// that has it, or in version 2.
func place(t testing.TB, controller string, pid int) (path string, v1 bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		w := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(w) != 3:
		case slices.Contains(strings.Split(w[1], ","), controller):
			return w[2], true
		case w[1] == "":
			path = w[2]
		}
	}
	return path, false
}
