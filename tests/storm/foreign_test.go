package storm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// pick is a random process of the storm, 0 if there is none.
func (g *gale) pick() int32 {
	g.t.Helper()
	pids := g.oracle.members("cgroup.procs")
	n := 0
	for pid := range pids { // the order of a map is random, but not evenly so
		if n++; n > g.rng.IntN(8) {
			return pid
		}
	}
	return 0
}

// astray compares the model with the mirror while the storm stands still, by the
// text of /proc.
func (g *gale) astray(w *world, want map[int32]string) (differences []string) {
	for tid, dir := range want {
		if _, err := w.host.Task(tid); err != nil {
			continue
		}
		var group string
		w.tree.View(func() {
			if task := w.tree.Task(tid); task != nil {
				group = fmt.Sprint(task.Group().Num())
			}
		})
		if now := g.oracle.inMirror(w, tid); now != "" && (group != dir || now != dir) {
			differences = append(differences, fmt.Sprintf("task %d should be in %q, the mirror has it in %q, the model in %q", tid, dir, now, group)+g.history(w, tid))
		}
	}
	return differences
}

// inMirror is the mirror's directory that a task of the storm is in: "0" for the root, ""
// for a task that is gone, or exiting, which the kernel shows in the root of each hierarchy:
// that can last where many wait for a processor.
func (o *oracle) inMirror(w *world, tid int32) string {
	o.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", tid))
	if err != nil {
		return ""
	}
	_, path, ok := strings.Cut(string(text), ":name="+w.mirror.Name()+":/")
	if !ok {
		o.t.Fatalf("task %d is not in the mirror: %q", tid, text)
	}
	if !o.member(tid) {
		return ""
	}
	if path, _, _ = strings.Cut(path, "\n"); path == "" {
		return "0"
	}
	return path
}

// Somebody else moves tasks in the mirror. Audit takes them where they are, or
// back to the root from where nobody of the model can be.
func TestForeignMoves(t *testing.T) {
	o := newOracle(t)
	w := newWorld(t, setup{})
	back, err := kernfs.OpenNamed(w.mirror.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	foreign := []string{"x", "99999999", "x/1"}
	if err := errors.Join(back.Make("x"), back.Make("99999999")); err != nil {
		t.Fatal(err)
	}
	sub, err := back.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sub.Make("1"), sub.Close()); err != nil {
		t.Fatal(err)
	}
	g := raise(t, o, forks(size(10_000, 100_000)))
	stolen, mended, stills := 0, 0, 0
	for g.running() {
		for range 10 {
			pid := g.pick()
			if pid == 0 {
				break
			}
			if g.rng.IntN(2) == 0 {
				h := g.rng.IntN(len(shape))
				// What runs can end, or make threads.
				err := w.tree.Attach(tree.AttachRequest{To: w.containers[h][g.rng.IntN(shape[h])], ID: pid, Process: g.rng.IntN(2) == 0})
				if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EAGAIN) {
					t.Fatal(err)
				}
				continue
			}
			groups, err := w.mirror.Groups()
			if err != nil {
				t.Fatal(err)
			}
			dir := foreign[g.rng.IntN(len(foreign))]
			if n := g.rng.IntN(len(groups) + 2); n < len(groups)-1 {
				dir = fmt.Sprint(groups[n])
			} else if n == len(groups) {
				dir = "."
			}
			// Held, so that the number is not somebody else's.
			h, threads := o.stop(pid)
			if h == nil {
				continue
			}
			if g.rng.IntN(2) == 0 {
				err = back.Move(dir, threads[g.rng.IntN(len(threads))], false)
			} else {
				err = back.Move(dir, pid, true)
			}
			h.Release()
			if err != nil {
				t.Fatal(err)
			}
			stolen++
			time.Sleep(rand.N(2 * time.Millisecond))
		}
		func() {
			defer o.freeze()()
			want := make(map[int32]string)
			for tid := range o.members("tasks") {
				switch dir := o.inMirror(w, tid); {
				case dir == "":
				case dir[0] == 'x' || dir == "99999999":
					want[tid] = "0"
				default:
					want[tid] = dir
				}
			}
			mended += w.tree.Audit()
			for _, d := range g.astray(w, want) {
				t.Error(d)
			}
			if n := w.tree.Audit(); n != 0 {
				t.Errorf("Audit put %d more right", n)
			}
			if w.tree.Strayed() {
				t.Error("strayed after Audit")
			}
			if err := w.tree.Check(); err != nil {
				t.Error(err)
			}
			stills++
		}()
		if t.Failed() {
			return
		}
	}
	g.finish(size(10_000, 100_000))
	w.ended()
	t.Logf("%d moves by somebody else, %d tasks put right in %d audits", stolen, mended, stills)
	if stolen < 10 || mended == 0 {
		t.Error("that says nothing")
	}
}

// The model follows the mirror also when what is moved runs on, and forks.
func TestRunningMoves(t *testing.T) {
	o := newOracle(t)
	w := newWorld(t, setup{})
	n := size(20_000, 200_000)
	g := raise(t, o, forks(n))
	moves, refused, stills := 0, make(map[error]int), 0
	for next := time.Now(); g.running() && !t.Failed(); {
		pid := g.pick()
		if g.rng.IntN(8) == 0 {
			pid = g.root
		}
		h := g.rng.IntN(len(shape))
		to, process, began := g.rng.IntN(shape[h]), g.rng.IntN(2) == 0, w.host.Now()
		err := w.tree.Attach(tree.AttachRequest{To: w.containers[h][to], ID: pid, Process: process})
		g.moved[pid] = append(g.moved[pid], fmt.Sprintf("attach of %d (process %v) to %d of hierarchy %d at %d..%d: %v", pid, process, to, h, began, w.host.Now(), err))
		if errors.Is(err, syscall.ESRCH) {
			refused[syscall.ESRCH]++
		} else if errors.Is(err, syscall.EAGAIN) {
			refused[syscall.EAGAIN]++
		} else if err != nil {
			t.Fatal(err)
		}
		moves++
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(200 * time.Millisecond)
		stills++
		func() {
			defer o.freeze()()
			w.host.Drain()
			want := make(map[int32]string)
			for tid := range o.members("tasks") {
				if dir := o.inMirror(w, tid); dir != "" {
					want[tid] = dir
				}
			}
			g.compared += len(want)
			for _, d := range g.astray(w, want) {
				t.Error(d)
			}
			if err := w.tree.Check(); err != nil {
				t.Error(err)
			}
		}()
		w.tree.Sweep(0) // a directory goes at once: its tasks can still come
	}
	if t.Failed() {
		return
	}
	g.finish(n)
	w.ended()
	t.Logf("%d moves, refused %v; %d tasks compared in %d looks; %d of %d forks looked up in the mirror",
		moves, refused, g.compared, stills, w.events.doubts.Load(), w.events.forks.Load())
}
