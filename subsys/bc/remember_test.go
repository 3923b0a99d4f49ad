package bc

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// newKept is a fixture that keeps caps in rows.
func newKept(t *testing.T) (*fixture, *hostsim.Rows) {
	f := newFixture(t, everything)
	r := hostsim.NewRows()
	f.remember(r)
	return f, r
}

const boot = "this boot"

func (f *fixture) remember(r *hostsim.Rows) {
	f.t.Helper()
	m, err := tree.NewMemory(r, boot)
	if err != nil {
		f.t.Fatal(err)
	}
	f.bc.Remember(m)
}

// restart kills the server, lets things happen of which its tree keeps nothing, and has
// another that knows what was kept. It returns its containers by name.
func (f *fixture) restart(r *hostsim.Rows, meanwhile func()) map[string]*tree.Container {
	f.t.Helper()
	must := func(err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
	}
	kept := subsystest.Keep(f.root)
	if meanwhile != nil {
		meanwhile()
	}
	f.Drain() // what the next server is not told

	f.log.Reset()
	f.bc = New(f.host, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.remember(r)
	var err error
	f.Tree, err = tree.New(tree.Config{Host: f.sim, Mirror: f.sim.Mirror(), Observer: f, Subsystems: []tree.Subsystem{f.bc}})
	must(err)
	f.root, err = kept.Restore(f.Tree)
	must(err)
	f.sim.Run(f.Tree)
	must(f.Resync())
	byName := map[string]*tree.Container{}
	f.View(func() {
		f.root.Children(0, func(c *tree.Container) bool {
			byName[c.Name()] = c
			return true
		})
	})
	return byName
}

// limit sets the limit of a container for a resource.
func (f *fixture) limit(c *tree.Container, r resource, n int64) {
	f.t.Helper()
	f.set(c, names[r]+".barrier", min(n, 1))
	f.set(c, names[r]+".limit", n)
}

// setRlimit is what a process, or somebody else, does to its limit.
func (f *fixture) setRlimit(tid int32, r resource, soft, hard uint64) {
	f.t.Helper()
	if _, err := f.host.Rlimit(tid, r, &Rlimit{soft, hard}); err != nil {
		f.t.Fatal(err)
	}
}

// What a process has of its own outlives the server, at any instant.
func TestCapsAreRemembered(t *testing.T) {
	f, r := newKept(t)
	a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
	f.limit(a, numfile, 100)
	f.limit(b, lockedpages, 7)
	member, settled, elsewhere, chosen, left, ended := f.fork(1), f.fork(1), f.fork(1), f.fork(1), f.fork(1), f.fork(1)
	f.setRlimit(member, numfile, 300, 400)
	for _, p := range []int32{settled, elsewhere, chosen, left, ended} {
		f.attach(a, p)
	}
	early := f.fork(settled)
	f.attach(b, elsewhere)
	f.enforce()
	f.attach(f.root, left)
	f.setRlimit(left, numfile, 80, 90)
	f.setRlimit(chosen, numfile, 30, 40)
	gave := f.fork(settled)
	f.attach(f.root, gave)
	f.setRlimit(gave, numfile, 100, 100) // by chance what the container has
	free := f.mkdir(f.root, "free")
	freed := f.fork(settled)
	f.attach(free, freed)
	f.setRlimit(freed, numfile, 100, 100)
	back := f.fork(settled)
	f.enforce()
	// In the last second before it is killed.
	f.attach(f.root, back)
	backs := f.fork(back)
	f.setRlimit(backs, numfile, 100, 100)
	apart := f.fork(elsewhere)
	f.attach(a, elsewhere)
	f.attach(a, member)
	late := f.fork(member)
	var born int32
	c := f.restart(r, func() {
		born = f.fork(late)
		f.sim.Exit(ended)
		if other := f.sim.ForkAs(1, ended); other != ended {
			t.Fatal("another process does not get the number")
		}
		f.setRlimit(ended, numfile, 5, 100)
	})
	f.enforce() // which changes nothing
	f.wantRlimit(member, numfile, 100, 100)
	f.wantRlimit(left, numfile, 80, 90)
	for _, p := range []int32{gave, freed, backs} {
		f.wantRlimit(p, numfile, 100, 100)
	}
	f.wantRlimit(back, numfile, 1024, 4096)
	f.wantRlimit(ended, numfile, 5, 100)
	for _, p := range []int32{member, late, born, settled, early, elsewhere, chosen, apart} {
		f.attach(f.root, p)
	}
	for _, p := range []int32{member, late, born} {
		f.wantRlimit(p, numfile, 300, 400)
	}
	for _, p := range []int32{settled, early, elsewhere, apart} {
		f.wantRlimit(p, numfile, 1024, 4096)
		f.wantRlimit(p, lockedpages, 1024, 4096)
	}
	f.wantRlimit(chosen, numfile, 30, 40)
	// What came to where it is without a row has it as its own.
	f.attach(c["a"], ended)
	f.attach(f.root, ended)
	f.wantRlimit(ended, numfile, 5, 100)
	f.enforce()
	if len(r.M) != 0 {
		t.Errorf("%d rows are kept of nobody", len(r.M))
	}
}

// A server that is killed between what it kept and what it did knows both, and so does
// one that is killed there again.
func TestCapsOfUnfinishedChanges(t *testing.T) {
	f, r := newKept(t)
	c := map[string]*tree.Container{}
	for _, name := range []string{"a", "b", "c", "d"} {
		c[name] = f.mkdir(f.root, name)
	}
	f.limit(c["a"], numfile, 100)
	f.limit(c["b"], numfile, 50)
	f.limit(c["c"], numfile, 30)
	f.limit(c["d"], lockedpages, 7)
	p, q, n, o := f.fork(1), f.fork(1), f.fork(1), f.fork(1)
	for _, tid := range []int32{p, q, o} {
		f.attach(c["a"], tid)
	}
	f.enforce()
	begin := func(tid int32, to *tree.Container) {
		t.Helper()
		if err := f.Change(func() error {
			plan, err := f.bc.plan(f.task(tid), to)
			if err != nil {
				return err
			}
			return f.bc.keepAhead(plan)
		}); err != nil {
			t.Fatal(err)
		}
	}
	begin(p, c["b"])
	begin(q, f.root)
	begin(n, c["a"])
	begin(o, c["d"]) // gives it one back, and takes another
	c = f.restart(r, nil)
	begin(p, c["c"])
	f.restart(r, nil)
	f.enforce()
	f.wantRlimit(n, numfile, 1024, 4096)
	for _, tid := range []int32{p, q, o} {
		f.wantRlimit(tid, numfile, 100, 100)
		f.attach(f.root, tid)
		f.wantRlimit(tid, numfile, 1024, 4096)
	}
	f.wantRlimit(o, lockedpages, 1024, 4096)
}

// A limit that was in force and never kept is taken back.
func TestCapsOfLimitNotKept(t *testing.T) {
	f, r := newKept(t)
	a := f.mkdir(f.root, "a")
	p := f.fork(1)
	f.attach(a, p)
	var born int32
	f.restart(r, func() {
		f.limit(a, numfile, 20)
		f.wantRlimit(p, numfile, 20, 20)
		born = f.fork(p)
	})
	f.enforce()
	f.wantRlimit(p, numfile, 1024, 4096)
	f.wantRlimit(born, numfile, 1024, 4096)
}

// After a restart limits are held as before, and a limit on many is one commit.
func TestLimitsAreHeldAfterRestart(t *testing.T) {
	f, r := newKept(t)
	a := f.mkdir(f.root, "a")
	var ps []int32
	for range 50 {
		p := f.fork(1)
		f.attach(a, p)
		ps = append(ps, p)
	}
	r.Writes = 0
	f.limit(a, numfile, 100)
	if r.Writes != 1 {
		t.Errorf("%d writes, want 1", r.Writes)
	}
	f.restart(r, func() { f.setRlimit(ps[0], numfile, 500, 600) })
	f.enforce()
	f.wantRlimit(ps[0], numfile, 100, 100)
	f.attach(f.root, ps[0])
	f.wantRlimit(ps[0], numfile, 500, 600)
	// The same without anybody that is remembered.
	r.M = map[string][]byte{}
	f.restart(r, func() { f.setRlimit(ps[1], numfile, 500, 600) })
	f.enforce()
	f.wantRlimit(ps[1], numfile, 100, 100)
}

// What cannot be kept is not done.
func TestCapsCannotBeKept(t *testing.T) {
	f, r := newKept(t)
	a := f.mkdir(f.root, "a")
	p, q := f.fork(1), f.fork(1)
	f.attach(a, p)
	r.Fail = syscall.ENOSPC
	f.limit(a, numfile, 100)
	f.wantRlimit(p, numfile, 1024, 4096)
	if !strings.Contains(f.log.String(), "processes=1") {
		t.Errorf("logged %s", f.log.String())
	}
	if err := f.Attach(tree.AttachRequest{To: a, ID: q}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("attach: %v", err)
	}
	r.Fail = nil
	f.enforce()
	f.wantRlimit(p, numfile, 100, 100)
	// Leaving needs no room.
	r.Fail = syscall.ENOSPC
	f.attach(f.root, p)
	f.wantRlimit(p, numfile, 1024, 4096)
	f.log.Reset()
	f.enforce()
	if !strings.Contains(f.log.String(), "could not be kept") || len(r.M) != 1 {
		t.Errorf("%d rows, logged %s", len(r.M), f.log.String())
	}
	r.Fail = nil
	if err := f.bc.Close(); err != nil || len(r.M) != 0 {
		t.Errorf("closed: %v, %d rows are left", err, len(r.M))
	}
}

// Rows that are another boot's, or that nobody wrote, are dropped.
func TestRowsOfAnotherBoot(t *testing.T) {
	f, r := newKept(t)
	a := f.mkdir(f.root, "a")
	f.limit(a, numfile, 100)
	p := f.fork(1)
	f.attach(a, p)
	f.enforce()
	for key, row := range r.M {
		r.M[key] = append([]byte("another"), row...)
	}
	q := f.fork(1)
	r.M["x"], r.M["7"] = nil, []byte(boot+"\x80")
	r.M[fmt.Sprint(q)] = tree.AppendNumbers([]byte(boot), 1<<40, 1, 2, 3)
	f.restart(r, nil)
	f.enforce()
	for _, tid := range []int32{p, q} {
		f.attach(f.root, tid)
	}
	f.wantRlimit(p, numfile, 100, 100)
	f.wantRlimit(q, numfile, 1024, 4096)
	f.enforce()
	if len(r.M) != 0 {
		t.Errorf("rows %q are left", r.M)
	}
}

// A state directory is read by later servers: of each resource that is capped a row
// has own soft, own hard, bound and was.
func TestRowOfCaps(t *testing.T) {
	f, r := newKept(t)
	a := f.mkdir(f.root, "a")
	f.limit(a, numfile, 100)
	p := f.fork(1)
	f.setRlimit(p, numfile, 300, 400)
	f.attach(a, p)
	f.enforce()
	const none = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	want := boot + "\x04" + "\xac\x02\x90\x03dd" + "\x00\x00" + none + none
	if got := string(r.M["2"]); len(r.M) != 1 || got != want {
		t.Errorf("kept is %q, want %q", got, want)
	}
}
