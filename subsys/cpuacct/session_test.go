package cpuacct

import (
	"testing"
	"time"

	"containerfs/tree/hostsim"
)

func TestLoad(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	f.mkdir("a/b")
	f.mkdir("c")
	k, l := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.attach("a/b", k)
	f.attach("a", l)
	expect := func(path, want string) {
		t.Helper()
		if got := f.read(path, "load"); got != want+"\n" {
			t.Errorf("load of /%s is %q, want %s", path, got, want)
		}
	}
	second := func() {
		f.machine.pass(time.Second)
		f.s.Enforce()
	}
	f.run(k, 2e9)
	for range 9 {
		second()
	}
	f.usage("a")
	expect("a", "0") // there is no full interval yet
	f.run(l, 10e9)
	second()
	expect("a/b", "20")
	expect("a", "120") // two CPUs
	expect("", "120")
	expect("c", "0")
	f.run(k, 5e9)
	f.exit(l)
	expect("a", "120")
	for range 10 {
		second()
	}
	expect("a", "50")
	expect("a/b", "50")
	// An interval that Enforce ends late is that much longer.
	f.run(k, 6e9)
	f.machine.pass(20 * time.Second)
	f.s.Enforce()
	expect("a", "30")
	for range 10 {
		second()
	}
	expect("a", "0")
	f.run(k, 1e9)
	f.attach("c", k)
	f.run(k, 3e9)
	for range 10 {
		second()
	}
	expect("a", "10")
	expect("c", "30")
	expect("", "40")
	for range 20 {
		second()
	}
	expect("", "0")
}

// TestBind: nothing is counted, and nobody is read, while nobody can look.
func TestBind(t *testing.T) {
	f := unboundFixture(t, true)
	k, dead := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.run(k, 1000)
	f.run(dead, 1)
	f.sim.Exit(dead)
	f.s.Enforce()
	if f.machine.reads != 0 || f.machine.ended != nil {
		t.Error("the host is asked while the subsystem is unbound")
	}
	f.mount()
	f.expect("", 0)
	f.run(k, 10)
	f.expect("", 10)
	f.run(k, 5)
	if err := f.Unmount(f.h); err != nil {
		t.Fatal(err)
	}
	if f.machine.ended != nil || f.s.tracks != nil {
		t.Error("something goes on after unmount")
	}
	f.run(k, 100)
	l := f.sim.Fork(k)
	f.run(l, 10000)
	f.sim.Exit(l)
	f.mount()
	f.expect("", 15)
	f.run(k, 1)
	f.exit(k)
	f.expect("", 16)

	// What ran before is in no interval of now.
	k = f.sim.Fork(hostsim.InitTID)
	f.run(k, uint64(intervalLength))
	f.usage("")
	if err := f.Unmount(f.h); err != nil {
		t.Fatal(err)
	}
	f.mount()
	f.machine.pass(intervalLength)
	f.s.Enforce()
	if got := f.read("", "load"); got != "0\n" {
		t.Errorf("load is %q", got)
	}
}

// TestBeforeTheScan is of tasks that the model finds after the subsystem was
// bound: only those that were forked later have their whole life counted.
func TestBeforeTheScan(t *testing.T) {
	f := newFixture(t, true)
	k := f.sim.Fork(hostsim.InitTID)
	f.sim.Lose()
	f.run(k, 10)
	if err := f.Resync(); err != nil {
		t.Fatal(err)
	}
	f.expect("", 10)

	g := unboundFixture(t, true)
	old := g.sim.Fork(hostsim.InitTID)
	brief := g.sim.Fork(hostsim.InitTID)
	g.sim.Lose()
	g.run(old, 10)
	g.run(brief, 1000)
	g.mount()
	if err := g.Resync(); err != nil {
		t.Fatal(err)
	}
	g.exit(brief)
	g.s.Enforce()
	g.expect("", 0)
	g.run(old, 5)
	g.expect("", 5)
}
