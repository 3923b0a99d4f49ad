package cpuset

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// simMachine is a Host for the tasks of a hostsim.Host.
type simMachine struct {
	sim *hostsim.Host

	mu         sync.Mutex
	online     [resources]Set
	masks      map[int32]Set
	allowed    map[int32]Set // what the kernel's own cpuset leaves a task
	refused    map[int32]error
	migrations []string
	sets       int

	// migrating, if set, is received from before each migration.
	migrating chan struct{}

	// beforeSet and afterSet happen right before and after a mask is set.
	beforeSet, afterSet func(tid int32)
}

func (m *simMachine) Online() (cpuSet, memSet Set, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.online[cpus], m.online[mems], nil
}

func (m *simMachine) Affinity(tid int32) (Set, error) {
	if _, err := m.sim.Task(tid); err != nil {
		return nil, syscall.ESRCH
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.masks[tid].And(m.online[cpus]), nil
}

func (m *simMachine) SetAffinity(tid int32, set Set) error {
	if m.beforeSet != nil {
		m.beforeSet(tid)
	}
	if _, err := m.sim.Task(tid); err != nil {
		return syscall.ESRCH
	}
	m.mu.Lock()
	err := m.refused[tid]
	if allowed, ok := m.allowed[tid]; ok {
		set = set.And(allowed)
	}
	if err == nil && set.And(m.online[cpus]).Empty() {
		err = syscall.EINVAL
	}
	if err == nil {
		m.masks[tid] = set
	}
	m.sets++
	m.mu.Unlock()
	if m.afterSet != nil && err == nil {
		m.afterSet(tid)
	}
	return err
}

func (m *simMachine) MigratePages(tgid int32, from, to Set) (int, error) {
	if m.migrating != nil {
		<-m.migrating
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.migrations = append(m.migrations, fmt.Sprintf("%d:%v>%v", tgid, from, to))
	return 0, nil
}

func (m *simMachine) Probe() []string { return nil }

// lastSubsystem stands for one whose Attach comes after cpuset's.
type lastSubsystem struct {
	err  error
	only int32 // the task that it refuses, 0 for all
}

func (*lastSubsystem) Name() string                               { return "last" }
func (*lastSubsystem) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (*lastSubsystem) Destroy(*tree.Container, tree.State)        {}
func (*lastSubsystem) Files() []tree.File                         { return nil }

func (l *lastSubsystem) Attach(task *tree.Task, _, _ *tree.Container) (func(), error) {
	if l.only != 0 && task.TID() != l.only {
		return nil, nil
	}
	return nil, l.err
}

// fixture is a Tree with cpuset over a simulated host of four CPUs and two
// nodes. Tree and masks are checked when the test ends.
type fixture struct {
	*tree.Tree
	t       *testing.T
	sim     *hostsim.Host
	machine *simMachine
	cpuset  *Subsystem
	last    *lastSubsystem
	root    *tree.Container
	log     bytes.Buffer
	prompt  bool // events are told at once
}

func newFixture(t *testing.T, mirror bool) *fixture {
	t.Helper()
	f := &fixture{t: t, sim: hostsim.New(), last: new(lastSubsystem)}
	f.machine = &simMachine{
		sim:     f.sim,
		online:  [resources]Set{NewSet(0, 1, 2, 3), NewSet(0, 1)},
		masks:   map[int32]Set{hostsim.InitTID: NewSet(0, 1, 2, 3)},
		allowed: make(map[int32]Set),
		refused: make(map[int32]error),
	}
	f.cpuset = New(f.machine, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.log.Reset()
	cfg := tree.Config{Host: f.sim, Subsystems: []tree.Subsystem{f.cpuset, f.last}, Prompt: func() bool { return f.prompt }}
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
	h, err := f.Mount(tree.Mount{Subsystems: 3, Name: "h"})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	t.Cleanup(f.check)
	return f
}

// check is for the end of a test: the members are confined, and cpuset knows
// exactly them.
func (f *fixture) check() {
	f.t.Helper()
	f.Drain()
	if err := f.Check(); err != nil {
		f.t.Errorf("inconsistent at the end:\n%v", err)
	}
	f.machine.afterSet = nil
	f.cpuset.Enforce()
	f.View(func() {
		for _, tid := range f.sim.TIDs() {
			task := f.Task(tid)
			c := task.Container(f.root.Hierarchy())
			_, isMember := f.cpuset.origins[task]
			if isMember == c.IsRoot() {
				f.t.Errorf("task %d in %s: member %v", tid, c.Path(), isMember)
			}
			mask, _ := f.machine.Affinity(tid)
			if f.machine.refused[tid] == nil && !mask.SubsetOf(f.cpuset.inForce(c, cpus)) {
				f.t.Errorf("task %d in %s has mask %v", tid, c.Path(), mask)
			}
		}
		for task := range f.cpuset.origins {
			if task.Group() == nil {
				f.t.Errorf("task %d has ended and is a member", task.TID())
			}
		}
	})
	_ = f.cpuset.Close()
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

// made is a container with cpus and mems.
func (f *fixture) made(path, cpus, mems string) *tree.Container {
	f.t.Helper()
	c := f.mkdir(path)
	f.set(path, "cpus", cpus)
	f.set(path, "mems", mems)
	return c
}

func (f *fixture) file(name string) *tree.File {
	for i, file := range f.cpuset.files {
		if file.Name == name {
			return &f.cpuset.files[i]
		}
	}
	f.t.Fatalf("no file %s", name)
	return nil
}

func (f *fixture) write(path, file, value string) error {
	return f.WriteFile(&tree.Actor{}, f.at(path), f.file(file), []byte(value))
}

func (f *fixture) set(path, file, value string) {
	f.t.Helper()
	if err := f.write(path, file, value); err != nil {
		f.t.Fatalf("%s/%s: %v", path, file, err)
	}
}

func (f *fixture) read(path, file string) string {
	f.t.Helper()
	b, err := f.ReadFile(f.at(path), f.file(file), nil)
	if err != nil {
		f.t.Fatalf("%s/%s: %v", path, file, err)
	}
	return string(b)
}

// inherit lets a new task have its forker's mask.
func (f *fixture) inherit(forker, tid int32) int32 {
	f.machine.mu.Lock()
	defer f.machine.mu.Unlock()
	f.machine.masks[tid] = f.machine.masks[forker]
	return tid
}

func (f *fixture) fork(parent int32) int32   { return f.inherit(parent, f.sim.Fork(parent)) }
func (f *fixture) thread(forker int32) int32 { return f.inherit(forker, f.sim.Thread(forker)) }

// narrow is a task's own sched_setaffinity.
func (f *fixture) narrow(tid int32, ns ...int) {
	f.machine.mu.Lock()
	defer f.machine.mu.Unlock()
	f.machine.masks[tid] = NewSet(ns...)
}

func (f *fixture) attach(tid int32, path string) error {
	return f.Attach(tree.AttachRequest{Actor: &tree.Actor{}, To: f.at(path), ID: tid})
}

func (f *fixture) attachProcess(tgid int32, path string) error {
	return f.Attach(tree.AttachRequest{Actor: &tree.Actor{}, To: f.at(path), ID: tgid, Process: true})
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) errno(err error, want syscall.Errno) {
	f.t.Helper()
	if !errors.Is(err, want) {
		f.t.Fatalf("%v, want %v", err, want)
	}
}

// mask fails the test when a task has another mask.
func (f *fixture) mask(tid int32, want string) {
	f.t.Helper()
	got, err := f.machine.Affinity(tid)
	if err != nil || got.String() != want {
		f.t.Fatalf("task %d has mask %q, %v, want %q", tid, got, err, want)
	}
}

// in fails the test when a task is elsewhere.
func (f *fixture) in(tid int32, path string) {
	f.t.Helper()
	f.Drain()
	f.View(func() {
		if got := f.Task(tid).Container(f.root.Hierarchy()); got != f.at(path) {
			f.t.Fatalf("task %d is in %s, want /%s", tid, got.Path(), path)
		}
	})
}
