package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKernelCpusetChanges: with the kernel's cpuset below ours members get what is written,
// also where that grows or has nothing of what was there, and nobody is said to be missed.
func TestKernelCpusetChanges(t *testing.T) {
	needHost(t)
	mountOf(t, "cpuset") // where the host has version 1
	s := startServer(t, "--hierarchy", "cs=cpuset", "--enable", "cpuset")
	if online := s.run("read", "/cs/cpuset.cpus"); !strings.HasPrefix(online, "0-") {
		t.Skipf("there is one CPU: %s", online)
	}
	s.run("mkdir", "/cs/a")
	s.run("mkdir", "/cs/a/b")
	s.run("write", "/cs/a/cpuset.mems", "0")
	s.run("write", "/cs/a/cpuset.cpus", "1")
	p := startSpawner(t)
	s.run("write", "/cs/a/procs", fmt.Sprint(p.pid()))
	for _, cpus := range []string{"0", "1", "0-1", "0", "0-1", "1"} {
		s.run("write", "/cs/a/cpuset.cpus", cpus)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
		if err != nil {
			t.Fatal(err)
		}
		if want := "\nCpus_allowed_list:\t" + cpus + "\n"; !strings.Contains(string(status), want) {
			t.Errorf("with %s:\n%s", cpus, status)
		}
	}
	s.run("write", "/cs/procs", fmt.Sprint(p.pid()))
	p.kill()
	s.run("rmdir", "/cs/a/b", "/cs/a")
	s.stop()
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "cpus=") {
			t.Error(line)
		}
	}
}

// TestKernelCpusetElsewhere: where somebody has a task in a cpuset of the kernel's with other
// CPUs than the container has, as docker does, it comes into the container's all the same, for it
// is taken out of the other; back in the root it is there again, with the CPUs that it had. Where
// the kernel does not let it in, it has all that it had.
func TestKernelCpusetElsewhere(t *testing.T) {
	needHost(t)
	theirs := filepath.Join(mountOf(t, "cpuset"), "containerfs-test-elsewhere") // where the host has version 1
	s := startServer(t, "--hierarchy", "cs=cpuset", "--enable", "cpuset")
	if online := s.run("read", "/cs/cpuset.cpus"); !strings.HasPrefix(online, "0-") {
		t.Skipf("there is one CPU: %s", online)
	}
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	p := startSpawner(t)
	t.Cleanup(func() {
		p.kill()
		waitFor(t, "the other cpuset to be empty", func() bool { return os.Remove(theirs) == nil })
	})
	writeFile(t, theirs+"/cpuset.cpus", "0")
	writeFile(t, theirs+"/cpuset.mems", "0")
	writeFile(t, theirs+"/cgroup.procs", fmt.Sprint(p.pid()))
	kernel := controllers{version: 1}
	has := func(want string) {
		t.Helper()
		if got := cpusAllowed(t, p.pid(), p.pid()); got != want {
			t.Errorf("it has CPUs %s, want %s", got, want)
		}
	}
	s.run("mkdir", "/cs/a")
	s.run("write", "/cs/a/cpuset.mems", "0")
	for _, cpus := range []string{"1", "0-1", "0"} {
		s.run("write", "/cs/a/cpuset.cpus", cpus)
		s.run("write", "/cs/a/procs", fmt.Sprint(p.pid()))
		has(cpus)
		child := p.fork()
		s.run("write", "/cs/procs", fmt.Sprint(p.pid()))
		has("0")
		s.run("write", "/cs/procs", fmt.Sprint(child))
		if got := cpusAllowed(t, child, child); got != "0" {
			t.Errorf("its child has CPUs %s, want those of its forker", got)
		}
		if got := kernel.dir(t, "cpuset", p.pid()); got != "/"+filepath.Base(theirs) {
			t.Errorf("it went back to %s", got)
		}
	}
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "cpus=") {
			t.Error(line)
		}
	}
	// Somebody has written to the kernel's directory of the container.
	s.run("write", "/cs/a/procs", fmt.Sprint(p.pid()))
	dir := filepath.Join(filepath.Dir(theirs), kernel.dir(t, "cpuset", p.pid()))
	s.run("write", "/cs/procs", fmt.Sprint(p.pid()))
	writeFile(t, dir+"/cpuset.cpus", "1")
	if code, _, _ := s.command("write", "/cs/a/procs", fmt.Sprint(p.pid())); code != 1 {
		t.Errorf("it cannot have the container's CPUs: exit code %d", code)
	}
	has("0")
	if got := kernel.dir(t, "cpuset", p.pid()); got != "/"+filepath.Base(theirs) {
		t.Errorf("refused, it is in %s", got)
	}
	if got := s.tasks("/cs/a"); len(got) != 0 {
		t.Errorf("refused, the container has %d", got)
	}
}
