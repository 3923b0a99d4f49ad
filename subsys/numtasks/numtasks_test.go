package numtasks

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// machine128 is a Host of a machine that can have 128 tasks, over a simulated one.
type machine128 struct {
	*hostsim.Host
	err error

	mu     sync.Mutex
	killed []int32
}

func (m *machine128) Bound() (int64, error) { return 128, m.err }

func (m *machine128) Signal(task tree.TaskInfo, sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = append(m.killed, task.TID)
	m.Exit(task.TID)
	return nil
}

// fixture is a Tree with numtasks over a simulated host. Tree and counts are
// checked when the test ends.
type fixture struct {
	*tree.Tree
	t        *testing.T
	sim      *machine128
	numtasks *Subsystem
	root     *tree.Container
	log      bytes.Buffer

	mu     sync.Mutex
	events []string
	forks  map[int32]int // by tid
}

func (f *fixture) Observe(e tree.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Kind {
	case tree.Forked:
		if f.forks == nil {
			f.forks = make(map[int32]int)
		}
		f.forks[e.Task.TID()]++
	case tree.Limited:
		f.events = append(f.events, e.Container.Path()+" "+e.Name)
	}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, sim: &machine128{Host: hostsim.New()}}
	f.numtasks = New(f.sim, slog.New(slog.NewTextHandler(&f.log, nil)))
	var err error
	f.Tree, err = tree.New(tree.Config{Host: f.sim, Mirror: f.sim.Mirror(), Observer: f, Subsystems: []tree.Subsystem{f.numtasks}})
	if err != nil {
		t.Fatal(err)
	}
	f.sim.Run(f.Tree)
	if err := f.Resync(); err != nil {
		t.Fatal(err)
	}
	h, err := f.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	t.Cleanup(func() {
		_ = f.numtasks.Close()
		f.settle()
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.View(func() { f.checkUsage(f.root) })
	})
	return f
}

// checkUsage compares the usage of a container with its tasks, and those below.
func (f *fixture) checkUsage(c *tree.Container) int {
	n := c.NumTasks()
	c.Children(0, func(k *tree.Container) bool { n += f.checkUsage(k); return true })
	if got := f.numtasks.state(c).usage; int(got) != n {
		f.t.Errorf("the usage of %s is %d, it has %d", c.Path(), got, n)
	}
	return n
}

// settle waits until all events were delivered and what they killed is dead.
func (f *fixture) settle() {
	f.Drain()
	f.numtasks.victims.Wait()
	f.Drain()
}

