package tests

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLogReaderEnds: a server outlives who reads its log.
func TestLogReaderEnds(t *testing.T) {
	needHost(t)
	sock := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("containerfs", "serve", "--listen", "unix://"+sock, "--hierarchy", "n=numtasks")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(stderr); in.Scan() && in.Text() != "ready"; {
	}
	stderr.Close()
	s := &server{t: t, sock: sock}
	for _, name := range []string{"a", "b", "c"} {
		if code, _, stderr := s.command("mkdir", "/n/"+name); code != 0 {
			t.Errorf("mkdir of %s: %s", name, stderr)
		}
	}
	if got := s.run("ls", "/n"); !strings.Contains(got, "c") {
		t.Errorf("ls: %s", got)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
