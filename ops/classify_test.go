package ops

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"

	"containerfs/ops/rules"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// ruled is a world with rules and a client that may do anything.
type ruled struct {
	*world
	*client
	c *Classifier

	mu     sync.Mutex
	exe    map[int32]string
	gid    map[int32]uint32
	comm   map[int32]string
	onLook func() // inside of the next look
	blind  error  // what all looks come to, if it is not nil

	unseen bool // the rules look themselves at who executes a program
}

// told is the tree as the host tells it of events, and the classifier after it.
type told struct{ r *ruled }

func (m told) Fork(e tree.ForkEvent) {
	m.r.mu.Lock()
	if _, known := m.r.exe[e.TID]; !known {
		m.r.exe[e.TID] = m.r.exe[e.ParentTGID]
	}
	m.r.mu.Unlock()
	m.r.tree.Fork(e)
	m.r.c.Forked(m.r.tree, e)
}

func (m told) Exec(tgid int32) {
	at := m.r.host.Now()
	var seen *rules.Subject
	if s, err := m.r.see(tgid); err == nil {
		m.r.tree.SetNote(tgid, &Program{UID: s.UID, Exe: s.Exe, At: m.r.host.Now()})
		if !m.r.unseen {
			seen = &s
		}
	}
	m.r.tree.Exec(tgid)
	m.r.c.Executed(m.r.tree, tgid, seen, at)
}

func (m told) Exit(tid int32) { m.r.tree.Exit(tid) }

func (r *ruled) uid(tid int32) uint32 {
	uid, _, _ := r.host.Host.Owner(tid)
	return uid
}

// newRuled makes a world with two hierarchies, m and n, whose Classifier is started
// by the test.
func newRuled(t *testing.T, limit int, text string, with ...configure) *ruled {
	t.Helper()
	r := &ruled{exe: make(map[int32]string), gid: make(map[int32]uint32), comm: make(map[int32]string)}
	r.world = newWorld(t, append(with, func(cfg *Config, _ *tree.Config) {
		r.c = NewClassifier(limit, r.look, cfg.Log)
		cfg.Rules = r.c
	})...)
	r.host.Run(told{r})
	r.mount("mount m alpha")
	r.mount("mount n beta")
	r.client = r.as(root)
	r.force(text)
	return r
}

// look is the Classifier's.
func (r *ruled) look(tid int32) (rules.Subject, error) {
	if _, err := r.host.Host.Task(tid); err != nil {
		return rules.Subject{}, err
	}
	r.mu.Lock()
	f, blind := r.onLook, r.blind
	r.onLook = nil
	r.mu.Unlock()
	if f != nil {
		f()
	}
	if blind != nil {
		return rules.Subject{}, blind
	}
	return r.see(tid)
}

// atLook has f called inside of the Classifier's next look at a task.
func (r *ruled) atLook(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onLook = f
}

