package bc

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// usages is a Host of processes that hold what a test says.
type usages struct {
	measures [resources]bool

	mu    sync.Mutex
	used  map[int32]Usage
	fail  map[int32]error
	asked int

	unlimited bool // rlimits cannot be set
	rlimits   map[int32]*[resources]Rlimit
	refuse    map[int32]error // of Rlimit

	// beforeSet and afterSet happen right before and after an rlimit is set.
	beforeSet, afterSet func(tid int32)
}

func (u *usages) Limits() bool { return !u.unlimited }

// Rlimit has processes with rlimits of 1024 and 4096 of everything until they are
// set.
func (u *usages) Rlimit(tid int32, r resource, set *Rlimit) (Rlimit, error) {
	if set != nil && u.beforeSet != nil {
		u.beforeSet(tid)
	}
	was, err := u.rlimit(tid, r, set)
	if set != nil && u.afterSet != nil {
		u.afterSet(tid)
	}
	return was, err
}

func (u *usages) rlimit(tid int32, r resource, set *Rlimit) (Rlimit, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.refuse[tid]; err != nil {
		return Rlimit{}, err
	}
	if u.rlimits == nil {
		u.rlimits = map[int32]*[resources]Rlimit{}
	}
	if u.rlimits[tid] == nil {
		u.rlimits[tid] = &[resources]Rlimit{numfile: {1024, 4096}, lockedpages: {1024, 4096}}
	}
	was := u.rlimits[tid][r]
	if set != nil {
		u.rlimits[tid][r] = *set
	}
	return was, nil
}

func (u *usages) Measures() [resources]bool { return u.measures }

func (u *usages) Usage(tid int32) (Usage, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	return u.used[tid], u.fail[tid]
}

// fixture is a Tree with bc over a simulated host, checked when the test ends.
type fixture struct {
	*tree.Tree
	t    *testing.T
	sim  *hostsim.Host
	host *usages
	bc   *Subsystem
	root *tree.Container
	log  bytes.Buffer

	mu     sync.Mutex
	events []string
}

func (f *fixture) Observe(e tree.Event) {
	if e.Kind == tree.Limited {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = append(f.events, e.Container.Path()+" "+e.Name)
	}
}

var everything = [resources]bool{numfile: true, physpages: true, lockedpages: true}

func newFixture(t *testing.T, measures [resources]bool) *fixture {
	t.Helper()
	f := &fixture{t: t, sim: hostsim.New(), host: &usages{measures: measures, used: map[int32]Usage{}, fail: map[int32]error{}}}
	f.bc = New(f.host, slog.New(slog.NewTextHandler(&f.log, nil)))
	var err error
	f.Tree, err = tree.New(tree.Config{Host: f.sim, Mirror: f.sim.Mirror(), Observer: f, Subsystems: []tree.Subsystem{f.bc}})
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
		f.Drain()
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.View(func() { f.checkNumproc(f.root) })
	})
	return f
}

// checkNumproc compares what is counted with the tasks of a container, and below.
func (f *fixture) checkNumproc(c *tree.Container) int64 {
	n := int64(c.NumTasks())
	c.Children(0, func(k *tree.Container) bool { n += f.checkNumproc(k); return true })
	if got := f.bc.state(c).account(numproc).held; got != n {
		f.t.Errorf("%s holds %d tasks, counted %d", c.Path(), n, got)
	}
	return n
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

func (f *fixture) want(c *tree.Container, name string, want int64) {
	f.t.Helper()
	if b, err := f.ReadFile(c, f.file(name), nil); string(b) != fmt.Sprintln(want) {
		f.t.Errorf("%s of %s is %q, %v, want %d", name, c.Path(), b, err, want)
	}
}

// wantAll checks held, maxheld, minheld and failcnt.
func (f *fixture) wantAll(c *tree.Container, r resource, held, maxheld, minheld, failcnt int64) {
	f.t.Helper()
	for name, want := range map[string]int64{"held": held, "maxheld": maxheld, "minheld": minheld, "failcnt": failcnt} {
		f.want(c, names[r]+"."+name, want)
	}
}

func (f *fixture) write(c *tree.Container, name, text string) error {
	return f.WriteFile(&tree.Actor{}, c, f.file(name), []byte(text))
}

func (f *fixture) set(c *tree.Container, name string, v int64) {
	f.t.Helper()
	if err := f.write(c, name, fmt.Sprint(v)); err != nil {
		f.t.Fatalf("writing %d to %s of %s: %v", v, name, c.Path(), err)
	}
}

// enforce is what happens once a second.
func (f *fixture) enforce() {
	f.Drain()
	f.bc.rest = time.Time{}
	f.bc.Enforce()
}

func (f *fixture) wantEvents(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.events, want) {
		f.t.Errorf("events %q, want %q", f.events, want)
	}
	f.events = nil
}

