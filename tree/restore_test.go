package tree_test

import (
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestAnotherLife: what was kept is there again, tasks are where they were or where what
// forked them is, and what nobody is in any more has become releasable.
func TestAnotherLife(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		host := hostsim.New()
		live := func() *fixture {
			cfg := tree.Config{Host: host, Subsystems: []tree.Subsystem{plain("a"), plain("b")}}
			if mirror {
				cfg.Mirror = host.Mirror()
			}
			tr, err := tree.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			host.Run(tr)
			return &fixture{tr, host, t}
		}
		was := live()
		was.resync()
		root := was.mount(3, "")
		c, d, e, idle := was.mkdir(root, "c"), was.mkdir(root, "d"), was.mkdir(root, "e"), was.mkdir(root, "idle")
		p, ends, used := host.Fork(1), host.Fork(1), host.Fork(1)
		was.attach(c, p)
		was.attach(d, ends)
		was.attach(e, used)
		last := was.mkdir(root, "last") // of a css group and an id that are not kept
		was.attach(last, ends)
		was.attach(d, ends)
		if err := was.Rmdir(last, nil); err != nil {
			t.Fatal(err)
		}
		was.Sweep(0)
		was.Update(func() { c.SetNotifyOnRelease(true) })
		places := make(map[int32]tree.Place)
		was.View(func() { was.Places(func(tid int32, p tree.Place) { places[tid] = p }) })
		if len(places) != 3 {
			t.Errorf("%d tasks are not in the roots, want 3", len(places))
		}

		child := host.Fork(p)
		host.Exit(ends)
		host.Exit(used)
		host.ForkAs(hostsim.InitTID, used)
		host.Lose()

		is := live()
		kept := root.Hierarchy().Kept()
		kept.Explicit = false // by attaches only
		h, err := is.RestoreHierarchy(kept)
		if err != nil {
			t.Fatal(err)
		}
		again := make(map[*tree.Container]*tree.Container)
		for _, k := range []*tree.Container{c, d, e, idle} {
			if again[k], err = is.RestoreContainer(h.Root(), k.Kept()); err != nil {
				t.Fatal(err)
			}
			k.EachCSSGroup(func(g *tree.Group) {
				if err := is.RestoreGroup(g.Num(), []*tree.Container{again[k]}, mirror); err != nil {
					t.Fatal(err)
				}
			})
		}
		is.RestoreNext(was.Next())
		if !mirror {
			is.RestoreTasks(places)
		}
		is.resync()
		is.EndRestore()
		is.wantTasks(h.Root(), hostsim.InitTID, used)
		is.wantTasks(again[c], p, child)
		is.wantTasks(again[d])
		is.wantTasks(again[e])
		for k, now := range again {
			if left := k == d || k == e; now.Releasable() != left || now.NotifyOnRelease() != (k == c) {
				t.Errorf("%s: releasable %v, want %v; notify_on_release %v", now.Path(), now.Releasable(), left, now.NotifyOnRelease())
			}
		}
		if !h.Active() || h.Published() {
			t.Errorf("with children and held by nobody: active %v, mounted %v", h.Active(), h.Published())
		}

		// No number is used again.
		x := is.mkdir(h.Root(), "x")
		is.attach(x, p)
		if x.ID() < was.Next().Container {
			t.Errorf("id %d, where %d is the next", x.ID(), was.Next().Container)
		}
		if n := is.Task(p).Group().Num(); n < was.Next().Group {
			t.Errorf("css group %d, where %d is the next", n, was.Next().Group)
		}
		is.attach(h.Root(), p)
		is.attach(h.Root(), child)
		for _, k := range []*tree.Container{again[c], again[d], again[e], again[idle], x} {
			if err := is.Rmdir(k, nil); err != nil {
				t.Fatal(err)
			}
		}
		if h.Active() {
			t.Error("it is there without containers, and mounted by nobody")
		}
		if err := is.Check(); err != nil {
			t.Error(err)
		}
	})
}

// Who is in the roots, and what forked him is not, was there before: he is not taken for one who
// was forked since.
func TestAnotherLifeOfWhoStayedInTheRoots(t *testing.T) {
	host := hostsim.New()
	was := lifeWithoutMirror(t, host)
	was.resync()
	root := was.mount(1, "")
	c := was.mkdir(root, "c")
	p, q := host.Fork(1), host.Fork(1)
	child, thread := host.Fork(p), host.Thread(q)
	was.attach(c, p)
	was.attach(c, q)
	places := make(map[int32]tree.Place)
	var groups []uint64
	was.View(func() {
		was.Places(func(tid int32, p tree.Place) { places[tid] = p })
		c.EachCSSGroup(func(g *tree.Group) { groups = append(groups, g.Num()) })
	})
	if _, has := places[hostsim.InitTID]; has || len(places) != 4 {
		t.Errorf("the places are %v", places)
	}
	since := host.Fork(p)
	host.Lose()

	is := lifeWithoutMirror(t, host)
	h, err := is.RestoreHierarchy(root.Hierarchy().Kept())
	if err != nil {
		t.Fatal(err)
	}
	again, err := is.RestoreContainer(h.Root(), c.Kept())
	if err != nil {
		t.Fatal(err)
	}
	if err := is.RestoreGroup(groups[0], []*tree.Container{again}, false); err != nil {
		t.Fatal(err)
	}
	is.RestoreTasks(places)
	is.resync()
	is.wantTasks(h.Root(), hostsim.InitTID, child, thread)
	is.wantTasks(again, p, q, since)
}

func lifeWithoutMirror(t *testing.T, host *hostsim.Host) *fixture {
	tr, err := tree.New(tree.Config{Host: host, Subsystems: []tree.Subsystem{plain("a")}})
	if err != nil {
		t.Fatal(err)
	}
	host.Run(tr)
	return &fixture{tr, host, t}
}

// TestHierarchyThatNobodyHeldEnds when all is restored, unless it has containers.
func TestHierarchyThatNobodyHeldEnds(t *testing.T) {
	f := newFixture(t, true, plain("a"), plain("b"))
	h, err := f.RestoreHierarchy(tree.KeptHierarchy{Number: 3, Name: "a", Subsystems: 1, Root: tree.Kept{ID: 7}})
	if err != nil {
		t.Fatal(err)
	}
	mounted, err := f.RestoreHierarchy(tree.KeptHierarchy{Number: 4, Name: "b", Subsystems: 2, Explicit: true, Root: tree.Kept{ID: 8}})
	if err != nil {
		t.Fatal(err)
	}
	f.EndRestore()
	if h.Active() || !mounted.Active() || !mounted.Published() {
		t.Errorf("held by nobody: active %v; mounted: active %v, mounted %v", h.Active(), mounted.Active(), mounted.Published())
	}
	if again := f.mount(1, ""); again.Hierarchy().Number() < 5 || again.ID() < 9 {
		t.Errorf("number %d, and id %d of the root, are used again", again.Hierarchy().Number(), again.ID())
	}
}
