package tests

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestNumtasksKill has a shell's children killed that are over the limit of its
// container, and not the shell.
func TestNumtasksKill(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=numtasks")
	s.run("mkdir", "/h/a")
	limit := strings.TrimSpace(s.run("read", "/h/numtasks.limit"))
	s.run("write", "/h/numtasks.shares", "child_shares_divisor="+limit)
	s.run("write", "/h/a/numtasks.shares", "max_shares=1")
	if got := s.run("read", "/h/a/numtasks.limit"); got != "1\n" {
		t.Fatalf("the limit is %q", got)
	}
	s.run("write", "/h/a/numtasks.policy", "kill")
	c := exec.Command("sh", "-c", "read go; sleep 60 & wait $!; echo $?; read end")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := c.Wait(); err != nil && !strings.Contains(err.Error(), "exit status 1") {
			t.Error(err)
		}
	}()
	s.run("write", "/h/a/tasks", strconv.Itoa(c.Process.Pid))
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 16)
	n, err := out.Read(text)
	if got := string(text[:n]); got != "137\n" || err != nil {
		t.Errorf("the child's status is %q, %v, want 137: killed", got, err)
	}
	if got := s.run("read", "/h/a/numtasks.stats"); !strings.Contains(got, "Number of failures 1\n") {
		t.Errorf("stats:\n%s", got)
	}
	if got := s.run("read", "/h/events"); !strings.Contains(got, " limit hierarchy=h path=/a over=numtasks.limit\n") {
		t.Errorf("no limit event:\n%s", got)
	}
}
