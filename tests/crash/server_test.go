package crash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops/store"
	"containerfs/tree/kernfs"
)

// server is one life of the server.
type server struct {
	cmd  *exec.Cmd
	sock string
	took time.Duration // until it was ready
	done chan struct{}
	tap  *tap // nil without

	mu  sync.Mutex
	log strings.Builder
}

// startServer starts one, tapped or not, and waits until it is ready.
func startServer(t testing.TB, tapped bool, args ...string) *server {
	t.Helper()
	s := &server{sock: filepath.Join(t.TempDir(), "s"), done: make(chan struct{})}
	s.cmd = exec.Command("containerfs", append([]string{"serve", "--listen", "unix://" + s.sock}, args...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var begin func() *tap
	if tapped {
		begin = tapIt(t, s.cmd)
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if tapped {
		s.tap = begin()
	}
	ready := make(chan struct{})
	go func() {
		defer close(s.done)
		for in := bufio.NewScanner(stderr); in.Scan(); {
			if in.Text() == "ready" {
				s.took = time.Since(began)
				close(ready)
			}
			if !strings.Contains(in.Text(), "msg=change") {
				s.mu.Lock()
				fmt.Fprintln(&s.log, in.Text())
				s.mu.Unlock()
			}
		}
	}()
	select {
	case <-ready:
	case <-s.done:
		t.Fatalf("the server ended before it was ready:\n%s", s.text())
	case <-time.After(60 * time.Second):
		t.Fatalf("the server is not ready after a minute:\n%s", s.text())
	}
	return s
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// end ends the server by a signal.
func (s *server) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.cmd.Process.Signal(sig)
	s.ended(t)
}

// killed waits until a tapped server was killed at a point.
func (s *server) killed(t testing.TB, at point) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		t.Errorf("the server was never %s", pointNames[at])
		s.cmd.Process.Kill()
	}
	s.ended(t)
	if got := s.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGKILL {
		t.Errorf("the server has ended by %v:\n%s", got, s.text())
	}
}

// ended waits until the server has ended, and reports what it should not have said.
func (s *server) ended(t testing.TB) {
	t.Helper()
	<-s.done
	s.cmd.Wait()
	if s.tap != nil {
		s.tap.done.Wait()
	}
	for _, bad := range []string{"panic:", "DATA RACE", "level=ERROR"} {
		if strings.Contains(s.text(), bad) {
			t.Errorf("the server said\n%s", s.text())
		}
	}
}

// session is a connection to the root directory. After an error that is no answer
// nothing more may be asked, not even a clunk: the client library then gives what
// waits for an answer that will not come to the next who asks, on any connection.
type session struct {
	conn net.Conn
	root p9.File
	dead bool
}

// done closes a file after what came to err.
func (s *session) done(f p9.File, err error) error {
	var errno linux.Errno
	if err != nil && err != io.EOF && !(errors.As(err, &errno) && errno != linux.EIO) {
		s.dead = true
	}
	if !s.dead {
		f.Close()
	}
	return err
}

func (s *server) session() (*session, error) {
	conn, err := net.Dial("unix", s.sock)
	if err != nil {
		return nil, err
	}
	c, err := p9.NewClient(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	root, err := c.Attach("/")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &session{conn: conn, root: root}, nil
}

// refused reports whether the server has answered no, in contrast to not at all.
// What it cannot have meant is reported.
func refused(t testing.TB, err error) bool {
	var errno linux.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case linux.EEXIST, linux.ENOENT, linux.EBUSY, linux.EAGAIN, linux.ENODEV, linux.EINVAL:
	case linux.EIO: // what the client library makes of a connection that ended
		return false
	default:
		t.Errorf("a change was refused: %v", err)
	}
	return true
}

func (s *session) walk(path string) (p9.File, error) {
	_, f, err := s.root.Walk(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }))
	return f, err
}

// in does something in the directory of a path.
func (s *session) in(path string, do func(dir p9.File, name string) error) error {
	i := strings.LastIndexByte(path, '/')
	dir, err := s.walk(path[:i])
	if err != nil {
		return err
	}
	return s.done(dir, do(dir, path[i+1:]))
}

func (s *session) mkdir(path string, mode uint32) error {
	return s.in(path, func(dir p9.File, name string) error {
		_, err := dir.Mkdir(name, p9.FileMode(mode), p9.NoUID, p9.NoGID)
		return err
	})
}

func (s *session) rmdir(path string) error {
	return s.in(path, func(dir p9.File, name string) error { return dir.UnlinkAt(name, 0x200) })
}

func (s *session) rename(path, to string) error {
	return s.in(path, func(dir p9.File, name string) error { return dir.RenameAt(name, dir, to) })
}

func (s *session) setattr(path string, mode, uid uint32) error {
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	return s.done(f, f.SetAttr(p9.SetAttrMask{Permissions: true, UID: true}, p9.SetAttr{Permissions: p9.FileMode(mode), UID: p9.UID(uid)}))
}

func (s *session) write(path, text string) error {
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	if _, _, err = f.Open(p9.WriteOnly); err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	return s.done(f, err)
}

func (s *session) read(path string) (string, error) {
	f, err := s.walk(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return "", err
	}
	var all []byte
	for b := make([]byte, 8<<10); ; {
		n, err := f.ReadAt(b, int64(len(all)))
		all = append(all, b[:n]...)
		if err == io.EOF || err == nil && n == 0 {
			return string(all), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// dirs are the containers in a container.
func (s *session) dirs(path string) (names []string, err error) {
	f, err := s.walk(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return nil, err
	}
	for offset := uint64(0); ; {
		ents, err := f.Readdir(offset, 16<<10)
		if err != nil || len(ents) == 0 {
			return names, err
		}
		for _, e := range ents {
			if offset = e.Offset; e.QID.Type&p9.TypeDir != 0 && e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
			}
		}
	}
}

// mirror opens the mirror of a state directory, which no server has.
func mirror(t testing.TB, dir string) *kernfs.Dir {
	t.Helper()
	name := ""
	s, err := store.Open(dir, func(k store.Key, v []byte) error {
		if k == (store.Key{Bucket: store.Facts, Name: "mirror"}) {
			name = "containerfs-" + string(v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	root, err := kernfs.OpenNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// mirror is the name of the server's mirror, as it said.
func (s *server) mirror() string {
	_, rest, _ := strings.Cut(s.text(), `msg="mirror: on, `)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}
