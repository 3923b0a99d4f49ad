package numtasks

import (
	"errors"
	"fmt"
	"maps"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// limiter is a kernel that limits the containers that it knows.
type limiter struct {
	limits  map[string]int64
	refuse  string // the path that fails
	refused uint64
	counter uint64
	unbound bool
}

func (l *limiter) Limit(c *tree.Container, n int64) (bool, error) {
	if l.unbound {
		return false, nil
	}
	if c.Path() == l.refuse {
		return true, fmt.Errorf("asked for: %w", syscall.EDOM)
	}
	l.limits[c.Path()] = n
	return true, nil
}

func (l *limiter) Refused(*tree.Container) (uint64, uint64, bool, error) {
	return l.refused, l.counter, !l.unbound, nil
}

func TestLimiter(t *testing.T) {
	f := newFixture(t)
	l := &limiter{limits: map[string]int64{}}
	f.numtasks.LimitBy(l)
	a := f.mkdir(f.root, "a")
	b := f.mkdir(a, "b")
	f.mkdir(f.root, "z")
	f.set(a, "shares", "max_shares=50,child_shares_divisor=4")
	f.set(b, "shares", "max_shares=1")
	want := map[string]int64{"/a": 64, "/a/b": 16}
	if !maps.Equal(l.limits, want) {
		t.Errorf("limits are %v, want %v", l.limits, want)
	}
	f.set(f.root, "shares", "child_shares_divisor=200")
	want = map[string]int64{"/a": 32, "/a/b": 8, "/z": none}
	if !maps.Equal(l.limits, want) {
		t.Errorf("the root has another divisor, and limits are %v, want %v", l.limits, want)
	}

	// What the kernel refuses is no change.
	l.refuse = "/a/b"
	if err := f.write(a, "shares", "max_shares=100"); !errors.Is(err, syscall.EDOM) {
		t.Errorf("the kernel's errno: %v", err)
	}
	f.want(a, "shares", "res=numtasks,min_shares=-3,max_shares=50,child_shares_divisor=4\n")
	if l.limits["/a"] != 32 {
		t.Errorf("refused, the limit is %d", l.limits["/a"])
	}

	l.refused = 3
	f.want(a, "stats", stats(0, 0, 3))
	l.unbound, l.refuse = true, ""
	f.set(a, "shares", "max_shares=100")
	if l.limits["/a"] != 32 {
		t.Errorf("it is bound elsewhere, and the limit is %d", l.limits["/a"])
	}
}

// TestRefusedBefore: what was refused is a failure for ever, also where the kernel counts anew.
func TestRefusedBefore(t *testing.T) {
	f := newFixture(t)
	l := &limiter{limits: map[string]int64{}, refused: 3, counter: 1}
	f.numtasks.LimitBy(l)
	a := f.mkdir(f.root, "a")
	f.attach(a, f.sim.Fork(hostsim.InitTID))
	f.numtasks.Measure()
	l.unbound = true
	f.want(a, "stats", stats(1, 0, 3))
	l.unbound = false
	save := func() (b []byte) {
		f.View(func() { b = f.numtasks.Save(a, nil) })
		return b
	}
	kept := save()

	next := newFixture(t)
	l = &limiter{limits: map[string]int64{}, refused: 4, counter: 1}
	next.numtasks.LimitBy(l)
	a = next.mkdir(next.root, "a")
	restore := func() {
		t.Helper()
		if err := next.Change(func() error { return next.numtasks.Restore(a, kept) }); err != nil {
			t.Fatal(err)
		}
	}
	restore()
	next.want(a, "stats", stats(0, 0, 4))
	l.refused, l.counter = 2, 2
	next.want(a, "stats", stats(0, 0, 6))
	restore() // as after a change that could not be kept
	next.want(a, "stats", stats(0, 0, 6))
}