func (r *ruled) see(tid int32) (rules.Subject, error) {
	if _, err := r.host.Host.Task(tid); err != nil {
		return rules.Subject{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return rules.Subject{UID: r.uid(tid), GID: r.gid[tid], Exe: r.exe[tid], Comm: r.comm[tid]}, nil
}

func (r *ruled) force(text string) {
	r.t().Helper()
	f, err := rules.Parse("f", []byte(text))
	if err != nil {
		r.t().Fatal(err)
	}
	r.fs.SetRules(f, nil)
}

func (r *ruled) t() testing.TB { return r.world.t }

// exec has a process execute a program.
func (r *ruled) exec(tid int32, exe string) {
	info, _ := r.host.Host.Task(tid)
	r.mu.Lock()
	r.exe[info.TGID] = exe
	r.mu.Unlock()
	r.host.Exec(tid)
}

// settle waits until all is classified of which there was an event.
func (r *ruled) settle() {
	r.t().Helper()
	r.tree.Drain()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		q := &r.c.queue
		q.mu.Lock()
		idle := q.pending.Load() == 0 && q.todo.missed == 0 && !q.todo.compare && !q.busy
		q.mu.Unlock()
		if idle {
			return
		}
		if time.Now().After(deadline) {
			r.t().Fatal("tasks wait to be classified after 10 s")
		}
	}
}

// at checks where a task is in m and n.
func (r *ruled) at(tid int32, m, n string) {
	r.t().Helper()
	r.tree.Drain()
	want := fmt.Sprintf("beta:%s\nalpha:%s\n", n, m)
	if got, err := r.read(fmt.Sprintf("proc/%d/container", tid)); err != nil || got != want {
		r.t().Errorf("%d is in %q, %v; want %q", tid, got, err, want)
	}
}

// counted checks what rules shows of the lines: matches and failures by line.
func (r *ruled) counted(want string) {
	r.t().Helper()
	text, err := r.read("rules")
	r.must(err)
	var got []string
	for line := range strings.Lines(text) {
		var n, m, f int
		if _, c, _ := strings.Cut(line, "\t# "); c != "" {
			fmt.Sscanf(c, "line=%d matches=%d failures=%d", &n, &m, &f)
			got = append(got, fmt.Sprintf("%d:%d/%d", n, m, f))
		}
	}
	if got := strings.Join(got, " "); got != want {
		r.t().Errorf("counts %s, want %s\n%s", got, want, text)
	}
}

func TestClassify(t *testing.T) {
	r := newRuled(t, 100, `
*:browser  m    web   create
1000       n    a
1000       m,n  b     create
*:lost     *    %p/x
2000       *    /     `)
	r.c.Start(false)
	r.must(r.mkdir("n/a"))
	p, q, other := r.fork(1000), r.fork(2000), r.fork(3000)
	for _, tid := range []int32{p, q, other} {
		r.exec(tid, "/bin/browser")
	}
	r.settle()
	r.at(p, "/web", "/a")
	r.at(q, "/web", "/")
	r.at(other, "/web", "/")
	c := r.host.Fork(p)
	r.settle()
	r.at(c, "/web", "/a")
	r.exec(c, "/bin/x")
	r.exec(q, "/bin/x")
	r.exec(other, "/bin/lost")
	r.settle()
	r.at(c, "/b", "/a")
	r.at(q, "/", "/")
	r.at(other, "/web", "/") // it cannot be followed
	r.counted("2:3/0 3:2/0 4:1/0 5:1/1 6:2/0")
	if n := r.c.placed.count.Load(); n != 5 {
		t.Errorf("%d placements", n)
	}
	for _, want := range []string{
		`level=WARN msg="a rule could not be followed" file=f line=5 hierarchy=n`,
		`err="find /lost: its rule has no option create, and it is not there: no such file or directory"`,
	} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no %s in\n%s", want, r.log)
		}
	}
	text, err := r.read("rules")
	r.must(err)
	if _, err := rules.Parse("rules", []byte(text)); err != nil || !strings.HasPrefix(text, "# file=\"f\" rules=5 waiting=0 overflows=0\n") {
		t.Errorf("rules has, %v\n%s", err, text)
	}
	if err := r.write("rules", "* m x"); errno(err) == 0 {
		t.Error("rules can be written")
	}
}

func TestNoRules(t *testing.T) {
	_, k := aWorld(t)
	k.want("rules", "# no rules\n")
	r := newRuled(t, 100, "")
	r.c.Start(true)
	p := r.fork(1000)
	r.exec(p, "/x")
	r.settle()
	r.at(p, "/", "/")
}

// TestRulesNeverMove: the server with its ancestors, and kernel threads.
func TestRulesNeverMove(t *testing.T) {
	r := newRuled(t, 100, "* * x create\n")
	kernel, p := r.fork(0), r.fork(0)
	r.host.kernel[kernel] = true
	r.c.Start(true)
	r.settle()
	r.at(hostsim.InitTID, "/", "/")
	r.at(kernel, "/", "/")
	r.at(p, "/x", "/x")
	r.exec(hostsim.InitTID, "/sbin/init")
	r.exec(kernel, "/x")
	r.settle()
	r.at(hostsim.InitTID, "/", "/")
	r.at(kernel, "/", "/")
	info, err := r.host.Task(p)
	r.must(err)
	r.fs.protected[p] = info.Start
	r.exec(p, "/bin/x")
	r.must(r.write("m/procs", fmt.Sprint(p)))
	r.exec(p, "/bin/x")
	r.settle()
	r.at(p, "/", "/x")
}

// TestHandOfAFailedMove: an attach that fails has put nothing anywhere, not even what was
// there already.
func TestHandOfAFailedMove(t *testing.T) {
	r := newRuled(t, 100, "1000 * x create\n")
	r.must(r.mkdir("m/hand"))
	p := r.fork(1000)
	r.subs[0].canAttach = syscall.ENOSPC
	command := fmt.Sprintf("attach procs %d\n/n\n/m/hand", p)
	r.refused(linux.ENOSPC, "the move", func() error { return r.write("ctl", command) })
	r.subs[0].canAttach = nil
	r.c.Start(false)
	r.c.Changed(r.tree, p, r.host.Now())
	r.settle()
	r.at(p, "/x", "/x")
}

