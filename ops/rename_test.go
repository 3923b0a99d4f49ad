package ops

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

func TestRename(t *testing.T) {
	w, k := aWorld(t)
	for _, path := range []string{"m/a/b", "m/a/b/c", "m/x", "m/x/b"} {
		k.must(k.mkdir(path))
	}
	pid := w.fork(0)
	k.must(k.write("m/a/b/c/tasks", fmt.Sprint(pid)))
	k.must(k.write("m/a/b/alpha.value", "v\n"))
	rename := func(path, to string) func() error { return func() error { return k.rename(path, to) } }
	w.refused(linux.ENOENT, "what is not there", rename("m/y", "m/z"))
	w.refused(linux.ENOTDIR, "a file", rename("m/a/tasks", "m/a/z"))
	w.refused(linux.ENOTDIR, "a file, bad name", rename("m/a/tasks", "m/a/\n"))
	w.refused(linux.ENOTDIR, "ctl", rename("ctl", "z"))
	w.refused(linux.EPERM, "a hierarchy", rename("m", "z"))
	w.refused(linux.EPERM, "proc", rename("proc", "z"))
	w.refused(linux.EPERM, "a process", rename("proc/1", "proc/3"))
	w.refused(linux.EEXIST, "to a sibling", rename("m/a", "m/x"))
	w.refused(linux.EEXIST, "to a file", rename("m/a", "m/tasks"))
	w.refused(linux.EEXIST, "to another parent, existing", rename("m/a/b", "m/x/b"))
	w.refused(linux.EEXIST, "to another parent's file", rename("m/a/b", "m/x/tasks"))
	w.refused(linux.EIO, "to another parent", rename("m/a/b", "m/x/y"))
	w.refused(linux.EIO, "to above", rename("m/a/b", "m/y"))
	w.refused(linux.EIO, "to below itself", rename("m/a/b", "m/a/b/c/y"))
	w.refused(linux.EIO, "to /", rename("m/a", "y"))
	w.refused(linux.EIO, "to proc", rename("m/a", "proc/y"))
	w.refused(linux.EEXIST, "to a process", rename("m/a", "proc/1"))
	w.refused(0, "to itself", rename("m/a/b", "m/a/b"))

	al := w.as(alice)
	w.refused(linux.EACCES, "without permission", func() error { return al.rename("m/a", "m/z") })
	k.must(k.chmod("m/x", 0o744))
	for _, name := range []string{"b", "y"} { // which of them is there is not told
		w.refused(linux.EACCES, "to where he may not search", func() error { return al.rename("m/a/b", "m/x/"+name) })
	}
	open, err := k.open("m/a/b/alpha.value", p9.ReadOnly)
	k.must(err)
	defer open.Close()
	qid := open.(*file).n.qid()
	k.must(k.rename("m/a/b", "m/a/z"))
	if got, err := readAll(open); got != "v\n" || err != nil {
		t.Errorf("an open fid reads %q, %v", got, err)
	}
	k.want("m/a/z/c/tasks", fmt.Sprintln(pid))
	k.want("m/a/z/alpha.value", "v\n")
	k.want(fmt.Sprintf("proc/%d/container", pid), "alpha,cpuset:/a/z/c\n")
	f, err := k.walk("m/a/z/alpha.value")
	k.must(err)
	defer f.Close()
	if got := f.(*file).n.qid(); got != qid {
		t.Errorf("qid %v, was %v", got, qid)
	}
	w.refused(linux.ENOENT, "the former name", func() error { _, err := k.read("m/a/b/tasks"); return err })
}

// TestRenameByFid is Trename: of the container that the fid is of, whatever has
// its former name.
func TestRenameByFid(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/x"))
	dir, m := k.parentOf("m/a/"), k.parentOf("m/")
	k.must(dir.Rename(m, "b"))
	k.must(k.mkdir("m/a"))
	k.must(dir.Rename(m, "c"))
	k.must(k.write("m/c/alpha.value", "first\n"))
	k.want("m/a/alpha.value", "0\n")
	w.refused(linux.EEXIST, "existing", func() error { return dir.Rename(m, "x") })
	w.refused(linux.EIO, "another parent", func() error { return dir.Rename(k.parentOf("m/x/"), "y") })
	w.refused(linux.EPERM, "a hierarchy", func() error { return m.Rename(k.root, "y") })
	w.refused(linux.ENOTDIR, "a file", func() error { return k.parentOf("m/a/tasks/").Rename(m, "y") })
	k.must(k.rmdir("m/c"))
	k.must(k.mkdir("m/c"))
	w.refused(linux.ENODEV, "removed", func() error { return dir.Rename(m, "y") })
}

// TestNamesAreLookedUpInsideTheChange has rmdir and rename race for a name: the
// loser must not act on what has got another name since.
func TestNamesAreLookedUpInsideTheChange(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/keep"))
	for range 300 {
		k.must(k.mkdir("m/x"))
		var wg sync.WaitGroup
		var renamed, removed error
		wg.Go(func() { renamed = k.rename("m/x", "m/y") })
		wg.Go(func() { removed = k.rmdir("m/x") })
		wg.Wait()
		_, x := k.attr("m/x")
		_, y := k.attr("m/y")
		if (renamed == nil) == (removed == nil) || errno(x) != linux.ENOENT || (renamed == nil) != (y == nil) {
			t.Fatalf("rename: %v, rmdir: %v; then x: %v, y: %v", renamed, removed, x, y)
		}
		if y == nil {
			k.must(k.rmdir("m/y"))
		}
	}
	if got := w.container("m").NumChildren(); got != 2 {
		t.Errorf("%d children", got)
	}
}

// inOrder starts requests one after the other while a change is under way, so that
// each has looked up its names before the first one acts.
func (w *world) inOrder(requests ...func() error) []error {
	errs := make([]error, len(requests))
	var running sync.WaitGroup
	var done atomic.Int32
	w.tree.Change(func() error {
		for i, request := range requests {
			running.Go(func() { errs[i] = request(); done.Add(1) })
			for deadline := time.Now().Add(10 * time.Second); waiting()+int(done.Load()) <= i && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
	running.Wait()
	return errs
}

// waiting is how many goroutines wait for a mutex.
func waiting() int { return goroutinesIn("runtime_SemacquireMutex(") }

// goroutinesIn is how many goroutines are in a function.
func goroutinesIn(function string) int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), function)
}

func TestNamesThatChangeWhileARequestWaits(t *testing.T) {
	w, k := aWorld(t)
	for range 10 {
		k.must(k.mkdir("m/x"))
		first, err := k.walk("m/x")
		k.must(err)
		qid := first.(*file).n.qid()
		errs := w.inOrder(
			func() error { return k.rename("m/x", "m/y") },
			func() error { return k.rmdir("m/x") },
		)
		if errs[0] != nil || errno(errs[1]) != linux.ENOENT {
			t.Errorf("rename: %v, rmdir of the former name: %v, want ENOENT", errs[0], errs[1])
		}
		errs = w.inOrder(
			func() error { return k.rename("m/y", "m/z") },
			func() error { return k.mkdir("m/y") },
			func() error { return first.Rename(k.parentOf("m/"), "x") },
		)
		f, err := k.walk("m/x")
		if err != nil || f.(*file).n.qid() != qid {
			t.Errorf("%v: the fid's container is not at x: %v", errs, err)
		}
		f.Close()
		first.Close()
		k.must(k.rmdir("m/x"))
		k.must(k.rmdir("m/y"))
	}
}
