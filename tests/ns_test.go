package tests

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNamespaces has a process with new namespaces in a container of its own, in
// the hierarchy of ns and in no other, by all that a client can see.
func TestNamespaces(t *testing.T) {
	s := startServer(t, "--enable", "ns", "--hierarchy", "ns=ns,debug", "--hierarchy", "rest=cpuset")
	if got := s.run("read", "/containers"); !strings.Contains(got, "\nns\t") {
		t.Errorf("the table of subsystems lacks ns:\n%s", got)
	}
	c := exec.Command("unshare", "--uts", "sleep", "60")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	}()
	dir := fmt.Sprintf("/ns/node_%d", c.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if code, stdout, _ := s.command("read", dir+"/tasks"); code == 0 && slices.Contains(numbers(t, stdout), c.Process.Pid) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is not in %s", c.Process.Pid, dir)
		}
	}
	if got := s.run("ls", "/rest"); strings.Contains(got, "node_") {
		t.Errorf("another hierarchy has a container of it:\n%s", got)
	}
	if got := s.run("stat", dir); !strings.Contains(got, "755") {
		t.Errorf("stat says\n%s", got)
	}
	// Out of it no task goes, whoever asks.
	if code, _, stderr := s.command("write", "/ns/tasks", fmt.Sprint(c.Process.Pid)); code == 0 || !strings.Contains(stderr, "not permitted") {
		t.Errorf("a move up: exit code %d, %s", code, stderr)
	}
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	_ = c.Wait()
	waitFor(t, "rmdir", func() bool { code, _, _ := s.command("rmdir", dir); return code == 0 })
}