// TestByHand: what a client has moved stays until its next exec, and so does what it
// forks, also when the rules are about to move it.
func TestByHand(t *testing.T) {
	r := newRuled(t, 100, "1000 * x create\n")
	r.must(r.mkdir("m/hand"))
	p := r.fork(1000)
	r.exec(p, "/bin/a")
	// Before the classifier runs: it was moved after the exec.
	r.must(r.write("m/hand/tasks", fmt.Sprint(p)))
	child := r.host.Fork(p)
	r.c.Start(false)
	r.settle()
	r.at(p, "/hand", "/x")
	r.at(child, "/hand", "/x")
	r.c.Changed(r.tree, p, r.host.Now())
	r.c.Changed(r.tree, child, r.host.Now())
	r.settle()
	r.at(p, "/hand", "/x")
	r.at(child, "/hand", "/x")
	r.exec(child, "/bin/b")
	r.settle()
	r.at(p, "/hand", "/x")
	r.at(child, "/x", "/x")

	// To where it is already, by hand: that is where it was wanted.
	r.must(r.write("n/tasks", fmt.Sprint(p)))
	q := r.fork(1000)
	r.unseen = true
	r.atLook(func() { r.must(r.write("n/tasks", fmt.Sprint(q))) })
	r.exec(q, "/bin/q")
	r.settle()
	r.at(q, "/x", "/")
	r.host.Exit(q)

	// Where it is moved while the rules are looking at it.
	r.atLook(func() { r.must(r.write("n/tasks", fmt.Sprint(p))) })
	r.exec(p, "/bin/c")
	r.settle()
	r.at(p, "/x", "/")
	r.host.Exit(p)
	r.host.Exit(child)
	r.tree.Drain()
	r.tree.View(func() {
		if n := len(r.fs.recorder.hands); n > 0 {
			t.Errorf("%d processes are remembered after their end", n)
		}
	})
}

// TestReusedTID: a task with the tid of one that was to be classified is not moved in
// its place.
func TestReusedTID(t *testing.T) {
	r := newRuled(t, 100, "1000 m x create\n")
	r.must(r.mkdir("m/x"))
	r.c.Start(false)
	r.settle() // it looks at who is there
	r.unseen = true
	p := r.fork(1000)
	r.atLook(func() {
		r.host.Exit(p)
		r.host.SetOwner(r.host.ForkAs(hostsim.InitTID, p), 3000)
	})
	r.exec(p, "/bin/a")
	r.settle()
	r.at(p, "/", "/")
	r.counted("1:0/0")

	// The same when it was looked at, and is about to be moved.
	q := r.fork(1000)
	r.atLook(func() {
		looks := 0
		r.host.onTask = func(tid int32) {
			if looks++; tid == q && looks == 2 {
				r.host.onTask = nil
				r.host.Exit(q)
				r.host.SetOwner(r.host.ForkAs(hostsim.InitTID, q), 3000)
			}
		}
	})
	r.exec(q, "/bin/a")
	r.settle()
	if r.host.onTask != nil {
		t.Error("it was not looked at again")
	}
	r.at(q, "/", "/")
	r.counted("1:1/0")

	// The same when what was seen of it with its event is all that is looked at.
	r.unseen = false
	o := r.fork(1000)
	r.host.onTask = func(tid int32) {
		if tid == o {
			r.host.onTask = nil
			r.host.Exit(o)
			r.host.SetOwner(r.host.ForkAs(hostsim.InitTID, o), 3000)
		}
	}
	r.exec(o, "/bin/a")
	r.settle()
	r.at(o, "/", "/")
	r.counted("1:1/0")
}

// TestIgnore: such a line is for what is in its container, or below, and for nothing
// else.
func TestIgnore(t *testing.T) {
	r := newRuled(t, 100, "1000 m a ignore\n1000 m,n b create\n")
	for _, dir := range []string{"m/a", "m/a/in", "m/ab"} {
		r.must(r.mkdir(dir))
	}
	r.c.Start(false)
	for _, tt := range []struct{ from, to string }{{"m", "/b"}, {"m/a", "/a"}, {"m/a/in", "/a/in"}, {"m/ab", "/b"}} {
		p := r.fork(1000)
		r.must(r.write(tt.from+"/tasks", fmt.Sprint(p)))
		r.exec(p, "/x")
		r.settle()
		r.at(p, tt.to, "/b")
	}
	r.counted("1:2/0 2:4/0")
}

