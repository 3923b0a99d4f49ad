package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
)

// server is a `containerfs serve` of a test's own.
type server struct {
	t    testing.TB
	cmd  *exec.Cmd
	sock string // its unix socket
	port string // its TCP port on 127.0.0.1, open to this host's root
	log  lockedBuffer
	done chan struct{} // closed when its standard error has ended
}

// startServer starts a server on a unix socket and on loopback TCP, and waits
// until it is ready. It ends with the test, and must end well.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	return startServerAs(t, nil, args...)
}

// startServerAs is for a server that is started in another way, which is made of its
// command.
func startServerAs(t testing.TB, as func(*exec.Cmd), args ...string) *server {
	t.Helper()
	needHost(t)
	dir, err := os.MkdirTemp("", "cfs") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &server{t: t, sock: filepath.Join(dir, "9p.sock"), done: make(chan struct{})}
	args = append([]string{"serve", "--listen", "unix://" + s.sock, "--listen", "tcp://127.0.0.1:0?no_root_squash"}, args...)
	s.cmd = exec.Command("containerfs", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if as != nil {
		as(s.cmd)
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(s.done)
		for in := bufio.NewScanner(stderr); in.Scan(); {
			fmt.Fprintln(&s.log, in.Text())
			if in.Text() == "ready" {
				close(ready)
			}
		}
	}()
	t.Cleanup(s.stop)
	select {
	case <-ready:
	case <-s.done:
		t.Fatalf("the server ended before it was ready:\n%s", s.log.String())
	case <-time.After(30 * time.Second):
		t.Fatalf("the server is not ready after 30 s:\n%s", s.log.String())
	}
	for line := range strings.Lines(s.log.String()) {
		if at, ok := strings.CutPrefix(line, "listening on tcp://127.0.0.1:"); ok {
			s.port, _, _ = strings.Cut(strings.TrimSpace(at), "?")
		}
	}
	if s.port == "" || s.port == "0" {
		t.Fatalf("no line `listening on tcp://127.0.0.1:PORT`:\n%s", s.log.String())
	}
	return s
}

// stop ends the server as a service manager does.
func (s *server) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Signal(syscall.SIGQUIT) })
	<-s.done
	err := s.cmd.Wait()
	if !late.Stop() {
		s.t.Errorf("the server did not end within 20 s of SIGTERM")
	} else if err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
	if _, err := os.Lstat(s.sock); err == nil {
		s.t.Errorf("the server left its socket %s", s.sock)
	}
	if log := s.log.String(); s.t.Failed() || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		s.t.Errorf("the server's standard error:\n%s", log)
	}
}

// command runs a client command against the server.
func (s *server) command(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command("containerfs", append([]string{"--server", "unix://" + s.sock}, args...)...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// run runs a client command that must succeed and returns what it printed.
func (s *server) run(args ...string) string {
	s.t.Helper()
	code, stdout, stderr := s.command(args...)
	if code != 0 || stderr != "" {
		s.t.Fatalf("containerfs %q: exit code %d\n%s", args, code, stderr)
	}
	return stdout
}

// tasks reads a container's tasks.
func (s *server) tasks(container string) []int {
	s.t.Helper()
	return numbers(s.t, s.run("read", container+"/tasks"))
}

// client is a connection for tests that look at errno values.
type client struct {
	t    testing.TB
	root p9.File
}

// client attaches over the unix socket.
func (s *server) client(aname string) *client {
	s.t.Helper()
	conn, err := net.Dial("unix", s.sock)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := attach(conn, aname)
	if err != nil {
		conn.Close()
		s.t.Fatalf("attach %q: %v", aname, err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &client{s.t, c}
}

func attach(conn net.Conn, aname string) (p9.File, error) {
	c, err := p9.NewClient(conn)
	if err != nil {
		return nil, err
	}
	return c.Attach(aname)
}

// walk goes along a path, a name at a time, so that a walk that ends early is
// seen for what it is.
func (c *client) walk(path string) (p9.File, error) {
	_, f, err := c.root.Walk(nil)
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if err != nil || name == "" {
			break
		}
		var next p9.File
		_, next, err = f.Walk([]string{name})
		f.Close()
		f = next
	}
	return f, err
}

// parent goes to the directory of a path's last name, which may be any text
// without a slash.
func (c *client) parent(path string) (dir p9.File, name string, err error) {
	i := strings.LastIndex(path, "/")
	dir, err = c.walk(path[:i])
	return dir, path[i+1:], err
}

func (c *client) write(path, value string) error {
	f, err := c.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.WriteOnly); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(value), 0)
	return err
}

func (c *client) read(path string) (string, error) {
	f, err := c.walk(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return "", err
	}
	var all []byte
	for buf := make([]byte, 16<<10); ; {
		n, err := f.ReadAt(buf, int64(len(all)))
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all), nil
		}
		if err != nil {
			return "", err
		}
	}
}

func (c *client) mkdir(path string) error {
	dir, name, err := c.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = dir.Mkdir(name, 0o755, p9.NoUID, p9.NoGID)
	return err
}

func (c *client) rmdir(path string) error {
	dir, name, err := c.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.UnlinkAt(name, 0x200) // AT_REMOVEDIR
}

func (c *client) rename(path, to string) error {
	dir, name, err := c.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.RenameAt(name, dir, to)
}

// names lists a directory.
func (c *client) names(path string) ([]string, error) {
	f, err := c.walk(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return nil, err
	}
	var names []string
	for offset := uint64(0); ; {
		entries, err := f.Readdir(offset, 16<<10)
		if err != nil || len(entries) == 0 {
			return names, err
		}
		for _, e := range entries {
			names = append(names, e.Name)
			offset = e.Offset
		}
	}
}