func (f *fixture) mkdir(p *tree.Container, name string) *tree.Container {
	f.t.Helper()
	c, err := f.Mkdir(tree.MkdirRequest{Parent: p, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) file(name string) *tree.File {
	files := f.Files(0)
	for i := range files {
		if files[i].Name == name {
			return &files[i]
		}
	}
	f.t.Fatalf("no file %s", name)
	return nil
}

func (f *fixture) want(c *tree.Container, name, want string) {
	f.t.Helper()
	f.settle()
	if b, err := f.ReadFile(c, f.file(name), nil); string(b) != want {
		f.t.Errorf("%s of %s is %q, %v, want %q", name, c.Path(), b, err, want)
	}
}

func (f *fixture) write(c *tree.Container, name, text string) error {
	return f.WriteFile(&tree.Actor{Privileged: true}, c, f.file(name), []byte(text))
}

func (f *fixture) set(c *tree.Container, name, text string) {
	f.t.Helper()
	if err := f.write(c, name, text); err != nil {
		f.t.Fatalf("writing %q to %s of %s: %v", text, name, c.Path(), err)
	}
}

func (f *fixture) attach(c *tree.Container, tid int32) {
	f.t.Helper()
	if err := f.Attach(tree.AttachRequest{To: c, ID: tid}); err != nil {
		f.t.Fatal(err)
	}
}

func stats(usage, successes, failures int) string {
	return fmt.Sprintf("numtasks: Current usage %d\nnumtasks: Number of successes %d\nnumtasks: Number of failures %d\nnumtasks: Number of forkrate failures 0\n", usage, successes, failures)
}

// TestFound: where the host tells of no forks, who is found and has started since is judged, once.
func TestFound(t *testing.T) {
	f := newFixture(t)
	a := f.mkdir(f.root, "a")
	f.set(f.root, "shares", "child_shares_divisor=128")
	f.set(a, "shares", "max_shares=2")
	f.set(a, "policy", "kill")
	p := f.sim.Fork(hostsim.InitTID)
	f.Drain()
	f.attach(a, p)
	look := func() {
		t.Helper()
		f.sim.Lose()
		if err := f.Resync(); err != nil {
			t.Fatal(err)
		}
	}
	f.sim.Fork(p)
	look()
	f.want(a, "stats", stats(2, 0, 0)) // after a loss nobody knows whether there was a fork
	early := f.sim.Fork(p)
	late := f.sim.Fork(p)
	info, err := f.sim.Task(late)
	if err != nil {
		t.Fatal(err)
	}
	f.numtasks.JudgeFound(info.Start)
	look()
	f.want(a, "stats", stats(3, 0, 1))
	f.sim.Exit(early)
	f.Drain()
	f.sim.Fork(p)
	look()
	look()
	f.want(a, "stats", stats(2, 0, 2))
	f.sim.Exit(p)
	f.Drain()
	if !strings.Contains(f.log.String(), "at the next look at all tasks") {
		t.Errorf("the log has\n%s", f.log.String())
	}
}

// TestToldLate: a thread that an attach finds before its fork is told of is judged when it is, and
// one that has ended by then once.
func TestToldLate(t *testing.T) {
	f := newFixture(t)
	a := f.mkdir(f.root, "a")
	f.set(f.root, "shares", "child_shares_divisor=128")
	f.set(a, "shares", "max_shares=2")
	p := f.sim.Fork(hostsim.InitTID)
	f.Drain()
	before := f.numtasks.state(f.root).successes
	var made []int32
	f.sim.Look = func(tid int32) {
		switch {
		case tid == p && made == nil:
			made = []int32{f.sim.Thread(p), f.sim.Thread(p), f.sim.Thread(p)}
		case len(made) == 3 && tid == made[2]: // it was listed
			made = made[:2]
			f.sim.Exit(tid)
		}
	}
	if err := f.Attach(tree.AttachRequest{To: a, ID: p, Process: true}); err != nil {
		t.Fatal(err)
	}
	if len(made) != 2 {
		t.Fatal("the attach has not looked at the threads")
	}
	f.Drain()
	for _, tid := range []int32{p, p + 1, p + 2, p + 3} {
		if f.forks[tid] != 1 {
			t.Errorf("%d forks of %d were told of", f.forks[tid], tid)
		}
	}
	if n := f.numtasks.state(f.root).successes - before; n != 3 {
		t.Errorf("of three threads %d are successes in the root", n)
	}
	f.want(a, "stats", stats(3, 0, 0)) // they were told of before they were in it
}

func TestDefaults(t *testing.T) {
	f := newFixture(t)
	a := f.mkdir(f.root, "a")
	for _, c := range []*tree.Container{f.root, a} {
		f.want(c, "shares", "res=numtasks,min_shares=-3,max_shares=-3,child_shares_divisor=100\n")
		f.want(c, "policy", "count\n")
	}
	f.want(f.root, "limit", "128\n")
	f.want(a, "limit", "max\n")
	f.want(a, "stats", stats(0, 0, 0))
	f.want(f.root, "stats", stats(1, 0, 0)) // what a scan found was not forked
	if n := unsafe.Sizeof(state{}); n+16 > 96 {
		t.Errorf("a state has %d bytes", n)
	}
	if !strings.Contains(f.log.String(), "refuses no fork") {
		t.Errorf("what is not enforced is not said: %s", f.log.String())
	}
}

// TestShares has a table of writes to /a, whose parent has divisor 100 and a
// child b with min 30 and max 60, and which has a child k with min 10 and max 40.
func TestShares(t *testing.T) {
	const before = "res=numtasks,min_shares=5,max_shares=80,child_shares_divisor=50\n"
	for _, test := range []struct {
		text string
		err  error
		want string // "": as before
	}{
		{"min_shares=70", nil, "res=numtasks,min_shares=70,max_shares=80,child_shares_divisor=50\n"},
		{"min_shares=71", syscall.EINVAL, ""}, // over the parent's unused
		{"max_shares=100\n", nil, "res=numtasks,min_shares=5,max_shares=100,child_shares_divisor=50\n"},
		{"max_shares=101", syscall.EINVAL, ""}, // over the parent's divisor
		{"child_shares_divisor=40", nil, "res=numtasks,min_shares=5,max_shares=80,child_shares_divisor=40\n"},
		{"child_shares_divisor=39", syscall.EINVAL, ""}, // under a child's max
		{"child_shares_divisor=0", syscall.EINVAL, ""},
		{"max_shares=4", syscall.EINVAL, ""},  // under min
		{"min_shares=81", syscall.EINVAL, ""}, // over max, and over the unused
		{"min_shares=60,max_shares=59", syscall.EINVAL, ""},
		{"min_shares=-3", nil, "res=numtasks,min_shares=-3,max_shares=80,child_shares_divisor=50\n"},
		{"max_shares=-3,min_shares=70", nil, "res=numtasks,min_shares=70,max_shares=-3,child_shares_divisor=50\n"},
		{"res=numtasks,min_shares=-1,max_shares=-1,child_shares_divisor=-1", nil, ""},
		{"res=numtasks,min_shares=0,max_shares=0,child_shares_divisor=2147483647", nil, "res=numtasks,min_shares=0,max_shares=0,child_shares_divisor=2147483647\n"},
		{before, nil, before},
		{"res=numtasks", nil, ""},
		{"min_shares=-2", syscall.EINVAL, ""},
		{"max_shares=-4", syscall.EINVAL, ""},
		{"child_shares_divisor=-3", syscall.EINVAL, ""},
		{"max_shares=2147483648", syscall.ERANGE, ""},
		{"max_shares=99999999999999999999999", syscall.ERANGE, ""},
		{"", syscall.EINVAL, ""},
		{"\n", syscall.EINVAL, ""},
		{"min_shares", syscall.EINVAL, ""},
		{"min_shares=", syscall.EINVAL, ""},
		{"min_shares=1,", syscall.EINVAL, ""},
		{",min_shares=1", syscall.EINVAL, ""},
		{"min_shares=1\n\n", syscall.EINVAL, ""},
		{"min_shares= 1", syscall.EINVAL, ""},
		{"min_shares=+1", syscall.EINVAL, ""},
		{"min_shares=0x1", syscall.EINVAL, ""},
		{"min_shares=1,min_shares=1", syscall.EINVAL, ""},
		{"res=cpu,min_shares=1", syscall.EINVAL, ""},
		{"shares=1", syscall.EINVAL, ""},
		{"min_shares=1,max_shares=x", syscall.EINVAL, ""}, // and min stays
	} {
		t.Run(test.text, func(t *testing.T) {
			f := newFixture(t)
			a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
			f.set(b, "shares", "min_shares=30,max_shares=60")
			f.set(a, "shares", strings.TrimSpace(before))
			f.set(f.mkdir(a, "k"), "shares", "min_shares=10,max_shares=40")
			want := test.want
			if want == "" {
				want = before
			}
			if err := f.write(a, "shares", test.text); !errors.Is(err, test.err) {
				t.Errorf("got %v, want %v", err, test.err)
			}
			f.want(a, "shares", want)
		})
	}
	t.Run("divisor under what is used", func(t *testing.T) {
		f := newFixture(t)
		a := f.mkdir(f.root, "a")
		for _, name := range []string{"x", "y"} {
			f.set(f.mkdir(a, name), "shares", "min_shares=30")
		}
		if err := f.write(a, "shares", "child_shares_divisor=59"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("got %v", err)
		}
		f.set(a, "shares", "child_shares_divisor=60")
	})
	t.Run("root", func(t *testing.T) {
		f := newFixture(t)
		for _, text := range []string{"min_shares=1", "max_shares=1", "min_shares=0"} {
			if err := f.write(f.root, "shares", text); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s: %v", text, err)
			}
		}
		f.set(f.root, "shares", "min_shares=-3,max_shares=-1,child_shares_divisor=7")
	})
	t.Run("removed", func(t *testing.T) {
		f := newFixture(t)
		a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
		f.set(a, "shares", "min_shares=100")
		if err := f.write(b, "shares", "min_shares=1"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("got %v", err)
		}
		if err := f.Rmdir(a, nil); err != nil {
			t.Fatal(err)
		}
		f.set(b, "shares", "min_shares=1")
	})
}

func TestLimit(t *testing.T) {
	f := newFixture(t)
	a := f.mkdir(f.root, "a")
	k := f.mkdir(a, "k")
	m := f.mkdir(k, "m")
	f.set(a, "shares", "max_shares=50")
	f.set(k, "shares", "max_shares=33")
	f.want(a, "limit", "64\n")
	f.want(k, "limit", "21\n") // 64×33/100
	f.want(m, "limit", "max\n")
	f.set(m, "shares", "max_shares=100")
	f.want(m, "limit", "21\n")
	f.set(a, "shares", "max_shares=-3")
	f.want(m, "limit", "max\n") // don't care propagates
	f.set(a, "shares", "max_shares=0")
	f.want(m, "limit", "0\n")
	// With the divisor 0 there is nothing to have a part of.
	f.set(k, "shares", "max_shares=-3")
	f.set(a, "shares", "max_shares=50,child_shares_divisor=0")
	f.set(k, "shares", "max_shares=0")
	f.want(k, "limit", "0\n")
}

func TestUnknownBound(t *testing.T) {
	var log bytes.Buffer
	s := New(&machine128{Host: hostsim.New(), err: syscall.ENOENT}, slog.New(slog.NewTextHandler(&log, nil)))
	if s.bound != none || !strings.Contains(log.String(), "nothing is limited") {
		t.Errorf("bound %d, logged %q", s.bound, log.String())
	}
}

func TestCount(t *testing.T) {
	f := newFixture(t)
	f.set(f.root, "shares", "child_shares_divisor=128") // shares are numbers of tasks
	a := f.mkdir(f.root, "a")
	k := f.mkdir(a, "k")
	f.set(a, "shares", "max_shares=3")
	p, q := f.sim.Fork(1), f.sim.Fork(1)
	f.attach(k, p)
	f.attach(a, q)
	f.want(a, "stats", stats(2, 0, 0))
	f.want(k, "stats", stats(1, 0, 0))
	f.sim.Thread(p)
	f.want(a, "stats", stats(3, 1, 0))
	f.want(k, "stats", stats(2, 1, 0))
	if len(f.events) != 0 {
		t.Errorf("events %q", f.events)
	}
	// k has no limit of its own, but counts in a.
	c := f.sim.Fork(p)
	f.want(a, "stats", stats(4, 1, 1))
	f.want(k, "stats", stats(3, 2, 0))
	if want := "/a numtasks.limit"; len(f.events) != 1 || f.events[0] != want {
		t.Errorf("events %q, want %q", f.events, want)
	}
	// Attach is never limited.
	r := f.sim.Fork(1)
	f.attach(k, r)
	f.want(a, "stats", stats(5, 1, 1))
	f.sim.Exit(c)
	f.attach(f.root, p)
	f.want(a, "stats", stats(3, 1, 1))
	if len(f.sim.killed) != 0 {
		t.Errorf("killed %v", f.sim.killed)
	}
}

func TestKill(t *testing.T) {
	f := newFixture(t)
	f.set(f.root, "shares", "child_shares_divisor=128")
	a := f.mkdir(f.root, "a")
	k := f.mkdir(a, "k")
	f.set(a, "shares", "max_shares=2")
	f.set(a, "policy", "kill\n")
	f.want(a, "policy", "kill\n")
	p, q, r := f.sim.Fork(1), f.sim.Fork(1), f.sim.Fork(1)
	for _, tid := range []int32{p, q, r} {
		f.attach(k, tid) // over the limit, and nobody dies of it
	}
	f.settle()
	if len(f.sim.killed) != 0 {
		t.Fatalf("killed %v", f.sim.killed)
	}
	c := f.sim.Fork(p)
	f.settle()
	if len(f.sim.killed) != 1 || f.sim.killed[0] != c {
		t.Errorf("killed %v, want %d", f.sim.killed, c)
	}
	f.want(a, "stats", stats(3, 0, 1))
	// Over the limit of k as well, which only counts: a's policy holds.
	f.set(k, "shares", "max_shares=0")
	f.sim.Fork(p)
	f.settle()
	if len(f.sim.killed) != 2 {
		t.Errorf("killed %v, want two", f.sim.killed)
	}
	f.set(a, "policy", "count")
	f.sim.Fork(p)
	f.settle()
	if len(f.sim.killed) != 2 {
		t.Errorf("killed %v with policy count", f.sim.killed)
	}
	// A task that had the number before is not taken for the victim.
	f.sim.killed = nil
	f.set(a, "policy", "kill")
	v := f.sim.Fork(p)
	f.sim.Exit(v)
	f.sim.ForkAs(1, v)
	f.settle()
	if len(f.sim.killed) != 0 {
		t.Errorf("killed %v", f.sim.killed)
	}
}

func TestPolicy(t *testing.T) {
	f := newFixture(t)
	a := f.mkdir(f.root, "a")
	for text, want := range map[string]error{"": syscall.EINVAL, "1": syscall.EINVAL, "Kill": syscall.EINVAL, "kill\n\n": syscall.EINVAL, "none": syscall.EINVAL, "count": nil, "kill": nil} {
		if err := f.write(a, "policy", text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
		f.set(a, "policy", "count")
	}
	for _, actor := range []*tree.Actor{nil, {UID: 5, Local: true}} {
		if err := f.WriteFile(actor, a, f.file("policy"), []byte("kill")); !errors.Is(err, syscall.EPERM) {
			t.Errorf("kill by %v: %v", actor, err)
		}
		if err := f.WriteFile(actor, a, f.file("policy"), []byte("count")); err != nil {
			t.Errorf("count by %v: %v", actor, err)
		}
	}
	for _, name := range []string{"stats", "limit"} {
		if err := f.write(a, name, "1"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("writing %s: %v", name, err)
		}
	}
}

// The server, its ancestors and process 1 are never killed for a new thread.
func TestProtected(t *testing.T) {
	f := newFixture(t)
	f.set(f.root, "shares", "child_shares_divisor=128")
	a := f.mkdir(f.root, "a")
	f.set(a, "shares", "max_shares=0")
	f.set(a, "policy", "kill")
	shell := f.sim.Fork(1)
	server := int32(os.Getpid())
	f.sim.ForkAs(shell, server)
	for _, tid := range []int32{1, shell, server} {
		f.attach(a, tid)
		f.sim.Thread(tid)
	}
	f.settle()
	if len(f.sim.killed) != 0 {
		t.Errorf("killed %v", f.sim.killed)
	}
	c := f.sim.Fork(server)
	f.settle()
	if len(f.sim.killed) != 1 || f.sim.killed[0] != c {
		t.Errorf("killed %v, want the server's child %d", f.sim.killed, c)
	}
}

// The usage is right whatever happens, in whatever order.
func TestRandom(t *testing.T) {
	f := newFixture(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	containers := []*tree.Container{f.root}
	for i := range 12 {
		containers = append(containers, f.mkdir(containers[rnd.IntN(len(containers))], fmt.Sprint("c", i)))
	}
	pick := func() int32 { tids := f.sim.TIDs(); return tids[rnd.IntN(len(tids))] }
	for range 3000 {
		switch rnd.IntN(6) {
		case 0, 1:
			if len(f.sim.TIDs()) < 60 {
				f.sim.Fork(pick())
			}
		case 2:
			f.sim.Thread(pick())
		case 3:
			if tid := pick(); tid != 1 {
				f.sim.Exit(tid)
			}
		case 4:
			f.sim.Exec(pick())
		case 5:
			_ = f.Attach(tree.AttachRequest{To: containers[rnd.IntN(len(containers))], ID: pick(), Process: rnd.IntN(2) == 0})
		}
		if rnd.IntN(50) == 0 {
			f.Drain()
			f.View(func() { f.checkUsage(f.root) })
		}
	}
}

func TestBoundOfThisHost(t *testing.T) {
	n, err := NewHost(nil).Bound()
	if err != nil || n < 100 || n > math.MaxInt32 {
		t.Errorf("%d, %v", n, err)
	}
}

func FuzzShares(f *testing.F) {
	f.Add("res=numtasks,min_shares=1,max_shares=2,child_shares_divisor=3\n")
	f.Add("min_shares=-3,max_shares=-1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseShares(text)
		if err != nil {
			return
		}
		if s.min < dontCare || s.max < dontCare || s.divisor < unchanged || s.min == -2 || s.max == -2 {
			t.Fatalf("%q is %+v", text, s)
		}
		// What is written back is the same.
		n := defaultShares.changed(s)
		again, err := parseShares(string(n.append(nil)))
		if err != nil || again != n {
			t.Fatalf("%+v comes back as %+v, %v", n, again, err)
		}
	})
}