// TestRulesRace: the destination goes, and comes, while tasks are put there.
func TestRulesRace(t *testing.T) {
	r := newRuled(t, 1000, "1000 m x/y create\n2000 m z\n")
	r.c.Start(false)
	var ps []int32
	for i := range 200 {
		p := r.fork(1000 + uint32(i%2)*1000)
		ps = append(ps, p)
		r.exec(p, "/a")
		r.tree.Drain()
		switch i % 3 {
		case 0:
			r.mkdir("m/z")
		case 1:
			r.rmdir("m/z")
		default:
			r.rmdir("m/x/y")
			r.rmdir("m/x")
		}
		if i%5 == 0 {
			r.host.Exit(p)
		}
	}
	r.settle()
	for i, p := range ps {
		if i%2 == 0 && i%5 != 0 {
			r.at(p, "/x/y", "/")
		}
	}
}

// TestRuleQueueOverflows: what has no room is counted, published and classified.
func TestRuleQueueOverflows(t *testing.T) {
	r := newRuled(t, 3, "1000 m x create\n")
	old := r.fork(1000)
	r.tree.Drain()
	r.tree.SetNote(old, &Program{UID: 1000})
	var ps []int32
	for range 10 {
		p := r.fork(1000)
		r.exec(p, "/a")
		ps = append(ps, p)
	}
	r.tree.Drain()
	r.c.Start(false)
	r.settle()
	for _, p := range ps {
		r.at(p, "/x", "/")
	}
	r.at(old, "/", "/") // nothing happened to it
	if n := r.c.queue.lost.Load(); n != 7 {
		t.Errorf("%d found no room", n)
	}
	text, err := r.read("events")
	r.must(err)
	if !strings.Contains(text, " lost count=7 queue=rules\n") {
		t.Errorf("not published:\n%s", text)
	}
	if _, err := parseEvents(text); err != nil {
		t.Error(err)
	}
}

// TestRulesOneLook: whatever often a process changes its ids, it waits once to be looked at, and
// takes the room of nobody; what it changes behind that look is looked at again, and its thread's
// behind that.
func TestRulesOneLook(t *testing.T) {
	r := newRuled(t, 5, "@70 m x create\n@71 m y create\n1000 m z create\n")
	restless, thread, other := r.fork(1000), int32(0), r.fork(1000)
	thread = r.host.Thread(restless)
	r.tree.Drain()
	change := func(gid uint32) {
		r.mu.Lock()
		r.gid[restless], r.gid[thread] = gid, gid
		r.mu.Unlock()
		for range 100 {
			r.c.Changed(r.tree, restless, r.host.Now())
			r.c.Changed(r.tree, thread, r.host.Now())
		}
	}
	change(70)
	r.exec(other, "/a")
	r.tree.Drain()
	late := sync.OnceFunc(func() { change(71) })
	r.host.onTask = func(tid int32) { // behind the look
		if tid == restless {
			late()
		}
	}
	r.c.Start(false)
	r.settle()
	r.host.onTask = nil
	r.at(other, "/z", "/")
	r.at(restless, "/y", "/")
	r.at(thread, "/y", "/")
	if n := r.c.queue.lost.Load(); n != 0 {
		t.Errorf("%d found no room", n)
	}
	if n := len(r.c.queue.unlooked); n != 0 {
		t.Errorf("%d seem to wait", n)
	}
}

// TestRulesLookBehindExec: what a process changes after an exec is looked at after what was seen at
// that, though a look from before it still waits.
func TestRulesLookBehindExec(t *testing.T) {
	r := newRuled(t, 100, "@70 m x create\n@71 m y create\n")
	p := r.fork(1000)
	r.tree.Drain()
	change := func(gid uint32) {
		r.mu.Lock()
		r.gid[p] = gid
		r.mu.Unlock()
		r.c.Changed(r.tree, p, r.host.Now())
	}
	change(70)
	r.exec(p, "/a")
	r.tree.Drain()
	change(71)
	r.c.Start(false)
	r.settle()
	r.at(p, "/y", "/")
	if n := len(r.c.queue.unlooked); n != 0 {
		t.Errorf("%d seem to wait", n)
	}
}

