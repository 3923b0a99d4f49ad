package tests

import (
	"errors"
	"fmt"
	"net"
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
// connections, on the unix socket or from whatever addresses of the loopback.
func TestStrangersDescriptors(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s := startServerAs(t, func(cmd *exec.Cmd) {
				cmd.Args = append([]string{"sh", "-c", `ulimit -n 256; exec "$0" "$@"`}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
				cmd.Path = "/bin/sh"
			}, "--hierarchy", "n=numtasks")
			if err := os.Chmod(filepath.Dir(s.sock), 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range 400 {
				var conn net.Conn
				var err error
				if network == "unix" {
					conn, err = s.dialAs(student)
				} else {
					d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}}
					conn, err = d.Dial("tcp", "127.0.0.1:"+s.port)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			s.run("mkdir", "/n/a")
			s.run("rmdir", "/n/a")
		})
	}
}
