package cpuacct

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// simMachine is a Host for the tasks of a hostsim.Host.
type simMachine struct {
	sim *hostsim.Host

	mu      sync.Mutex
	times   map[int32]Times
	clock   time.Duration
	refused error // Watch's
	gone    int32 // a task that cannot be read, though its exit is yet to be told
	reads   int
	splits  int

	ended func([]Final) // nil while nobody watches

	// afterRead happens right after a task was read.
	afterRead func(tid int32)
}

func (m *simMachine) Read(_, tid int32, split bool) (Times, error) {
	if _, err := m.sim.Task(tid); err != nil || tid == m.gone {
		return Times{}, syscall.ESRCH
	}
	m.mu.Lock()
	t := m.times[tid]
	m.reads++
	if split {
		m.splits++
	} else {
		t.User, t.System = 0, 0
	}
	m.mu.Unlock()
	if m.afterRead != nil {
		m.afterRead(tid)
	}
	return t, nil
}

func (m *simMachine) Watch(ended func([]Final)) (string, func(), error) {
	if m.refused != nil {
		return "", nil, m.refused
	}
	m.ended = ended
	return "the test", func() { m.ended = nil }, nil
}

func (m *simMachine) Probe() (string, []string) { return "the test", nil }

func (m *simMachine) Now() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock
}

func (m *simMachine) Tick() uint64 { return uint64(m.sim.Now()) / 1000 }

func (m *simMachine) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock += d
}

// final is what the kernel says at the end of a task that lives.
func (m *simMachine) final(tid int32) []Final {
	info, err := m.sim.Task(tid)
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := Final{TID: tid, Start: info.Start, Times: m.times[tid]}
	delete(m.times, tid)
	return []Final{f}
}

// lastSubsystem stands for one whose Attach comes after cpuacct's.
type lastSubsystem struct{ err error }

func (*lastSubsystem) Name() string                               { return "last" }
func (*lastSubsystem) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (*lastSubsystem) Destroy(*tree.Container, tree.State)        {}
func (*lastSubsystem) Files() []tree.File                         { return nil }

func (l *lastSubsystem) Attach(*tree.Task, *tree.Container, *tree.Container) (func(), error) {
	return nil, l.err
}

// fixture is a Tree with cpuacct over a simulated host. The Tree, and that nobody
// is left over in cpuacct's tables, is checked when the test ends.
type fixture struct {
	*tree.Tree
	t       *testing.T
	sim     *hostsim.Host
	machine *simMachine
	s       *Subsystem
	last    *lastSubsystem
	h       *tree.Hierarchy
	root    *tree.Container
	log     bytes.Buffer
}

func newFixture(t *testing.T, mirror bool) *fixture {
	f := unboundFixture(t, mirror)
	f.mount()
	return f
}

func unboundFixture(t *testing.T, mirror bool) *fixture {
	t.Helper()
	f := &fixture{t: t, sim: hostsim.New(), last: new(lastSubsystem)}
	f.machine = &simMachine{sim: f.sim, times: make(map[int32]Times)}
	f.s = New(f.machine, slog.New(slog.NewTextHandler(&f.log, nil)))
	cfg := tree.Config{Host: f.sim, Subsystems: []tree.Subsystem{f.s, f.last}, Log: slog.New(slog.DiscardHandler)}
	if mirror {
		cfg.Mirror = f.sim.Mirror()
	}
	var err error
	if f.Tree, err = tree.New(cfg); err != nil {
		t.Fatal(err)
	}
	f.sim.Run(f.Tree)
	if err := f.Resync(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.check)
	return f
}

