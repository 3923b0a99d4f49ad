package cpuset

import (
	"log/slog"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// newKept is a fixture that keeps origins in rows.
func newKept(t *testing.T) (*fixture, *hostsim.Rows) {
	f := newFixture(t, true)
	r := hostsim.NewRows()
	f.remember(r)
	return f, r
}

func (f *fixture) remember(r *hostsim.Rows) {
	f.t.Helper()
	m, err := tree.NewMemory(r, "this boot")
	f.ok(err)
	f.cpuset.Remember(m)
}

// restart kills the server, lets things happen of which its tree keeps nothing, and has
// another that knows what was kept.
func (f *fixture) restart(r *hostsim.Rows, meanwhile func()) {
	f.t.Helper()
	kept := subsystest.Keep(f.root)
	meanwhile()
	f.Drain() // what the next server is not told

	f.cpuset = New(f.machine, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.log.Reset()
	f.remember(r)
	var err error
	f.Tree, err = tree.New(tree.Config{Host: f.sim, Mirror: f.sim.Mirror(), Subsystems: []tree.Subsystem{f.cpuset, f.last}})
	f.ok(err)
	f.root, err = kept.Restore(f.Tree)
	f.ok(err)
	f.sim.Run(f.Tree)
	f.ok(f.Resync())
}

// wait lets time pass on the host: more than anything that was noted can be late by.
func (f *fixture) wait() {
	for range 1000 {
		f.sim.Now()
	}
}

// The CPUs that members had outlive the server, as of the last Enforce: those of a child
// that was born since are its forker's, and one that has the number of another has
// nothing of that.
func TestOriginsAreRemembered(t *testing.T) {
	f, r := newKept(t)
	f.made("a", "0", "0")
	member, ended, first, program := f.fork(initTID), f.fork(initTID), f.fork(initTID), f.fork(initTID)
	thread := f.thread(first)
	f.narrow(member, 1)
	f.narrow(thread, 2)
	f.narrow(ended, 3)
	for _, tid := range []int32{member, thread, ended} {
		f.ok(f.attach(tid, "a"))
	}
	// A program that another thread than the first has executed: the kernel shows the
	// first one's start time for it.
	f.wait()
	executes := f.thread(program)
	f.narrow(executes, 1, 2)
	f.ok(f.attachProcess(program, "a"))
	f.sim.Exec(executes)
	f.Drain()
	f.cpuset.Enforce()
	f.wait()

	var born int32
	f.restart(r, func() {
		born = f.fork(member)
		f.sim.Exit(ended)
		if other := f.inherit(member, f.sim.ForkAs(member, ended)); other != ended {
			t.Fatal("another task does not get the number")
		}
	})
	for tid, want := range map[int32]string{member: "1", thread: "2", born: "1", ended: "1", program: "1-2"} {
		f.in(tid, "a")
		f.mask(tid, "0")
		f.ok(f.attach(tid, "/"))
		f.mask(tid, want)
	}
	f.cpuset.Enforce()
	if len(r.M) != 0 {
		t.Errorf("%d rows are kept of nobody", len(r.M))
	}
}

// What is new since the last Enforce is kept when the server ends.
func TestOriginsAreKeptAtTheEnd(t *testing.T) {
	f, r := newKept(t)
	f.made("a", "0", "0")
	member := f.fork(initTID)
	f.narrow(member, 1)
	f.ok(f.attach(member, "a"))
	f.ok(f.cpuset.Close())
	f.wait()
	f.restart(r, func() {})
	f.ok(f.attach(member, "/"))
	f.mask(member, "1")
}

// Only what has changed is written.
func TestOriginsAreWrittenOnce(t *testing.T) {
	f, r := newKept(t)
	f.made("a", "0", "0")
	p := f.fork(initTID)
	f.ok(f.attach(p, "a"))
	for range 3 {
		f.cpuset.Enforce()
	}
	if r.Writes != 1 || len(r.M) != 1 {
		t.Errorf("%d writes of %d rows, want 1 of 1", r.Writes, len(r.M))
	}
}

// A state directory is read by later servers: a row has the words of an origin.
func TestRowOfOrigin(t *testing.T) {
	f, r := newKept(t)
	f.made("a", "0", "0")
	p := f.fork(initTID)
	f.narrow(p, 1, 3)
	f.ok(f.attach(p, "a"))
	f.cpuset.Enforce()
	if got, want := string(r.M["2"]), "this boot\x02\x0a"; len(r.M) != 1 || got != want {
		t.Errorf("kept is %q, want %q", got, want)
	}
}
