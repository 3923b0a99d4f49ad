package cpuacct

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// keptFixture is a fixture that keeps how far tasks are credited in rows.
func keptFixture(t *testing.T) (*fixture, *hostsim.Rows) {
	f, r := unboundFixture(t, true), hostsim.NewRows()
	f.remember(r)
	f.mount()
	return f, r
}

func (f *fixture) remember(r *hostsim.Rows) {
	f.t.Helper()
	m, err := tree.NewMemory(r, "this boot")
	if err != nil {
		f.t.Fatal(err)
	}
	f.s.Remember(m)
}

// restart has another server go on with what this one has kept, closed or killed, and things
// happen in between.
func (f *fixture) restart(r *hostsim.Rows, killed bool, meanwhile func()) {
	f.t.Helper()
	f.Drain()
	kept, root := subsystest.Keep(f.root), f.SaveRoot(f.s.id)
	if !killed {
		if err := f.s.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	f.machine.ended = nil
	meanwhile()
	f.Drain() // what the next server is not told

	f.s = New(f.machine, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.remember(r)
	var err error
	f.Tree, err = tree.New(tree.Config{Host: f.sim, Mirror: f.sim.Mirror(), Subsystems: []tree.Subsystem{f.s, f.last}})
	if err != nil {
		f.t.Fatal(err)
	}
	if f.root, err = kept.Restore(f.Tree); err != nil {
		f.t.Fatal(err)
	}
	if err := f.RestoreRoot(f.s.id, root); err != nil {
		f.t.Fatal(err)
	}
	f.h = f.root.Hierarchy()
	f.sim.Run(f.Tree)
	if err := f.Resync(); err != nil {
		f.t.Fatal(err)
	}
}

// die ends a task of which nobody is told.
func (f *fixture) die(tid int32) {
	f.machine.final(tid)
	f.sim.Exit(tid)
}

// TestStopped: what tasks run while there is no server is counted by the next one, but
// that of those who end meanwhile; those who are born meanwhile included.
func TestStopped(t *testing.T) {
	f, r := keptFixture(t)
	f.mkdir("a")
	f.mkdir("a/b")
	read, unread, ends := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.runIn(read, 30, 10)
	f.attach("a/b", read) // its 40 are the root's
	f.attach("a", ends)
	never := f.sim.Fork(read)
	f.run(read, 5)
	if got := f.usage("a/b"); got != 5 {
		t.Fatalf("usage %d, want 5", got)
	}
	f.run(unread, 7)
	f.run(never, 1)
	f.run(ends, 2)
	var born int32
	f.restart(r, false, func() {
		f.run(read, 100)
		f.run(never, 200)
		f.run(unread, 300)
		born = f.sim.Fork(read)
		f.run(born, 1000)
		f.run(ends, 1<<20)
		f.die(ends)
	})
	f.s.Enforce()
	f.run(read, 4000)
	for path, want := range map[string]uint64{
		"a/b": 5 + 1 + 100 + 200 + 1000 + 4000,
		"a":   5 + 1 + 100 + 200 + 1000 + 4000,
		"":    40 + 7 + 5 + 1 + 100 + 200 + 300 + 1000 + 4000,
	} {
		if got := f.usage(path); got != want {
			t.Errorf("usage of /%s is %d, want %d", path, got, want)
		}
	}
	// What was run before the server was there is not its interval's.
	if n := f.s.state(f.root).current; n != 4000 {
		t.Errorf("%d in the interval", n)
	}
	if len(r.M) != 0 {
		t.Errorf("%d rows of the stopped server are kept", len(r.M))
	}
}

// TestKilledAfterStopped: a server that is killed has kept totals which those readings are in
// already that it began with.
func TestKilledAfterStopped(t *testing.T) {
	f, r := keptFixture(t)
	f.mkdir("a")
	k := f.sim.Fork(hostsim.InitTID)
	f.attach("a", k)
	f.run(k, 5)
	f.restart(r, false, func() { f.run(k, 10) })
	if got := f.usage("a"); got != 15 {
		t.Fatalf("usage %d after the stop, want 15", got)
	}
	f.run(k, 20)
	f.restart(r, true, func() { f.run(k, 40) })
	f.s.Enforce()
	f.run(k, 80)
	if got := f.usage("a"); got != 15+80 { // the rest is lost
		t.Errorf("usage %d after the kill, want 95", got)
	}

	// What cannot be removed is tried again, until it is.
	f.restart(r, false, func() { f.run(k, 100) })
	r.Fail = syscall.EIO
	f.usage("a")
	r.Fail = nil
	f.usage("a")
	f.restart(r, true, func() { f.run(k, 1000) })
	if got := f.usage("a"); got != 195 {
		t.Errorf("usage %d, want 195", got)
	}
}

// TestStoppedUnbound: where nothing was counted, nothing is known later.
func TestStoppedUnbound(t *testing.T) {
	f, r := keptFixture(t)
	k := f.sim.Fork(hostsim.InitTID)
	f.run(k, 5)
	f.s.Enforce()
	if err := f.Unmount(f.h); err != nil {
		t.Fatal(err)
	}
	f.s.Close()
	if len(r.M) != 0 {
		t.Errorf("%d rows", len(r.M))
	}
	f.mount()
	f.machine.pass(time.Second)
	f.s.Enforce()
}