func (f *fixture) mount() {
	f.t.Helper()
	h, err := f.Mount(tree.Mount{Subsystems: 3, Name: "h"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.h, f.root = h, h.Root()
}

func (f *fixture) check() {
	f.t.Helper()
	f.Drain()
	if err := f.Check(); err != nil {
		f.t.Errorf("inconsistent at the end:\n%v", err)
	}
	f.s.Enforce()
	f.View(func() {
		for task, track := range f.s.tracks {
			at := f.s.state(task.Container(f.root.Hierarchy()))
			if !task.Live() || track.at != at || track.unread {
				f.t.Errorf("task %d: live %v, credited where it is %v, unread %v", task.TID(), task.Live(), track.at == at, track.unread)
			}
		}
		if len(f.s.dying)+len(f.s.unclaimed)+len(f.s.unread) > 0 {
			f.t.Errorf("left over: dying %v, unclaimed %v, unread %v", f.s.dying, f.s.unclaimed, f.s.unread)
		}
	})
	if err := f.s.Close(); err != nil || f.machine.ended != nil {
		f.t.Errorf("still watching after Close: %v", err)
	}
}

// bothModes runs a test with the mirror and without.
func bothModes(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Run("mirror", func(t *testing.T) { test(t, newFixture(t, true)) })
	t.Run("events", func(t *testing.T) { test(t, newFixture(t, false)) })
}

// at is the container of a path, "" for the root.
func (f *fixture) at(path string) *tree.Container {
	c := f.root
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		if c = c.Child(name); c == nil {
			f.t.Fatalf("no container %s", path)
		}
	}
	return c
}

func (f *fixture) mkdir(path string) *tree.Container {
	f.t.Helper()
	dir, name := "", path
	if i := strings.LastIndex(path, "/"); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	c, err := f.Mkdir(tree.MkdirRequest{Parent: f.at(dir), Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) rmdir(path string) {
	f.t.Helper()
	if err := f.Rmdir(f.at(path), nil); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) attach(path string, tid int32) {
	f.t.Helper()
	if err := f.Attach(tree.AttachRequest{To: f.at(path), ID: tid}); err != nil {
		f.t.Fatal(err)
	}
}

// run lets a task run, in user mode.
func (f *fixture) run(tid int32, ns uint64) { f.runIn(tid, ns, 0) }

func (f *fixture) runIn(tid int32, user, system uint64) {
	f.machine.mu.Lock()
	defer f.machine.mu.Unlock()
	t := f.machine.times[tid]
	t.add(Times{user + system, user, system})
	f.machine.times[tid] = t
}

// exit ends a task: its final comes before the event.
func (f *fixture) exit(tid int32) {
	f.machine.ended(f.machine.final(tid))
	f.sim.Exit(tid)
}

func (f *fixture) file(name string) *tree.File {
	for i, file := range f.s.files {
		if file.Name == name {
			return &f.s.files[i]
		}
	}
	f.t.Fatalf("no file %s", name)
	return nil
}

func (f *fixture) read(path, file string) string {
	f.t.Helper()
	b, err := f.ReadFile(f.at(path), f.file(file), nil)
	if err != nil {
		f.t.Fatalf("%s/%s: %v", path, file, err)
	}
	return string(b)
}

func (f *fixture) usage(path string) uint64 {
	f.t.Helper()
	n, err := strconv.ParseUint(strings.TrimSuffix(f.read(path, "usage"), "\n"), 10, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// expect compares the usage of containers: pairs of path and nanoseconds.
func (f *fixture) expect(pairs ...any) {
	f.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path := pairs[i].(string)
		want, ok := pairs[i+1].(uint64)
		if !ok {
			want = uint64(pairs[i+1].(int))
		}
		if got := f.usage(path); got != want {
			f.t.Errorf("usage of /%s is %d, want %d", path, got, want)
		}
	}
}

func (f *fixture) write(path, value string) error {
	return f.WriteFile(&tree.Actor{}, f.at(path), f.file("usage"), []byte(value))
}

// said fails the test unless the log has each of the words.
func (f *fixture) said(words ...string) {
	f.t.Helper()
	for _, w := range words {
		if !strings.Contains(f.log.String(), w) {
			f.t.Errorf("the log does not say %q:\n%s", w, f.log.String())
		}
	}
}
