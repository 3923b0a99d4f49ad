package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"
)

// onTmpfs runs a test in a mount namespace of its own, with a small file system at
// the directory that it gets. A server that it starts is there too.
func onTmpfs(t *testing.T, size string, f func(t *testing.T, dir string)) {
	t.Helper()
	needHost(t)
	dir := t.TempDir()
	onOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size),
		); err != nil {
			t.Error(err)
			return
		}
		f(t, dir)
	})
}

// TestDiskFull fills the disk under a server: changes are refused and not made,
// everything else goes on, and when there is room again so do changes.
func TestDiskFull(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--hierarchy", "n=numtasks")
		c := s.client("/")
		p := startSpawner(t)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(c.mkdir("/n/a"))
		must(c.write("/n/a/tasks", fmt.Sprint(p.pid())))
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		// Free pages of the file can take some changes more.
		var refusal error
		n := 0
		for ; refusal == nil && n < 5000; n++ {
			refusal = c.mkdir(fmt.Sprintf("/n/%0200d", n))
		}
		if !isFull(refusal) {
			t.Errorf("after %d containers: %v, want ENOSPC", n, refusal)
		}
		last := fmt.Sprintf("/n/%0200d", n-1)
		if _, err := c.read(last + "/tasks"); !errors.Is(err, linux.ENOENT) {
			t.Errorf("the container that was refused: %v, want ENOENT", err)
		}
		if got := s.tasks("/n/a"); len(got) != 1 || got[0] != p.pid() {
			t.Errorf("/n/a has %v, want %d", got, p.pid())
		}
		before := s.run("ls", "/n")
		must(os.Remove(ballast))
		must(c.mkdir(last))
		must(c.rmdir(last))
		s.kill9()
		s = startServer(t, "--state", state)
		if after := s.run("ls", "/n"); after != before {
			t.Errorf("there is\n%swas\n%s", after, before)
		}
		if got := s.tasks("/n/a"); len(got) != 1 || got[0] != p.pid() {
			t.Errorf("/n/a has %v, want %d", got, p.pid())
		}
		s.stop()
		// A start with the disk full is no reason to refuse what is there.
		fill(t, ballast)
		s = startServer(t, "--state", state)
		s.stop()
		// What cannot be made is refused.
		code, _, stderr := refusedStart(t, "--state", filepath.Join(dir, "another"))
		if code == 0 || !strings.Contains(stderr, "no space left") {
			t.Errorf("a new state on a full disk: exit code %d\n%s", code, stderr)
		}
		must(os.Remove(ballast))
		p.kill()
		retireMirrors(t, state)
	})
}

// TestDiskFullLog: on a full disk each change that is refused would have a line of the log,
// which may be on that disk. So many are written as of a user's changes, and it is said how
// many were not.
func TestDiskFullLog(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--hierarchy", "n=debug")
		c := s.client("/")
		fill(t, filepath.Join(dir, "ballast"))
		began := time.Now()
		for refused, i := 0, 0; refused < 600; i++ {
			if err := c.mkdir(fmt.Sprintf("/n/%0200d", i)); err != nil {
				refused++
			}
		}
		most := 200 + 20*int(time.Since(began)/time.Second+1)
		n := strings.Count(s.log.String(), "changes could not be kept, and are undone")
		if n == 0 || n > most {
			t.Errorf("%d lines of 600 changes that were refused, want %d at most", n, most)
		}
		if most < 600 {
			waitFor(t, "the line of what was left out", func() bool {
				return strings.Contains(s.log.String(), "left_out=") || strings.Contains(s.log.String(), "lines left out")
			})
		}
		if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
			t.Error(err)
		}
		s.stop()
		retireMirrors(t, state)
	})
}

// TestDiskFullCounts: what was measured goes on while the disk is full, whatever is refused
// meanwhile, and is kept when there is room again.
func TestDiskFullCounts(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		args := []string{"--state", state, "--hierarchy", "h=cpuacct,numtasks,bc"}
		s := startServer(t, args...)
		s.run("mkdir", "/h/a", "/h/a/b")
		s.run("run", "-c", "/h/a/b", "--", "sh", "-c", "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; sh -c :; :")
		measured := func() (all string) {
			for _, path := range []string{"/h/a", "/h/a/b"} {
				for _, name := range []string{"cpuacct.usage", "cpuacct.stat", "numtasks.stats", "bc.numproc.maxheld", "releasable"} {
					all += path + "/" + name + " " + s.run("read", path+"/"+name)
				}
			}
			return all
		}
		want := measured()
		if strings.Contains(want, "cpuacct.usage 0\n") {
			t.Errorf("the job used nothing: %s", want)
		}
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		// Each is a change of both.
		refused := func(what string, do func(n int) error) {
			t.Helper()
			for n := range 5000 {
				if err := do(n); isFull(err) {
					return
				} else if err != nil {
					t.Errorf("%s: %v, want ENOSPC", what, err)
					return
				}
			}
			t.Errorf("%s is not refused", what)
		}
		c := s.client("/")
		for _, path := range []string{"/h/a", "/h/a/b"} {
			refused("mkdir in "+path, func(n int) error { return c.mkdir(fmt.Sprintf("%s/%0200d", path, n)) })
		}
		if got := measured(); got != want {
			t.Errorf("with the disk full there is\n%swas\n%s", got, want)
		}
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		s.stop()
		s = startServer(t, args...)
		if got := measured(); got != want {
			t.Errorf("after a restart there is\n%swas\n%s", got, want)
		}
		s.stop()
		retireMirrors(t, state)
	})
}

// fill takes all the room that there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// isFull reports whether an error is that of a full disk.
func isFull(err error) bool { return errors.Is(err, linux.ENOSPC) || errors.Is(err, syscall.ENOSPC) }

// mkdirUntilFull makes containers until one is refused, and returns their names: on a full disk
// there is still room in the file of the state. Of a server that was started anew there can be
// enough for changes that make nothing, for ever.
func (c *client) mkdirUntilFull(below string) (names []string) {
	for n := range 5000 {
		name := fmt.Sprintf("%0200d", n)
		if err := c.mkdir(below + name); err != nil {
			break
		}
		names = append(names, name)
	}
	return names
}

// TestReadOnlyState: a state directory that cannot be written to is refused, as one
// that becomes so is said at the next change.
func TestReadOnlyState(t *testing.T) {
	onTmpfs(t, "8m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state)
		s.run("mkdir", "/all/a")
		s.stop()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{state, filepath.Join(dir, "another")} {
			code, _, stderr := refusedStart(t, "--state", at)
			if code == 0 || !strings.Contains(stderr, "read-only") || !strings.Contains(stderr, at) {
				t.Errorf("%s, read-only: exit code %d\n%s", at, code, stderr)
			}
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		s = startServer(t, "--state", state)
		s.run("rmdir", "/all/a")
		s.stop()
		retireMirrors(t, state)
	})
}