func TestDefaults(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	for r := range resources {
		f.wantAll(a, r, 0, 0, 0, 0)
		f.want(a, names[r]+".barrier", unlimited)
		f.want(a, names[r]+".limit", unlimited)
	}
	if f.bc.state(a).accounts != nil || unsafe.Sizeof(state{})+16 > 96 {
		t.Error("an empty container has accounts")
	}
	if got := len(f.Files(0)); got != 4*6+1 {
		t.Errorf("%d files", got)
	}
	if !strings.Contains(f.log.String(), "of sums, numproc and physpages it only tells") {
		t.Errorf("what is not enforced is not said: %s", f.log.String())
	}
	for _, file := range f.Files(0) {
		bound := strings.HasSuffix(file.Name, ".barrier") || strings.HasSuffix(file.Name, ".limit")
		if (file.Write != nil) != bound {
			t.Errorf("%s can be written: %v", file.Name, file.Write != nil)
		}
	}
}

// What cannot be measured is absent.
func TestAbsent(t *testing.T) {
	f := newFixture(t, [resources]bool{physpages: true})
	var got []string
	for _, file := range f.Files(0) {
		if r, field, ok := strings.Cut(file.Name, "."); !ok || field == "held" {
			got = append(got, r)
		}
	}
	if want := []string{"numproc", "physpages", "resources"}; !slices.Equal(got, want) {
		t.Errorf("files of %q, want %q", got, want)
	}
	b, err := f.ReadFile(f.root, f.file("resources"), nil)
	if err != nil || strings.Count(string(b), "\n") != 3 {
		t.Errorf("resources:\n%s%v", b, err)
	}
	if !strings.Contains(f.log.String(), "numfile cannot be measured") || strings.Contains(f.log.String(), "physpages cannot be measured") {
		t.Errorf("logged %s", f.log.String())
	}
}

func TestNumproc(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	k := f.mkdir(a, "k")
	f.set(a, "numproc.barrier", 2)
	f.set(a, "numproc.limit", 3)
	p := f.sim.Fork(1)
	f.attach(k, p)
	f.wantAll(a, numproc, 1, 1, 1, 0)
	f.wantAll(k, numproc, 1, 1, 1, 0)
	f.sim.Thread(p)
	f.wantAll(a, numproc, 2, 2, 1, 0)
	f.wantEvents()
	q := f.sim.Fork(p)
	f.wantAll(a, numproc, 3, 3, 1, 1)
	f.wantEvents("/a bc.numproc.barrier")
	r := f.sim.Fork(p)
	f.wantAll(a, numproc, 4, 4, 1, 2)
	f.wantEvents("/a bc.numproc.limit")
	// Only crossings count.
	s := f.sim.Fork(p)
	f.wantAll(a, numproc, 5, 5, 1, 2)
	f.wantEvents()
	f.sim.Exit(s)
	f.sim.Exit(r)
	f.sim.Exit(q)
	f.wantAll(a, numproc, 2, 5, 1, 2)
	// A move within crosses nothing.
	f.attach(a, p)
	f.wantAll(a, numproc, 2, 5, 1, 2)
	f.wantAll(k, numproc, 1, 5, 1, 0)
	f.wantEvents()
	// A move crosses as a fork does.
	f.set(a, "numproc.barrier", 1)
	f.attach(f.root, p)
	f.attach(k, p)
	f.wantAll(a, numproc, 2, 5, 1, 3)
	f.wantEvents("/a bc.numproc.barrier")
	// Both at once are the limit.
	f.attach(f.root, p)
	f.set(a, "numproc.limit", 1)
	f.attach(k, p)
	f.wantEvents("/a bc.numproc.limit")
	f.wantAll(a, numproc, 2, 5, 1, 4)
}

