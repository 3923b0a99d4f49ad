package tests

import (
	"strings"
	"testing"
)

// TestNumtasksKill has a shell's children killed that are over the limit of its
// container, and not the shell.
func TestNumtasksKill(t *testing.T) {
	killsOverLimit(t, startServer(t, "--hierarchy", "cpu=numtasks"))
}

// TestNumtasksKillPolling: it is so where the host tells of no forks.
func TestNumtasksKillPolling(t *testing.T) {
	r := startPolling(t, 0, "64001 cpu x create\n")
	if ctl := r.run("read", "/ctl"); !strings.Contains(ctl, "# numtasks: a fork is counted, and with numtasks.policy=kill killed, at the next look at all tasks") {
		t.Errorf("ctl does not tell when:\n%s", ctl)
	}
	killsOverLimit(t, r.server)
}

func killsOverLimit(t *testing.T, s *server) {
	s.run("mkdir", "/cpu/a")
	limit := strings.TrimSpace(s.run("read", "/cpu/numtasks.limit"))
	s.run("write", "/cpu/numtasks.shares", "child_shares_divisor="+limit)
	s.run("write", "/cpu/a/numtasks.shares", "max_shares=1")
	if got := s.run("read", "/cpu/a/numtasks.limit"); got != "1\n" {
		t.Fatalf("the limit is %q", got)
	}
	s.run("write", "/cpu/a/numtasks.policy", "kill")
	c := startTalker(t, "read go; sleep 60 & wait $!; echo $?; read end")
	s.run("write", "/cpu/a/tasks", c.pid())
	c.tell("go")
	if got := c.hear(); got != "137" {
		t.Errorf("the child's status is %q, want 137: killed", got)
	}
	if got := s.run("read", "/cpu/a/numtasks.stats"); !strings.Contains(got, "Number of failures 1\n") {
		t.Errorf("stats:\n%s", got)
	}
	if got := s.run("read", "/cpu/events"); !strings.Contains(got, " limit hierarchy=cpu path=/a over=numtasks.limit\n") {
		t.Errorf("no limit event:\n%s", got)
	}
}
