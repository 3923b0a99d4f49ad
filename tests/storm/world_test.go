package storm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostproc"
	"containerfs/tree/kernfs"
)

// setup says what a world is like. The zero value has a mirror.
type setup struct {
	noMirror bool
	buffer   int                           // of the connector; 0 is the usual
	wrap     func(tree.Mirror) tree.Mirror // puts something in the mirror's place
	wrapHost func(tree.Host) tree.Host     // and in the host's
}

// A world is a model that follows the host, as the server has it.
type world struct {
	t      testing.TB
	host   *hostproc.Host
	mirror *hostproc.Mirror // nil without
	tree   *tree.Tree
	events *events
	// containers has those of each hierarchy; the first is the root.
	containers [][]*tree.Container
	index      map[*tree.Container]int8
}

// The hierarchies and how many containers each has.
var shape = [3]int{3, 3, 2}

// plain is a subsystem that does nothing.
type plain string

func (p plain) Name() string                             { return string(p) }
func (plain) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (plain) Destroy(*tree.Container, tree.State)        {}
func (plain) Files() []tree.File                         { return nil }

func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := &world{t: t, index: make(map[*tree.Container]int8)}
	var err error
	if w.host, err = hostproc.Open(hostproc.Options{ReceiveBuffer: s.buffer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.host.Close() })
	if !w.host.Source().Connector {
		refused(t, w.host.Source())
	}
	cfg := tree.Config{Host: w.host, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))}
	if s.wrapHost != nil {
		cfg.Host = s.wrapHost(w.host)
	}
	w.events = &events{world: w}
	if !s.noMirror {
		w.mirror, err = hostproc.OpenMirror(fmt.Sprint(prefix, "mirror-", os.Getpid()), "")
		if errors.Is(err, kernfs.ErrRefused) {
			refused(t, err)
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			w.host.Close() // nobody asks for the mirror any more
			if err := w.mirror.Retire(10 * time.Second); err != nil {
				t.Error(err)
			}
		})
		cfg.Mirror = w.mirror
		if s.wrap != nil {
			cfg.Mirror = s.wrap(cfg.Mirror)
		}
		cfg.Mirror = doubted{cfg.Mirror, w.events}
	}
	for i := range shape {
		cfg.Subsystems = append(cfg.Subsystems, plain(rune('a'+i)))
	}
	if w.tree, err = tree.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.events.Tree = w.tree
	for i, n := range shape {
		h, err := w.tree.Mount(tree.Mount{Subsystems: 1 << i})
		if err != nil {
			t.Fatal(err)
		}
		cs := []*tree.Container{h.Root()}
		for k := 1; k < n; k++ {
			c, err := w.tree.Mkdir(tree.MkdirRequest{Parent: h.Root(), Name: fmt.Sprint(k)})
			if err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
		for k, c := range cs {
			w.index[c] = int8(k)
		}
		w.containers = append(w.containers, cs)
	}
	w.host.Start(w.events)
	w.host.Drain()
	return w
}

// A place has the number of the container of each hierarchy.
type place [len(shape)]int8

func (p place) String() string { return fmt.Sprintf("%d-%d-%d", p[0], p[1], p[2]) }

// places are all that there are.
func places() (ps []place) {
	for a := range shape[0] {
		for b := range shape[1] {
			for c := range shape[2] {
				ps = append(ps, place{int8(a), int8(b), int8(c)})
			}
		}
	}
	return ps
}

// placeLocked is where the model has a task, and the start time it has of it;
// ok is false where it does not know it. View.
func (w *world) placeLocked(tid int32) (p place, start uint64, ok bool) {
	task := w.tree.Task(tid)
	if task == nil {
		return p, 0, false
	}
	for i := range p {
		p[i] = w.index[task.Container(w.containers[i][0].Hierarchy())]
	}
	return p, task.Start(), true
}

func (w *world) place(tid int32) (p place, start uint64, ok bool) {
	w.tree.View(func() { p, start, ok = w.placeLocked(tid) })
	return p, start, ok
}

// ended waits until the model has seen all tasks of the storm end.
func (w *world) ended() {
	w.t.Helper()
	n := 0
	for range 5000 {
		w.host.Drain()
		n = 0
		w.tree.View(func() {
			for _, cs := range w.containers {
				for _, c := range cs[1:] {
					n += c.NumTasks()
				}
			}
		})
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n > 0 {
		w.t.Errorf("%d tasks are in containers after the end of the storm", n)
	}
	w.check()
}

// check looks for what must hold at any time.
func (w *world) check() {
	w.t.Helper()
	w.host.Drain()
	if err := w.tree.Check(); err != nil {
		w.t.Error(err)
	}
	if n := w.tree.Audit(); n != 0 {
		w.t.Errorf("Audit put %d tasks right", n)
	}
	if _, err := w.host.Stats(); err != nil {
		w.t.Error(err)
	}
	// Nobody of the host is missing, and the dead are not kept. Who has ended can wait long for a
	// processor before he tells of it.
	var missing, ghosts []int32
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		missing, ghosts = nil, nil
		live := make(map[int32]bool)
		if err := w.host.Tasks(0, func(i tree.TaskInfo) bool { live[i.TID] = true; return true }); err != nil {
			w.t.Fatal(err)
		}
		w.host.Drain()
		for tid := range live {
			if _, _, known := w.place(tid); !known {
				if _, err := w.host.Task(tid); err == nil {
					missing = append(missing, tid)
				}
			}
		}
		var known []int32
		w.tree.View(func() { known = w.tree.AppendPIDs(nil) })
		for _, pid := range known {
			some := false
			w.host.Tasks(pid, func(tree.TaskInfo) bool { some = true; return false })
			if !some {
				ghosts = append(ghosts, pid)
			}
		}
		if len(missing)+len(ghosts) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(missing)+len(ghosts) > 0 {
		w.t.Errorf("the model lacks %v and has %v, which are gone", missing, ghosts)
	}
}
