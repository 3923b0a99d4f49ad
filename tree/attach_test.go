package tree_test

import (
	"errors"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// fixture is a Tree over a simulated host, checked when the test ends.
type fixture struct {
	*tree.Tree
	host *hostsim.Host
	t    *testing.T
}

type plain string

func (p plain) Name() string                             { return string(p) }
func (plain) Create(*tree.Container) (tree.State, error) { return new(int), nil }
func (plain) Destroy(*tree.Container, tree.State)        {}
func (plain) Files() []tree.File                         { return nil }

func newFixture(t *testing.T, mirror bool, subsystems ...tree.Subsystem) *fixture {
	t.Helper()
	return newFixtureWith(t, mirror, func(cfg *tree.Config) { cfg.Subsystems = subsystems })
}

func newFixtureWith(t *testing.T, mirror bool, configure func(*tree.Config)) *fixture {
	t.Helper()
	h := hostsim.New()
	cfg := tree.Config{Host: h}
	if mirror {
		cfg.Mirror = h.Mirror()
	}
	configure(&cfg)
	tr, err := tree.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Run(tr)
	if err := tr.Resync(); err != nil {
		t.Fatal(err)
	}
	f := &fixture{tr, h, t}
	t.Cleanup(func() {
		tr.Drain()
		if err := tr.Check(); err != nil {
			t.Errorf("inconsistent at the end:\n%v", err)
		}
		if mirror {
			if err := tr.CheckMirror(h.TIDs()); err != nil {
				t.Errorf("model and mirror differ at the end:\n%v", err)
			}
		}
	})
	return f
}

func (f *fixture) mount(set tree.SubsystemSet, name string) *tree.Container {
	f.t.Helper()
	h, err := f.Mount(tree.Mount{Subsystems: set, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return h.Root()
}

func (f *fixture) mkdir(p *tree.Container, name string) *tree.Container {
	f.t.Helper()
	c, err := f.Mkdir(tree.MkdirRequest{Parent: p, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) attach(c *tree.Container, tid int32) {
	f.t.Helper()
	if err := f.Attach(tree.AttachRequest{To: c, ID: tid}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) wantTasks(c *tree.Container, want ...int32) {
	f.t.Helper()
	f.Drain()
	var got []int32
	f.View(func() { got = c.AppendTasks(nil) })
	if len(got) != len(want) {
		f.t.Fatalf("%s has tasks %v, want %v", c.Path(), got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			f.t.Fatalf("%s has tasks %v, want %v", c.Path(), got, want)
		}
	}
}

func bothWays(t *testing.T, f func(t *testing.T, mirror bool)) {
	t.Run("mirror", func(t *testing.T) { f(t, true) })
	t.Run("events", func(t *testing.T) { f(t, false) })
}

func TestChildrenStartWhereTheirForkerIs(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f := newFixture(t, mirror, plain("a"), plain("b"))
		ra, rb := f.mount(1, ""), f.mount(2, "")
		ca, cb := f.mkdir(ra, "x"), f.mkdir(rb, "y")
		p := f.host.Fork(1)
		f.attach(ca, p)
		k := f.host.Fork(p)
		f.attach(cb, k)
		g := f.host.Fork(k)
		th := f.host.Thread(g)
		f.wantTasks(ca, p, k, g, th)
		f.wantTasks(cb, k, g, th)
		f.wantTasks(ra, 1)
		f.wantTasks(rb, 1, p)
		f.host.Exit(k)
		f.wantTasks(cb, g, th)
	})
}

func TestCloneParentIsPlacedByTheMirror(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	c := f.mkdir(f.mount(1, ""), "x")
	shell := f.host.Fork(1)
	runc := f.host.Fork(shell)
	f.attach(c, runc)
	k := f.host.CloneParent(runc)
	f.wantTasks(c, runc, k)
	// The orphan of a process whose family was of several groups.
	f.host.Exit(shell)
	k2 := f.host.CloneParent(k)
	f.wantTasks(c, runc, k, k2)
}

func TestForksDuringAnAttach(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	c := f.mkdir(f.mount(1, ""), "x")
	p := f.host.Fork(1)
	var kids []int32
	f.host.During = func(int32) {
		if len(kids) < 3 {
			kids = append(kids, f.host.Fork(p))
		}
	}
	f.attach(c, p)
	f.wantTasks(c, append([]int32{p}, kids...)...)
}

func TestFailedMoveChangesNothing(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	p := f.host.Fork(1)
	f.host.Fail = func(op string, tid int32) error {
		if op == "move" {
			return syscall.EINVAL
		}
		return nil
	}
	if err := f.Attach(tree.AttachRequest{To: c, ID: p}); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("got %v, want EINVAL", err)
	}
	f.host.Fail = nil
	f.wantTasks(c)
	f.wantTasks(root, 1, p)
	f.Sweep(0)
	if err := f.Rmdir(c, nil); err != nil {
		t.Fatal(err)
	}
}

func TestProcessMovesWhole(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f := newFixture(t, mirror, plain("a"))
		root := f.mount(1, "")
		c, d := f.mkdir(root, "x"), f.mkdir(root, "y")
		p := f.host.Fork(1)
		t1, t2 := f.host.Thread(p), f.host.Thread(p)
		f.attach(d, t1)
		if err := f.Attach(tree.AttachRequest{To: c, ID: t2, Process: true}); err != nil {
			t.Fatal(err)
		}
		f.wantTasks(c, p, t1, t2)
		f.wantTasks(d)
	})
}
