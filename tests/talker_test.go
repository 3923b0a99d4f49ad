package tests

import (
	"bufio"
	"io"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// talker is a process that a test talks to, by lines. It ends when its input does, or
// with the test at the latest.
type talker struct {
	*exec.Cmd
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
}

// startTalker has sh run a script.
func startTalker(t testing.TB, script string) *talker {
	t.Helper()
	s := &talker{Cmd: exec.Command("sh", "-c", script), t: t}
	s.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	if s.in, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-s.Process.Pid, syscall.SIGKILL)
		s.Wait()
	})
	return s
}

func (s *talker) pid() string { return strconv.Itoa(s.Process.Pid) }

// tell writes a line to it.
func (s *talker) tell(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// hear is the next line that it says.
func (s *talker) hear() string {
	s.t.Helper()
	if !s.out.Scan() {
		s.t.Fatalf("the process has ended: %v", s.out.Err())
	}
	return s.out.Text()
}
