package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"
)

// TestNoDescriptorsLeft has a server run out of descriptors, so that it cannot look at
// the host: it takes nobody for gone because of that.
func TestNoDescriptorsLeft(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=numtasks")
	c := s.client("/")
	p := startSpawner(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.mkdir("/n/a"))
	must(c.write("/n/a/tasks", fmt.Sprint(p.pid())))
	child := p.fork() // that nobody has looked at yet
	must(c.write("/n/tasks", fmt.Sprint(p.pid())))
	var was unix.Rlimit
	must(unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &was))
	none := unix.Rlimit{Cur: 1, Max: was.Max}
	must(unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &none, nil))
	if err := c.rmdir("/n/a"); err == nil || errors.Is(err, linux.ENOENT) {
		t.Errorf("rmdir of a container with a task: %v", err)
	}
	must(unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &was, nil))
	if err := c.rmdir("/n/a"); !errors.Is(err, linux.EBUSY) && !errors.Is(err, syscall.EBUSY) {
		t.Errorf("rmdir of a container with a task: %v, want EBUSY", err)
	}
	if got := s.tasks("/n/a"); len(got) != 1 || got[0] != child {
		t.Errorf("/n/a has %v, want %d", got, child)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", child)); err != nil {
		t.Error(err)
	}
}

// TestStrangersDescriptors: a user cannot have all descriptors of the server by his
// connections.
func TestStrangersDescriptors(t *testing.T) {
	s := startServerAs(t, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `ulimit -n 256; exec "$0" "$@"`}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path = "/bin/sh"
	}, "--hierarchy", "n=numtasks")
	if err := os.Chmod(filepath.Dir(s.sock), 0o755); err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command("python3", "-c", `
import socket, sys
all = []
for i in range(400):
	c = socket.socket(socket.AF_UNIX)
	c.connect(sys.argv[1])
	all.append(c)
print("all", flush=True)
sys.stdin.read()`, s.sock)
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: student, Gid: student}}
	stranger.Dir = "/"
	stranger.Stderr = os.Stderr
	in, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := stranger.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Skip("no python3:", err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Error(err)
	}
	s.run("mkdir", "/n/a")
	s.run("rmdir", "/n/a")
	in.Close()
	stranger.Wait()
}
