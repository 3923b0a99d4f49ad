package ns

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

// namespaces is a Host of processes with the namespaces that a test gives them.
type namespaces struct {
	sim *hostsim.Host

	mu   sync.Mutex
	sets map[int32]uint64
	fail map[int32]error
}

func (n *namespaces) Namespaces(pid int32) (Set, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.fail[pid]; err != nil {
		return Set{}, err
	}
	if _, err := n.sim.Task(pid); err != nil {
		return Set{}, err
	}
	return Set{1, n.sets[pid]}, nil
}

// fixture is a Tree with ns over a simulated host, checked when the test ends.
type fixture struct {
	*tree.Tree
	t    *testing.T
	sim  *hostsim.Host
	host *namespaces
	ns   *Subsystem
	root *tree.Container
	log  bytes.Buffer
}

func newFixture(t *testing.T, others ...tree.Subsystem) *fixture {
	t.Helper()
	sim := hostsim.New()
	f := &fixture{t: t, sim: sim, host: &namespaces{sim: sim, sets: map[int32]uint64{}, fail: map[int32]error{}}}
	f.ns = New(f.host, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.log.Reset()
	var err error
	f.Tree, err = tree.New(tree.Config{Host: sim, Mirror: sim.Mirror(), Subsystems: append(others, f.ns)})
	if err != nil {
		t.Fatal(err)
	}
	sim.Run(f.Tree)
	if err := f.Resync(); err != nil {
		t.Fatal(err)
	}
	h, err := f.Mount(tree.Mount{Subsystems: 1<<(len(others)+1) - 1})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	t.Cleanup(func() {
		_ = f.ns.Close()
		if err := f.Check(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// settle waits until every process was looked at.
func (f *fixture) settle() {
	f.Drain()
	f.ns.queue.Wait()
}

// unshare gives a process new namespaces, as unshare(2) does: no event tells.
func (f *fixture) unshare(pid int32, set uint64) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	f.host.sets[pid] = set
}

// fork forks a process that has the namespaces of its forker, or new ones, as
// clone(2) gives them.
func (f *fixture) fork(parent int32, set uint64) int32 {
	child := f.sim.Fork(parent)
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	if set == 0 {
		set = f.host.sets[parent]
	}
	f.host.sets[child] = set
	return child
}

// in checks in which container a process is.
func (f *fixture) in(pid int32, want string) {
	f.t.Helper()
	f.settle()
	f.View(func() {
		if got := f.Task(pid).Container(f.root.Hierarchy()).Path(); got != want {
			f.t.Errorf("process %d is in %s, want %s", pid, got, want)
		}
	})
}

func node(pids ...int32) (path string) {
	for _, pid := range pids {
		path += fmt.Sprintf("/node_%d", pid)
	}
	return path
}

func TestCloned(t *testing.T) {
	f := newFixture(t)
	a := f.fork(1, 7)
	f.in(a, node(a))
	b := f.fork(a, 0)
	f.in(b, node(a))
	c := f.fork(b, 8)
	f.in(c, node(a, c))
	// Executing changes nothing for who has a container already.
	f.sim.Exec(a)
	f.sim.Exec(c)
	f.in(a, node(a))
	f.in(c, node(a, c))
	// Back in the host's namespaces a process has no new ones.
	f.unshare(c, 0)
	f.sim.Exec(c)
	f.in(c, node(a, c))
	if n := f.root.Hierarchy().Containers(); n != 3 {
		t.Errorf("%d containers, want 3", n)
	}
}

func TestUnshareIsSeenAtExec(t *testing.T) {
	f := newFixture(t)
	a := f.fork(1, 0)
	th := f.sim.Thread(a)
	f.in(a, "/")
	f.unshare(a, 5)
	f.in(a, "/")
	f.sim.Exec(th)
	f.in(a, node(a))
	// Executed with others once more, it has another.
	f.unshare(a, 6)
	f.sim.Exec(a)
	f.in(a, node(a, a))
}

// A process that unshared is seen when it forks, and its children are with it:
// also those forked by children before anybody looked. One that has others again
// is cloned where it is.
func TestUnshareIsSeenAtFork(t *testing.T) {
	f := newFixture(t)
	a := f.fork(1, 0)
	f.settle()
	f.unshare(a, 5)
	b := f.fork(a, 0)
	c := f.fork(b, 0)
	d := f.fork(c, 9)
	f.in(a, node(a))
	f.in(b, node(a))
	f.in(c, node(a))
	f.in(d, node(d))
}

// Processes that the host has in containers of another kind when the server
// starts are no business of ns until their namespaces differ from their parents'.
func TestNamespacesOfBefore(t *testing.T) {
	f := newFixture(t)
	a := f.fork(1, 0)
	f.settle()
	f.unshare(a, 5) // by itself no event
	b := f.fork(1, 0)
	f.in(b, "/")
	f.in(a, "/")
	// An orphan is compared with whoever is left of its ancestors.
	k := f.fork(b, 0)
	f.settle()
	f.sim.Exit(b)
	f.unshare(k, 3)
	f.sim.Exec(k)
	f.in(k, node(k))
}

func TestWhatIsNotLookedAt(t *testing.T) {
	f := newFixture(t)
	a := f.fork(1, 4)
	f.sim.Exit(a)
	f.settle()
	if n := f.root.NumChildren(); n != 0 {
		t.Errorf("%d containers for a process that is gone", n)
	}
	b := f.fork(1, 0)
	f.settle()
	f.host.fail[b] = syscall.EACCES
	f.sim.Exec(b)
	f.in(b, "/")
	if !strings.Contains(f.log.String(), "permission denied") {
		t.Errorf("logged %q", f.log.String())
	}
	// A limit on containers holds for clones, and complaints are few.
	f.Update(func() { f.root.SetLimits(tree.Limits{Descendants: 0, Depth: tree.NoLimit}) })
	f.log.Reset()
	for range 5 {
		f.fork(1, 4)
	}
	f.settle()
	if n := f.root.NumChildren(); n != 0 {
		t.Errorf("%d containers over the limit", n)
	}
	if n := strings.Count(f.log.String(), "\n"); n > 1 {
		t.Errorf("%d lines for five complaints", n)
	}
	if f.ns.unsaid == 0 {
		t.Error("complaints that were not logged are not counted")
	}
}

func TestNotMounted(t *testing.T) {
	f := newFixture(t)
	if err := f.Unmount(f.root.Hierarchy()); err != nil {
		t.Fatal(err)
	}
	a := f.fork(1, 4)
	f.settle()
	h, err := f.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	f.in(a, "/")
	f.sim.Exec(a)
	f.in(a, node(a))
}

// binder is told before ns is that it is bound, or given back.
type binder struct{ bound func() }

func (*binder) Name() string                               { return "binder" }
func (*binder) Create(*tree.Container) (tree.State, error) { return new(int), nil }
func (*binder) Destroy(*tree.Container, tree.State)        {}
func (*binder) Files() []tree.File                         { return nil }
func (b *binder) Bind(*tree.Container)                     { b.bound() }

// TestLookWhileRebound: a process can be looked at while the hierarchy is mounted or
// unmounted.
func TestLookWhileRebound(t *testing.T) {
	b := &binder{bound: func() {}}
	f := newFixture(t, b)
	var p *tree.Process
	f.View(func() { p = f.Task(1).Process() })
	looks := 0
	b.bound = func() { looks++; f.ns.look(p) }
	if err := f.Unmount(f.root.Hierarchy()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Mount(tree.Mount{Subsystems: 3}); err != nil {
		t.Fatal(err)
	}
	if looks != 2 {
		t.Errorf("looked %d times", looks)
	}
}

func TestRules(t *testing.T) {
	f := newFixture(t)
	mkdir := func(a *tree.Actor, p *tree.Container, name string) *tree.Container {
		c, err := f.Mkdir(tree.MkdirRequest{Actor: a, Parent: p, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	boss, user := &tree.Actor{Privileged: true}, &tree.Actor{UID: 5, Local: true}
	for _, a := range []*tree.Actor{nil, user} {
		if _, err := f.Mkdir(tree.MkdirRequest{Actor: a, Parent: f.root, Name: "x"}); !errors.Is(err, syscall.EPERM) {
			t.Errorf("mkdir by %v: %v", a, err)
		}
	}
	a, b := mkdir(boss, f.root, "a"), mkdir(boss, f.root, "b")
	aa := mkdir(boss, a, "aa")
	p, q := f.fork(1, 0), f.fork(1, 0)
	f.sim.Thread(p)
	for i, test := range []struct {
		by  *tree.Actor
		pid int32
		to  *tree.Container
		err error
	}{
		{user, p, a, syscall.EPERM},
		{nil, p, a, syscall.EPERM},
		{boss, p, aa, syscall.EPERM}, // not a direct child
		{boss, p, a, nil},
		{boss, p, a, nil},           // there already
		{boss, q, a, syscall.EPERM}, // not empty
		{boss, p, b, syscall.EPERM}, // a sibling
		{boss, p, aa, nil},          // further down
		{boss, p, a, syscall.EPERM}, // up
		{boss, q, a, nil},           // empty again
		{boss, p, f.root, syscall.EPERM},
	} {
		err := f.Attach(tree.AttachRequest{Actor: test.by, ID: test.pid, To: test.to, Process: true})
		if !errors.Is(err, test.err) {
			t.Errorf("step %d: %v, want %v", i, err, test.err)
		}
	}
	f.in(p, "/a/aa")
	f.in(q, "/a")
}

func TestParseLink(t *testing.T) {
	for link, want := range map[string]uint64{
		"net:[4026531840]": 4026531840, "net:[0]": 0,
		"net:[]": 0, "mnt:[5]": 0, "net:[5": 0, "net:5]": 0, "": 0, "net:[99999999999999999999]": 0, "net:[-1]": 0,
	} {
		got, err := parseLink(link, "net")
		if bad := want == 0 && link != "net:[0]"; got != want || (err != nil) != bad {
			t.Errorf("%q is %d, %v", link, got, err)
		}
	}
}

// TestPreparedByAnother: what is made for tasks by others than ns stands for no namespaces,
// also not for those of a container that ns made before.
func TestPreparedByAnother(t *testing.T) {
	f := newFixture(t)
	f.in(f.fork(1, 7), node(f.sim.TIDs()[1]))
	b := f.fork(1, 0)
	f.settle()
	host := &tree.Actor{Privileged: true, Local: true}
	x, err := f.Mkdir(tree.MkdirRequest{Actor: host, Parent: f.root, Name: "x", ForTasks: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Attach(tree.AttachRequest{Actor: host, To: x, ID: b}); err != nil {
		t.Fatal(err)
	}
	f.unshare(b, 7)
	f.sim.Exec(b)
	f.in(b, "/x"+node(b))
}