func TestSamples(t *testing.T) {
	f := newFixture(t, everything)
	a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
	k := f.mkdir(a, "k")
	p, q := f.sim.Fork(1), f.sim.Fork(1)
	f.attach(a, p)
	f.attach(k, q)
	th := f.sim.Thread(q)
	f.host.used = map[int32]Usage{
		1: {numfile: 1000, physpages: 1000, lockedpages: 1000},
		p: {numfile: 3, physpages: 50, lockedpages: 1},
		q: {numfile: 4, physpages: 60},
	}
	// Read, they are fresh.
	f.wantAll(a, numfile, 7, 7, 7, 0)
	f.wantAll(k, physpages, 60, 60, 60, 0)
	f.wantAll(b, physpages, 0, 0, 0, 0)
	f.want(f.root, "lockedpages.held", 1001)
	// Crossings are found once a second.
	f.set(a, "physpages.barrier", 110)
	f.set(a, "physpages.limit", 120)
	f.enforce()
	f.wantEvents()
	f.host.used[q] = Usage{numfile: 1, physpages: 70}
	f.enforce()
	f.wantEvents("/a bc.physpages.barrier")
	f.host.used[q] = Usage{numfile: 1, physpages: 71}
	f.enforce()
	f.wantEvents("/a bc.physpages.limit")
	f.wantAll(a, physpages, 121, 121, 110, 2)
	f.wantAll(a, numfile, 4, 7, 4, 0)
	// Who holds nothing any more is found too.
	f.sim.Exit(th)
	f.sim.Exit(q)
	f.attach(f.root, p)
	f.enforce()
	if held := f.bc.state(a).account(physpages).held; held != 0 {
		t.Errorf("nobody holds %d pages", held)
	}
	// An empty container has no least.
	f.wantAll(a, physpages, 0, 121, 110, 2)
	f.wantEvents()
	f.View(func() {
		if _, ok := f.bc.holding[a]; ok {
			t.Error("an empty container is among those that hold something")
		}
	})
}

// The root's processes are the whole host: they are measured when somebody wants
// to know.
func TestRootIsSampledOnDemand(t *testing.T) {
	f := newFixture(t, everything)
	f.host.used[1] = Usage{numfile: 5}
	f.enforce()
	if f.host.asked != 0 {
		t.Errorf("%d processes of the root were measured", f.host.asked)
	}
	f.want(f.root, "numfile.held", 5)
	f.host.used[1] = Usage{numfile: 6}
	f.enforce()
	if held := f.bc.state(f.root).account(numfile).held; held != 5 {
		t.Errorf("the root's sample is %d", held)
	}
	f.set(f.root, "numfile.barrier", 5)
	f.host.used[1] = Usage{numfile: 4}
	f.enforce()
	f.wantEvents()
	f.host.used[1] = Usage{numfile: 6}
	f.enforce()
	f.wantEvents("/ bc.numfile.barrier")
	f.set(f.root, "numfile.barrier", 7)
	// Bound nowhere, there is nothing to tell.
	if err := f.Unmount(f.root.Hierarchy()); err != nil {
		t.Fatal(err)
	}
	f.host.asked = 0
	f.host.used[1] = Usage{numfile: 9}
	f.enforce()
	if f.host.asked != 0 {
		t.Error("processes are measured while the subsystem is bound nowhere")
	}
	h, err := f.Mount(tree.Mount{Subsystems: 1, Name: "again"})
	if err != nil {
		t.Fatal(err)
	}
	f.root = h.Root()
	f.want(f.root, "numfile.barrier", 7)
	f.want(f.root, "numfile.failcnt", 2) // read, it is fresh, and has crossed
}

func TestRefused(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	p, q := f.sim.Fork(1), f.sim.Fork(1)
	f.attach(a, p)
	f.attach(a, q)
	f.host.used[p] = Usage{numfile: 2}
	f.host.fail[q] = syscall.EACCES
	f.log.Reset()
	f.enforce()
	f.enforce()
	if got := f.log.String(); strings.Count(got, "processes=1") != 1 {
		t.Errorf("logged %q", got)
	}
	f.host.fail[q] = syscall.ESRCH
	f.want(a, "numfile.held", 2)
}

// Sampling leaves most of the time to others.
func TestRest(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	f.attach(a, f.sim.Fork(1))
	f.enforce()
	asked := f.host.asked
	f.bc.rest = time.Now().Add(time.Hour)
	f.bc.Enforce()
	if f.host.asked != asked {
		t.Error("measured though it should rest")
	}
	begun := time.Now()
	f.enforce()
	if rest, took := f.bc.rest.Sub(begun), time.Since(begun); rest <= 0 || rest > (share+1)*took {
		t.Errorf("rests for %v after %v", rest, took)
	}

	// What somebody else measures meanwhile, as for a read, is not rested for.
	f.bc.sampling.Lock()
	measured := make(chan struct{})
	go func() { defer close(measured); f.enforce() }()
	time.Sleep(100 * time.Millisecond)
	begun = time.Now()
	f.bc.sampling.Unlock()
	<-measured
	if rest, took := f.bc.rest.Sub(begun), time.Since(begun); rest > (share+1)*took {
		t.Errorf("rests for %v after a wait, and %v", rest, took)
	}
}

