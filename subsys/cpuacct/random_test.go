package cpuacct

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// world is what usage should be: a map.
type world struct {
	f      *fixture
	mirror bool
	rand   *rand.Rand
	where  map[int32]string  // path of each live task, "" is the root
	used   map[string]uint64 // by path
	paths  []string
	late   []Final
	names  int
}

// run counts for the task's container and all above.
func (w *world) run(tid int32) {
	ns := uint64(w.rand.IntN(1000))
	w.f.run(tid, ns)
	path := w.where[tid]
	for path != "" {
		w.used[path] += ns
		path = path[:max(strings.LastIndexByte(path, '/'), 0)]
	}
	w.used[""] += ns
}

func (w *world) task() int32 {
	var tids []int32
	for _, tid := range w.f.sim.TIDs() {
		if tid != hostsim.InitTID {
			tids = append(tids, tid)
		}
	}
	if len(tids) == 0 {
		return 0
	}
	return tids[w.rand.IntN(len(tids))]
}

func (w *world) path() string { return w.paths[w.rand.IntN(len(w.paths))] }

// step does one thing.
func (w *world) step() {
	f, tid := w.f, w.task()
	if tid == 0 {
		tid = f.sim.Fork(hostsim.InitTID)
		w.where[tid] = ""
	}
	w.run(tid)
	switch w.rand.IntN(12) {
	case 0, 1:
		k := f.sim.Fork(tid)
		w.where[k] = w.where[tid]
		w.run(k)
	case 2:
		if !w.mirror {
			break // its event names its process only
		}
		k := f.sim.Thread(tid)
		f.Drain() // so that it lives when the mirror is asked
		w.where[k] = w.where[tid]
		w.run(k)
	case 3, 4, 5:
		path := w.path()
		f.attach(path, tid)
		w.where[tid] = path
	case 6, 7, 8:
		final := f.machine.final(tid)
		delete(w.where, tid)
		if w.rand.IntN(2) == 0 {
			f.machine.ended(final)
		} else {
			w.late = append(w.late, final...)
		}
		f.sim.Exit(tid)
	case 9:
		parent := w.path()
		if strings.Count(parent, "/") > 2 || len(w.paths) > 12 {
			break
		}
		w.names++
		path := strings.TrimPrefix(fmt.Sprintf("%s/c%d", parent, w.names), "/")
		f.mkdir(path)
		w.paths = append(w.paths, path)
	case 10:
		path := w.path()
		if path != "" && f.Rmdir(f.at(path), nil) == nil {
			w.paths = remove(w.paths, path)
			delete(w.used, path)
		}
	case 11:
		path := w.path()
		w.settle()
		if err := f.write(path, "0"); err != nil {
			f.t.Fatal(err)
		}
		w.used[path] = 0
	}
	if w.rand.IntN(4) == 0 {
		w.settle()
		w.compare(w.path())
	}
	if w.rand.IntN(20) == 0 {
		w.settle()
		f.machine.pass(intervalLength)
		f.s.Enforce()
	}
}

func remove(paths []string, path string) []string {
	var rest []string
	for _, p := range paths {
		if p != path {
			rest = append(rest, p)
		}
	}
	return rest
}

// settle lets the late finals come.
func (w *world) settle() {
	if w.rand.IntN(2) == 0 {
		w.f.Drain()
	}
	w.f.machine.ended(w.late)
	w.late = nil
}

func (w *world) compare(path string) {
	w.f.t.Helper()
	if got := w.f.usage(path); got != w.used[path] {
		w.f.t.Fatalf("usage of /%s is %d, want %d", path, got, w.used[path])
	}
}

// TestRandom compares usage with the simple model, whatever happens in whatever
// order.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &world{
				f: newFixture(t, seed%2 == 0), mirror: seed%2 == 0, rand: rand.New(rand.NewPCG(seed, 0)),
				where: map[int32]string{}, used: map[string]uint64{}, paths: []string{""},
			}
			for range 400 {
				w.step()
			}
			w.settle()
			for _, path := range w.paths {
				w.compare(path)
			}
		})
	}
}

// TestConcurrent has everything at once, for the race detector; at the end nothing
// is lost and nothing is counted twice.
func TestConcurrent(t *testing.T) {
	f := newFixture(t, true)
	for _, path := range []string{"a", "b", "b/c"} {
		f.mkdir(path)
	}
	containers := []*tree.Container{f.root, f.at("a"), f.at("b"), f.at("b/c")}
	const forkers, children = 4, 60
	var live, others sync.WaitGroup
	stop := make(chan struct{})
	total := 0
	for i := range forkers {
		parent := f.sim.Fork(hostsim.InitTID)
		total += children * 3
		live.Go(func() {
			for j := range children {
				k := f.sim.Fork(parent)
				f.run(k, 1)
				f.Drain()
				_ = f.Attach(tree.AttachRequest{To: containers[(i+j)%len(containers)], ID: k})
				f.run(k, 2)
				if final := f.machine.final(k); j%2 == 0 {
					f.machine.ended(final)
					f.sim.Exit(k)
				} else {
					f.sim.Exit(k)
					f.Drain()
					f.machine.ended(final)
				}
			}
		})
	}
	again := func(do func()) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do()
				}
			}
		})
	}
	for _, c := range containers {
		again(func() {
			for i := range f.s.files {
				if _, err := f.ReadFile(c, &f.s.files[i], nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	again(func() {
		f.machine.pass(time.Millisecond) // the finals are not that late
		f.s.Enforce()
		time.Sleep(time.Millisecond)
	})
	again(func() {
		if c, err := f.Mkdir(tree.MkdirRequest{Parent: containers[2], Name: "x"}); err != nil {
			t.Error(err)
		} else if err := f.Rmdir(c, nil); err != nil {
			t.Error(err)
		}
	})
	live.Wait()
	close(stop)
	others.Wait()
	f.expect("", total)
	if f.usage("b") < f.usage("b/c") {
		t.Error("a child has used more than its parent")
	}
}
