package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// startProxy starts a proxy at a socket. It ends with the test, and must end well.
func startProxy(t testing.TB, sock, server string, args ...string) (log *lockedBuffer) {
	t.Helper()
	log = new(lockedBuffer)
	cmd := exec.Command("containerfs", append([]string{"proxy"}, append(args, "unix://"+sock, server)...)...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the proxy ended with %v:\n%s", err, log.String())
		}
	})
	waitFor(t, "the proxy", func() bool { return strings.Contains(log.String(), "ready\n") })
	return log
}

// through is a client behind a proxy.
func through(t testing.TB, sock, aname string) *client {
	t.Helper()
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	root, err := attach(conn, aname)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, root}
}

// TestPersistentSession: behind a proxy that persists, a client goes on when the server was
// killed and started again: its files are those that they were, or else it is told.
func TestPersistentSession(t *testing.T) {
	dir, fixed := t.TempDir(), filepath.Join(t.TempDir(), "s")
	t.Cleanup(func() { retireMirrors(t, dir) })
	start := func(listens bool) *server {
		args := []string{"--state", dir, "--hierarchy", "all=debug"}
		if listens {
			args = append(args, "--listen", "unix://"+fixed)
		}
		return startServer(t, args...)
	}
	s := start(true)
	s.run("mkdir", "/all/kept", "/all/gone", "/all/kept/deep")
	sock := filepath.Join(t.TempDir(), "p.sock")
	log := startProxy(t, sock, "unix://"+fixed, "--persist", "1m")
	c := through(t, sock, "all")
	p := startSpawner(t)
	pid := strconv.Itoa(p.pid())

	open := func(path string, mode p9.OpenFlags) p9.File {
		f, err := c.walk(path)
		if err == nil {
			_, _, err = f.Open(mode)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return f
	}
	tasks, goneTasks := open("kept/tasks", p9.ReadWrite), open("gone/tasks", p9.ReadWrite)
	deep, gone := open("kept/deep", p9.ReadOnly), open("gone", p9.ReadOnly)
	listing := open("tasks", p9.ReadOnly)
	some := make([]byte, 4)
	if n, err := listing.ReadAt(some, 0); n != 4 || err != nil {
		t.Fatalf("read: %d, %v", n, err)
	}
	s.kill9()

	// While there is no server a write waits.
	wrote := make(chan error, 1)
	go func() {
		_, err := tasks.WriteAt([]byte(pid), 0)
		wrote <- err
	}()
	s = start(false) // where the proxy does not find it
	s.run("rmdir", "/all/gone")
	s.run("mkdir", "/all/gone") // and another has the name
	s.run("mv", "/all/kept", "/all/kept2")
	s.run("mv", "/all/kept2", "/all/kept")
	s.stop()
	select {
	case err := <-wrote:
		t.Fatalf("a write is answered without a server: %v", err)
	default:
	}
	s = start(true)
	if err := <-wrote; err != nil {
		t.Fatalf("a write that waited: %v", err)
	}
	if got := s.tasks("/all/kept"); len(got) != 1 || strconv.Itoa(got[0]) != pid {
		t.Errorf("tasks of kept are %v, want %s", got, pid)
	}
	if _, err := deep.Readdir(0, 4096); err != nil {
		t.Errorf("readdir of a container that is there: %v", err)
	}
	if _, err := goneTasks.WriteAt([]byte(pid), 0); !errors.Is(err, linux.ESTALE) {
		t.Errorf("write to tasks of a container that was removed: %v", err)
	}
	if _, _, err := gone.Walk([]string{"tasks"}); !errors.Is(err, linux.ESTALE) {
		t.Errorf("walk from a container that was removed: %v", err)
	}
	if got := s.tasks("/all/gone"); len(got) != 0 {
		t.Errorf("tasks of the other container are %v", got)
	}
	if _, err := listing.ReadAt(some, 4); !errors.Is(err, linux.ESTALE) {
		t.Errorf("read on of what has been opened again: %v", err)
	}
	if n, err := listing.ReadAt(some, 0); n != 4 || err != nil {
		t.Errorf("read it again: %d, %v", n, err)
	}
	if _, err := c.walk("gone/tasks"); err != nil {
		t.Errorf("walk to the other container: %v", err)
	}
	if says := log.String(); !strings.Contains(says, "connection lost") || !strings.Contains(says, "not to be had any more") {
		t.Errorf("the proxy says\n%s", says)
	}
}

// TestPersistentSessionWithoutState: what a server without a state directory has is not what
// the one before it had, by whatever names; but for what it always has.
func TestPersistentSessionWithoutState(t *testing.T) {
	fixed := filepath.Join(t.TempDir(), "s")
	start := func() *server {
		s := startServer(t, "--state", "none", "--hierarchy", "all=debug", "--listen", "unix://"+fixed)
		s.run("mkdir", "/all/a")
		return s
	}
	s := start()
	sock := filepath.Join(t.TempDir(), "p.sock")
	startProxy(t, sock, "unix://"+fixed, "--persist", "1m")
	c := through(t, sock, "all")
	tasks, err := c.walk("a/tasks")
	if err == nil {
		_, _, err = tasks.Open(p9.ReadWrite)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	s = start()
	if _, err := tasks.WriteAt([]byte(strconv.Itoa(startSpawner(t).pid())), 0); !errors.Is(err, linux.ESTALE) {
		t.Errorf("write to tasks of a container that ended with its server: %v", err)
	}
	if got := s.tasks("/all/a"); len(got) != 0 {
		t.Errorf("tasks of the new container are %v", got)
	}
	if _, err := c.walk("a/tasks"); err != nil {
		t.Errorf("walk to the new container: %v", err)
	}
}

// TestPersistentLoad kills the server again and again under clients that do not notice
// but for what was on its way: what was acknowledged is so, what was refused is not.
func TestPersistentLoad(t *testing.T) {
	kills, workers := 5, 4
	if soaking {
		kills = 100
	}
	dir, fixed := t.TempDir(), filepath.Join(t.TempDir(), "s")
	t.Cleanup(func() { retireMirrors(t, dir) })
	start := func() *server {
		return startServer(t, "--state", dir, "--hierarchy", "all=debug", "--listen", "unix://"+fixed)
	}
	s := start()
	sock := filepath.Join(t.TempDir(), "p.sock")
	log := startProxy(t, sock, "unix://"+fixed, "--persist", "1m")
	stop := make(chan struct{})
	var load sync.WaitGroup
	var mu sync.Mutex
	var changes, unknown int
	for n := range workers {
		c := through(t, sock, "all")
		p := startSpawner(t)
		load.Go(func() {
			done, lost := persistentWorker(c, n, p.pid(), stop)
			mu.Lock()
			defer mu.Unlock()
			changes, unknown = changes+done, unknown+lost
		})
	}
	for range kills {
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond)
		s.kill9()
		s = start()
		want := strings.Count(log.String(), "connection lost")
		waitFor(t, "all connections", func() bool { return strings.Count(log.String(), "connected again") >= want })
	}
	close(stop)
	load.Wait()
	t.Logf("%d kills: %d changes, of %d nobody knew whether they were made", kills, changes, unknown)
	if changes == 0 {
		t.Error("nothing was changed")
	}
}

// persistentWorker makes containers, moves a process through them and removes them, and
// looks after each whether that is so.
func persistentWorker(c *client, n, pid int, stop <-chan struct{}) (changes, unknown int) {
	own := fmt.Sprintf("/w%d", n)
	// change makes a change until it is known that it is made. One that nobody knew of may
	// have been: then it is refused with again.
	change := func(what string, again linux.Errno, do func() error, is func() bool) {
		err := do()
		for changes++; errors.Is(err, linux.EIO); changes++ {
			unknown++
			if err = do(); again != 0 && errors.Is(err, again) {
				err = nil
			}
		}
		if err != nil {
			c.t.Errorf("%s%s: %v", own, what, err)
		} else if !is() {
			c.t.Errorf("%s%s: it was acknowledged and is not so", own, what)
		}
	}
	isThere := func(path string) func() bool {
		return func() bool {
			f, err := c.walk(path)
			if err == nil {
				f.Close()
			} else if !errors.Is(err, linux.ENOENT) {
				c.t.Errorf("%s: %v", path, err)
			}
			return err == nil
		}
	}
	make := func(path string) {
		change(path+" made", linux.EEXIST, func() error { return c.mkdir(path) }, isThere(path))
	}
	move := func(path string) {
		change(path+" moved to", 0, func() error { return c.write(path+"/tasks", strconv.Itoa(pid)) }, func() bool {
			text, err := c.read(path + "/tasks")
			for errors.Is(err, linux.ESTALE) { // the server changed between two pages
				text, err = c.read(path + "/tasks")
			}
			if err != nil {
				c.t.Errorf("%s: %v", path, err)
			}
			return slices.Contains(numbers(c.t, text), pid)
		})
	}
	make(own)
	for i := 0; !c.t.Failed(); i++ {
		select {
		case <-stop:
			return changes, unknown
		default:
		}
		path := fmt.Sprintf("%s/c%d", own, i)
		make(path)
		move(path)
		move(own)
		is := isThere(path)
		change(path+" removed", linux.ENOENT, func() error { return c.rmdir(path) }, func() bool { return !is() })
	}
	return changes, unknown
}