// TestRulesLookBehindProcess: what a thread changes after its process is looked at after that,
// which takes it along, though a look at the thread from before it still waits.
func TestRulesLookBehindProcess(t *testing.T) {
	r := newRuled(t, 100, "@70 m x create\n@71 m y create\n")
	p := r.fork(1000)
	thread := r.host.Thread(p)
	r.tree.Drain()
	r.gid[p], r.gid[thread] = 70, 71
	for _, tid := range []int32{thread, p, thread, p, thread} {
		r.c.Changed(r.tree, tid, r.host.Now())
	}
	if n := r.c.queue.pending.Load(); n > 3 {
		t.Errorf("%d wait", n)
	}
	r.c.Start(false)
	r.settle()
	r.at(p, "/x", "/")
	r.at(thread, "/y", "/")
	if n := len(r.c.queue.unlooked); n != 0 {
		t.Errorf("%d seem to wait", n)
	}
}

// TestLooksDoNotAddUp: however the looks at a process and its thread take turns, few of them wait.
func TestLooksDoNotAddUp(t *testing.T) {
	r := newRuled(t, 100, "")
	p := r.fork(1000)
	thread := r.host.Thread(p)
	r.tree.Drain()
	first, other := job{tgid: p, whole: true}, job{tgid: p}
	r.tree.View(func() { first.task, other.task = r.tree.Task(p), r.tree.Task(thread) })
	seen := first
	seen.seen = new(rules.Subject)
	q := &r.c.queue
	add := func() {
		for _, j := range []job{other, first, other} {
			q.add(j, 1)
		}
	}
	add()
	q.add(seen, 1)
	for range 100 {
		todo, _ := q.next()
		for _, j := range todo.jobs {
			q.begun(j)
			add()
			q.done(j.tgid)
		}
		if n := q.pending.Load(); n < 2 || n > 4 {
			t.Fatalf("%d wait", n)
		}
	}
}

// TestRulesAfterLoss: processes whose exec nobody saw are found.
func TestRulesAfterLoss(t *testing.T) {
	r := newRuled(t, 100, "*:a m,n x create\n1000:b m y create\n")
	r.must(r.mkdir("n/hand"))
	old, same := r.fork(1000), r.fork(1000)
	r.exe[old], r.exe[same] = "/bin/z", "/bin/a"
	r.c.Start(false)
	r.settle()
	r.at(same, "/", "/") // it executed before
	r.must(r.write("n/hand/tasks", fmt.Sprint(old)))
	r.exec(old, "/bin/a")
	fresh := r.fork(1000)
	r.exec(fresh, "/bin/b")
	r.host.Lose()
	r.must(r.host.Resync(r.tree.Resync))
	first := time.Now()
	r.c.Lost()
	r.settle()
	r.at(old, "/x", "/x") // an exec ends what a hand did
	r.at(fresh, "/y", "/")
	r.at(same, "/", "/")

	// The next time it is a little later, and once for all that is told meanwhile.
	r.exec(same, "/bin/b")
	r.host.Lose()
	r.c.Lost()
	r.c.Lost()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, _ := r.read(fmt.Sprintf("proc/%d/container", same)); strings.Contains(text, "alpha:/y") {
			break
		}
	}
	r.at(same, "/y", "/")
	if took := time.Since(first); took < compareEvery {
		t.Errorf("looked again after %v", took)
	}
}