func TestWrite(t *testing.T) {
	f := newFixture(t, everything)
	a, b := f.mkdir(f.root, "a"), f.mkdir(f.root, "b")
	f.set(a, "numfile.barrier", 10)
	f.set(a, "numfile.limit", 20)
	for _, test := range []struct {
		name, text string
		err        error
	}{
		{"barrier", "21", syscall.EINVAL},
		{"limit", "9", syscall.EINVAL},
		{"barrier", "", syscall.EINVAL},
		{"barrier", "\n", syscall.EINVAL},
		{"barrier", "-1", syscall.EINVAL},
		{"barrier", "+1", syscall.EINVAL},
		{"limit", "max", syscall.EINVAL},
		{"limit", "0x20", syscall.EINVAL},
		{"limit", " 20", syscall.EINVAL},
		{"limit", "20 ", syscall.EINVAL},
		{"limit", "20\n\n", syscall.EINVAL},
		{"limit", "9223372036854775808", syscall.ERANGE},
		{"limit", "99999999999999999999999", syscall.ERANGE},
		{"held", "1", syscall.EINVAL},
		{"maxheld", "0", syscall.EINVAL},
		{"minheld", "0", syscall.EINVAL},
		{"failcnt", "0", syscall.EINVAL},
	} {
		if err := f.write(a, "numfile."+test.name, test.text); !errors.Is(err, test.err) {
			t.Errorf("%s %q: %v, want %v", test.name, test.text, err, test.err)
		}
		f.want(a, "numfile.barrier", 10)
		f.want(a, "numfile.limit", 20)
	}
	for _, step := range []struct {
		name string
		v    int64
	}{{"barrier", 20}, {"limit", 20}, {"limit", unlimited}, {"barrier", unlimited}, {"barrier", 0}, {"limit", 0}} {
		f.set(a, "numfile."+step.name, step.v)
		f.want(a, "numfile."+step.name, step.v)
	}
	f.want(a, "physpages.limit", unlimited)
	f.want(b, "numfile.limit", unlimited)
	if err := f.write(a, "resources", "1"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("writing resources: %v", err)
	}
}

func TestResources(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	p := f.sim.Fork(1)
	f.attach(a, p)
	f.host.used[p] = Usage{numfile: 3, physpages: 50}
	f.set(a, "numfile.barrier", 90)
	f.set(a, "numfile.limit", 100)
	b, err := f.ReadFile(a, f.file("resources"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(string(b)) {
		got = append(got, strings.Fields(line))
	}
	most := fmt.Sprint(int64(unlimited))
	want := [][]string{
		{"uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"},
		{fmt.Sprint(a.ID(), ":"), "numproc", "1", "1", most, most, "0"},
		{"numfile", "3", "3", "90", "100", "0"},
		{"physpages", "50", "50", most, most, "0"},
		{"lockedpages", "0", "0", most, most, "0"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("resources:\n%swant %q", b, want)
	}
	if err := f.Rmdir(f.mkdir(f.root, "gone"), nil); err != nil {
		t.Fatal(err)
	}
}

// A container can go while its processes are measured.
func TestRemovedWhileMeasured(t *testing.T) {
	f := newFixture(t, everything)
	a := f.mkdir(f.root, "a")
	p := f.sim.Fork(1)
	f.attach(a, p)
	f.host.used[p] = Usage{numfile: 3}
	f.enforce() // so that a holds something
	members := []member{{p, a}}
	used, _ := f.bc.measure(members)
	f.sim.Exit(p)
	if err := f.Rmdir(a, nil); err != nil {
		t.Fatal(err)
	}
	if len(f.bc.holding) != 0 {
		t.Error("a container that was removed holds something")
	}
	f.Update(func() { f.bc.share(members, used, false) })
	if len(f.bc.holding) != 0 {
		t.Error("a container that is gone holds something")
	}
	if _, err := f.ReadFile(a, f.file("numfile.held"), nil); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("reading in a removed container: %v", err)
	}
}
