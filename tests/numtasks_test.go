package tests

import (
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
	c := startTalker(t, "read go; sleep 60 & wait $!; echo $?; read end")
	s.run("write", "/h/a/tasks", c.pid())
	c.tell("go")
	if got := c.hear(); got != "137" {
		t.Errorf("the child's status is %q, want 137: killed", got)
	}
	if got := s.run("read", "/h/a/numtasks.stats"); !strings.Contains(got, "Number of failures 1\n") {
		t.Errorf("stats:\n%s", got)
	}
	if got := s.run("read", "/h/events"); !strings.Contains(got, " limit hierarchy=h path=/a over=numtasks.limit\n") {
		t.Errorf("no limit event:\n%s", got)
	}
}
