package tests

import (
	"fmt"
	"os"
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