// TestRulesWithoutEvents: where there are none, all is found by the next look: new
// processes, programs and ids. What a hand has put where it is stays, and so does what
// it forks there and runs the same program.
func TestRulesWithoutEvents(t *testing.T) {
	r := newRuled(t, 100, "*:b m x create\n*:script n x create\n@70 m y create\n1000:a m z create\n")
	for _, dir := range []string{"m/hand", "n/hand"} {
		r.must(r.mkdir(dir))
	}
	fork := func(parent int32) int32 { // with its parent's program and ids
		tid := r.host.Fork(parent)
		r.host.Lose()
		r.mu.Lock()
		r.exe[tid], r.gid[tid], r.comm[tid] = r.exe[parent], r.gid[parent], r.comm[parent]
		r.mu.Unlock()
		return tid
	}
	runs := func(tid int32, exe, comm string) {
		r.mu.Lock()
		r.exe[tid], r.comm[tid] = exe, comm
		r.mu.Unlock()
	}
	look := func() {
		r.must(r.host.Resync(r.tree.Resync))
		q := &r.c.queue
		q.mu.Lock()
		q.todo.compare = true // Lost waits for a second
		q.wake.Signal()
		q.mu.Unlock()
		r.settle()
	}
	old := r.fork(1000)
	r.host.Lose()
	runs(old, "/bin/z", "z")
	r.must(r.host.Resync(r.tree.Resync))
	r.c.Start(false)
	r.settle()
	r.at(old, "/", "/")

	runs(old, "/bin/a", "a")
	look()
	r.at(old, "/z", "/")
	r.mu.Lock()
	r.gid[old] = 70
	r.mu.Unlock()
	look()
	r.at(old, "/y", "/")
	runs(old, "/bin/b", "b")
	look()
	r.at(old, "/x", "/")

	// A script's interpreter can be the shell that has started it.
	script := fork(old)
	runs(script, "/bin/b", "script")
	look()
	r.at(script, "/x", "/x")

	for _, h := range []string{"m", "n"} {
		r.must(r.write(h+"/hand/tasks", fmt.Sprint(old)))
	}
	forked, executed := fork(old), fork(old)
	runs(executed, "/bin/a", "a")
	look()
	r.at(old, "/hand", "/hand")
	r.at(forked, "/hand", "/hand")
	r.at(executed, "/y", "/hand")
	look()
	r.at(forked, "/hand", "/hand")

	// One that was forked before the hand came is not where its parent is.
	before := fork(executed)
	r.must(r.host.Resync(r.tree.Resync))
	r.must(r.write("m/hand/tasks", fmt.Sprint(executed)))
	look()
	r.at(executed, "/hand", "/hand")
	r.at(before, "/y", "/hand")
}

// TestClassifierCloses: with tasks waiting, and more coming.
func TestClassifierCloses(t *testing.T) {
	r := newRuled(t, 100, "* m x create\n")
	r.c.Start(false)
	for range 50 {
		r.exec(r.fork(1000), "/a")
	}
	r.tree.Drain()
	done := make(chan struct{})
	go func() { r.c.close(); close(done) }()
	within(t, "the end of the classifier", done)
	r.exec(r.fork(1000), "/a")
	r.tree.Drain()
	// fs.Close closes it once more.
}

func TestLatencies(t *testing.T) {
	var l latencies
	if l.quantile(0.99) != 0 {
		t.Error("a quantile of nothing")
	}
	for i := 1; i <= 1000; i++ {
		l.add(time.Duration(i) * time.Microsecond)
	}
	l.add(-1)
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := l.quantile(q); got < want || got > want*9/8 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	for ns := uint64(1); ns < 1<<62; ns += ns/4 + 1 {
		i := bucketOf(ns)
		if end := bucketEnd(i); ns > end || float64(end) > float64(ns)*9/8 || bucketOf(end) != i || bucketOf(end+1) != i+1 {
			t.Fatalf("%d is in bucket %d, which ends at %d", ns, i, end)
		}
	}
	l.add(1<<63 - 1)
}

func TestSetRulesSays(t *testing.T) {
	r := newRuled(t, 1, "nobody-of-that-name m x\n* m,gone x\n")
	for _, want := range []string{"line=1 user=nobody-of-that-name", "line=2 hierarchy=gone"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no %q in\n%s", want, r.log)
		}
	}
	if strings.Contains(r.log.String(), "hierarchy=m") {
		t.Error(r.log)
	}
	r.c.Start(false)
}

// TestRulesAnyErrno: what a subsystem refuses is a failure of the rule, and one of
// the other hierarchy is not.
func TestRulesAnyErrno(t *testing.T) {
	r := newRuled(t, 100, "1000 * x create\n")
	r.subs[0].canAttach = syscall.ENOSPC
	r.c.Start(false)
	p := r.fork(1000)
	r.exec(p, "/a")
	r.settle()
	r.at(p, "/", "/x")
	r.counted("1:1/1")
	if !strings.Contains(r.log.String(), "no space left") {
		t.Error(r.log)
	}
}

// TestRulesThatCannotLook: that a task could not be looked at is said, unless it is gone.
func TestRulesThatCannotLook(t *testing.T) {
	r := newRuled(t, 100, "* m x create\n")
	r.unseen = true
	r.c.Start(false)
	for err, said := range map[error]bool{syscall.EMFILE: true, syscall.ESRCH: false} {
		r.mu.Lock()
		r.blind = err
		r.mu.Unlock()
		p := r.fork(1000)
		r.exec(p, "/a")
		r.settle()
		r.at(p, "/", "/")
		if is := strings.Contains(r.log.String(), fmt.Sprintf("tid=%d err=%q", p, err.Error())); is != said {
			t.Errorf("%v of %d is said: %v\n%s", err, p, is, r.log)
		}
	}
}
