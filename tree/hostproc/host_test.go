package hostproc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
	"containerfs/tree/kernfs"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "dead-leader" {
		runtime.LockOSThread() // main stays on the first thread
	}
}

// deadLeaderMain ends its first thread and goes on in another.
func deadLeaderMain() {
	go func() {
		runtime.LockOSThread()
		time.Sleep(50 * time.Millisecond)
		fmt.Println(unix.Gettid())
		time.Sleep(time.Minute)
		os.Exit(0)
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

func polling(t testing.TB) *Host {
	t.Helper()
	h, err := Open(Options{Polling: true, Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestTask(t *testing.T) {
	h := polling(t)
	runtime.LockOSThread() // the thread ends with the test, its name with it
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(unsafe.StringData(") R 1 (\n) 1\x00"))), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	tid, pid := int32(unix.Gettid()), int32(os.Getpid())
	now := h.TicksAt(h.Now())
	self, err := h.Task(tid)
	if err != nil || self.TID != tid || self.TGID != pid || self.PPID != int32(os.Getppid()) || self.Kernel || self.Start > now || self.Start+100*600 < now {
		t.Fatalf("%+v %v at %d", self, err, now)
	}
	leader, err := h.Task(pid)
	if err != nil || leader.TID != pid || leader.TGID != pid || leader.Start > self.Start {
		t.Fatalf("%+v %v", leader, err)
	}
	for _, none := range []int32{0, -1, 1<<31 - 1, 1<<22 + 1} {
		if ti, err := h.Task(none); !errors.Is(err, unix.ESRCH) {
			t.Errorf("%d: %+v %v", none, ti, err)
		}
		if _, _, err := h.Owner(none); !errors.Is(err, unix.ESRCH) {
			t.Errorf("owner of %d: %v", none, err)
		}
	}
	r, s, err := h.Owner(tid)
	if err != nil || r != uint32(os.Getuid()) || s != uint32(os.Geteuid()) {
		t.Fatal(r, s, err)
	}
}

// A zombie is nobody; a dead leader is nobody, but its other threads live.
func TestTaskDead(t *testing.T) {
	h := polling(t)
	pid, err := storm.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	var si unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &si, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if ti, err := h.Task(int32(pid)); !errors.Is(err, unix.ESRCH) {
		t.Errorf("zombie: %+v %v", ti, err)
	}
	if _, _, err := h.Owner(int32(pid)); !errors.Is(err, unix.ESRCH) {
		t.Errorf("owner of a zombie: %v", err)
	}
	h.Tasks(int32(pid), func(ti tree.TaskInfo) bool { t.Errorf("zombie is listed: %+v", ti); return true })
	unix.Wait4(pid, nil, 0, nil)
	if err := h.Tasks(int32(pid), func(ti tree.TaskInfo) bool { t.Errorf("%+v", ti); return true }); err != nil {
		t.Error(err)
	}

	cmd, line := start(t, "dead-leader")
	var tid int32
	if _, err := fmt.Sscan(line, &tid); err != nil {
		t.Fatal(err)
	}
	leader := int32(cmd.Process.Pid)
	if ti, err := h.Task(leader); !errors.Is(err, unix.ESRCH) {
		t.Errorf("dead leader: %+v %v", ti, err)
	}
	if ti, err := h.Task(tid); err != nil || ti.TGID != leader {
		t.Errorf("its thread: %+v %v", ti, err)
	}
	for _, tgid := range []int32{leader, 0} {
		seen := map[int32]bool{}
		if err := h.Tasks(tgid, func(ti tree.TaskInfo) bool {
			if ti.TGID == leader {
				seen[ti.TID] = true
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if !seen[tid] || seen[leader] {
			t.Errorf("threads of the dead leader %d, one is %d: %v", leader, tid, seen)
		}
	}
}

func TestTasks(t *testing.T) {
	h := polling(t)
	pid := int32(sleeper(t).Process.Pid)
	all := map[int32]tree.TaskInfo{}
	if err := h.Tasks(0, func(ti tree.TaskInfo) bool {
		if _, twice := all[ti.TID]; twice {
			t.Errorf("twice: %+v", ti)
		}
		all[ti.TID] = ti
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if all[pid].TGID != pid || all[pid].PPID != int32(os.Getpid()) {
		t.Errorf("%+v", all[pid])
	}
	mine := 0
	if err := h.Tasks(int32(os.Getpid()), func(ti tree.TaskInfo) bool {
		mine++
		if one, err := h.Task(ti.TID); err != nil || one != ti {
			t.Errorf("%+v, alone %+v %v", ti, one, err)
		}
		return true
	}); err != nil || mine < 2 {
		t.Fatal(mine, err)
	}
	n := 0
	h.Tasks(0, func(tree.TaskInfo) bool { n++; return n < 3 })
	if n != 3 {
		t.Errorf("went on to %d", n)
	}
}

// A recorder is a Model that keeps the set of threads by events alone.
type recorder struct {
	mu      sync.Mutex
	born    map[int32][4]int32 // tid: its FORK
	ts      map[int32]int64
	dead    map[int32]int
	execs   map[int32]int
	ids     [][5]int64
	calls   int
	first   string
	lost    uint64
	resyncs int
	inside  atomic.Int32

	block chan struct{} // Fork waits for it if set
}

func newRecorder() *recorder {
	return &recorder{born: map[int32][4]int32{}, ts: map[int32]int64{}, dead: map[int32]int{}, execs: map[int32]int{}}
}

func (r *recorder) enter(what string) func() {
	if r.inside.Add(1) != 1 {
		panic("the model is called by two")
	}
	r.mu.Lock()
	if r.calls++; r.calls == 1 {
		r.first = what
	}
	return func() { r.mu.Unlock(); r.inside.Add(-1) }
}

func (r *recorder) Fork(ptid, ptgid, tid, tgid int32, ts int64) {
	if r.block != nil {
		<-r.block
	}
	defer r.enter("fork")()
	r.born[tid] = [4]int32{ptid, ptgid, tid, tgid}
	r.ts[tid] = ts
	delete(r.dead, tid)
}

func (r *recorder) Exec(tgid int32, ts int64) { defer r.enter("exec")(); r.execs[tgid]++ }

func (r *recorder) Exit(tid, tgid int32, ts int64) { defer r.enter("exit")(); r.dead[tid]++ }

func (r *recorder) Resync(lost uint64) {
	defer r.enter("resync")()
	r.lost += lost
	r.resyncs++
}

func (r *recorder) SetID(tid, tgid int32, group bool, real, effective uint32, ts int64) {
	defer r.enter("id")()
	g := int64(0)
	if group {
		g = 1
	}
	r.ids = append(r.ids, [5]int64{int64(tid), int64(tgid), g, int64(real), int64(effective)})
}

// Whoever has learned a pid finds the fork delivered after Drain. The exit can
// be a little late.
func TestDrain(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	runtime.LockOSThread()
	rounds := 10000
	if testing.Short() {
		rounds = 500
	}
	late := 0
	for i := range rounds {
		before := h.Now()
		pid, err := storm.Fork(0)
		if err != nil {
			t.Fatal(err)
		}
		after := h.Now()
		h.Drain()
		tid := int32(pid)
		r.mu.Lock()
		fork, ok := r.born[tid]
		ts := r.ts[tid]
		r.mu.Unlock()
		if want := [4]int32{int32(unix.Gettid()), int32(os.Getpid()), tid, tid}; !ok || fork != want {
			t.Fatalf("round %d: fork of %d: %v %v, want %v", i, tid, ok, fork, want)
		}
		if ts < before || ts > after {
			t.Fatalf("stamp %d is not in %d..%d", ts, before, after)
		}
		if ti, err := h.Task(tid); err == nil && (ti.Start > h.TicksAt(ts) || ti.Start+1 < h.TicksAt(before)) {
			t.Fatalf("started in tick %d, bounds %d %d", ti.Start, h.TicksAt(before), h.TicksAt(ts))
		}
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		for try := 0; ; try++ {
			h.Drain()
			r.mu.Lock()
			dead := r.dead[tid]
			r.mu.Unlock()
			if dead == 1 {
				break
			} else if dead > 1 || try == 1000 {
				t.Fatalf("round %d: %d exits of %d", i, dead, tid)
			}
			if try == 0 {
				late++
			}
			time.Sleep(time.Millisecond)
		}
		r.mu.Lock()
		delete(r.born, tid)
		r.mu.Unlock()
	}
	t.Logf("%d of %d exits were late", late, rounds)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first != "resync" || r.resyncs != 1 || r.lost != 0 {
		t.Errorf("first %s, %d resyncs, %d lost", r.first, r.resyncs, r.lost)
	}
}

func TestEvents(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	// exec, then a change of user
	cmd := exec.Command("sleep", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65533, NoSetGroups: true}
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	// a thread of ours
	tids, quit := make(chan int32), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		<-quit
	}()
	for range 50 { // until the runtime needs a new thread
		go func() { runtime.LockOSThread(); tids <- int32(unix.Gettid()) }()
	}
	var threads []int32
	for range 50 {
		threads = append(threads, <-tids)
	}
	close(quit)
	h.Drain()
	r.mu.Lock()
	defer r.mu.Unlock()
	pid := int32(cmd.Process.Pid)
	if r.execs[pid] != 1 || r.dead[pid] != 1 {
		t.Errorf("%d execs, %d exits", r.execs[pid], r.dead[pid])
	}
	if os.Geteuid() == 0 {
		p := int64(pid)
		for _, want := range [][5]int64{{p, p, 1, 65533, 65533}, {p, p, 0, 65534, 65534}} {
			found := false
			for _, id := range r.ids {
				found = found || id == want
			}
			if !found {
				t.Errorf("no %v in %v", want, r.ids)
			}
		}
	}
	found := false
	for _, tid := range threads {
		// The event names the parent of the process for a thread.
		if f, ok := r.born[tid]; ok {
			found = true
			if want := int32(os.Getppid()); f[3] != int32(os.Getpid()) || f[1] != want {
				t.Errorf("thread %v, parent's parent is %d", f, want)
			}
		}
	}
	if !found {
		t.Error("no thread was made")
	}
}

func stormCommand(t testing.TB, p storm.Params) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"storm"}, p.Args()...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// Drain returns while events never end, and the model is right when they do.
func TestDrainInStorm(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	p := storm.Default
	p.Life = time.Millisecond
	p.Forks = 20000
	if testing.Short() {
		p.Forks = 3000
	}
	cmd := stormCommand(t, p)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var worst, total time.Duration
	n := 0
	for running := true; running; n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		began := time.Now()
		h.Drain()
		d := time.Since(began)
		total += d
		worst = max(worst, d)
		if d > 5*time.Second {
			t.Fatalf("Drain took %v", d)
		}
		time.Sleep(time.Millisecond)
	}
	stats, err := h.Stats()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d drains, mean %v, worst %v, %+v", n, total/time.Duration(n), worst, stats)
	if stats.Lost != 0 {
		t.Errorf("%d lost with a buffer of %d", stats.Lost, h.Source().ReceiveBuffer)
	}
	// All of the storm is dead, and the events say so, if late.
	for try := 0; ; try++ {
		storms, ghosts := 0, 0
		r.mu.Lock()
		for tid := range r.born {
			storms++
			if r.dead[tid] == 0 {
				if _, err := h.Task(tid); errors.Is(err, unix.ESRCH) {
					ghosts++
				}
			}
		}
		r.mu.Unlock()
		if storms < p.Forks/2 {
			t.Fatalf("only %d births seen", storms)
		}
		if ghosts == 0 {
			break
		} else if try == 1000 {
			t.Fatalf("%d threads live in the model only", ghosts)
		}
		time.Sleep(time.Millisecond)
		h.Drain()
	}
}

// Without a reader the queue runs over. The gaps in the numbers say how many
// events were lost, which the kernel counts too.
func TestLoss(t *testing.T) {
	connected(t, Options{}).Close()
	c, err := dial(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for round := range 3 {
		before := c.dropped()
		for range 300 {
			reap(t)
		}
		dropped := c.dropped() - before
		if dropped == 0 {
			t.Fatalf("nothing was lost with a buffer of %d", c.size)
		}
		var lost uint64
		resyncs, last := 0, false
		for {
			batch, err := c.receive(nil)
			for _, e := range batch {
				if last = e.kind == kindResync; last {
					resyncs++
					lost += e.lost
				}
			}
			if err == unix.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if resyncs != 1 || !last || lost < dropped {
			t.Fatalf("round %d: %d resyncs, last %v, %d lost of %d", round, resyncs, last, lost, dropped)
		}
		// An event on each CPU shows the gaps, which say the same.
		var old, set unix.CPUSet
		runtime.LockOSThread()
		if err := unix.SchedGetaffinity(0, &old); err != nil {
			t.Fatal(err)
		}
		for cpu := range 1024 {
			if !old.IsSet(cpu) {
				continue
			}
			set.Zero()
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				t.Fatal(err)
			}
			reap(t)
			if batch, err := c.receive(nil); err != nil {
				t.Fatal(err)
			} else {
				for _, e := range batch {
					if e.kind == kindResync {
						t.Fatalf("a loss that was known is noticed again: %+v, %+v", e, c.ledger)
					}
				}
			}
		}
		if err := unix.SchedSetaffinity(0, &old); err != nil {
			t.Fatal(err)
		}
		runtime.UnlockOSThread()
		if round == 0 {
			continue // a CPU's first loss can be before its first event
		}
		if c.ledger.gaps > c.ledger.reported || c.ledger.reported != c.dropped() {
			t.Fatalf("round %d: gaps %d, reported %d, kernel %d", round, c.ledger.gaps, c.ledger.reported, c.dropped())
		}
		t.Logf("gaps %d, reported %d, kernel %d", c.ledger.gaps, c.ledger.reported, c.dropped())
	}
}

func reap(t testing.TB) {
	pid, err := storm.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}

// A model that stands still: the backlog fills, then the socket, then events
// are lost. Drain comes back when the model has been told to look for itself.
func TestStalledModel(t *testing.T) {
	h := connected(t, Options{ReceiveBuffer: 64 << 10})
	h.delivery.limit = 100
	r := newRecorder()
	r.block = make(chan struct{})
	h.Start(r)
	for range 1000 {
		reap(t)
	}
	dropped := h.conn.dropped()
	if dropped == 0 {
		t.Fatal("nothing was lost")
	}
	drained := make(chan struct{})
	go func() { h.Drain(); close(drained) }()
	select {
	case <-drained:
		t.Fatal("Drain returned while the model stood")
	case <-time.After(50 * time.Millisecond):
	}
	close(r.block)
	<-drained
	stats, err := h.Stats()
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost < dropped || r.lost != stats.Lost || r.resyncs < 2 {
		t.Fatalf("%d lost in %d resyncs, kernel %d, %+v", r.lost, r.resyncs, dropped, stats)
	}
}

func TestPolling(t *testing.T) {
	h, err := Open(Options{Polling: true, Interval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if s := h.Source(); s.Connector || s.Reason == "" {
		t.Fatalf("%+v", s)
	}
	h.Drain() // before there is anybody to deliver to
	r := newRecorder()
	h.Start(r)
	for i := range 10 {
		h.Drain()
		r.mu.Lock()
		n := r.resyncs
		r.mu.Unlock()
		if n <= i {
			t.Fatalf("%d resyncs after %d drains", n, i+1)
		}
	}
	time.Sleep(50 * time.Millisecond)
	if s, err := h.Stats(); err != nil || s.Resyncs < 12 || s.Events != 0 || s.Lost != 0 {
		t.Fatalf("%+v %v", s, err)
	}
}

// Close ends everything, also when the model is asked for more.
func TestClose(t *testing.T) {
	for _, opts := range []Options{{}, {Polling: true, Interval: time.Millisecond}} {
		h, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		r := newRecorder()
		h.Start(r)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					h.Drain()
				}
			})
		}
		if err := errors.Join(h.Close(), h.Close()); err != nil {
			t.Fatal(err)
		}
		calls := r.calls // nobody writes it any more
		wg.Wait()
		reap(t)
		h.Drain()
		if r.calls != calls {
			t.Fatal("the model was called after Close")
		}
		h, err = Open(opts) // never started
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// refusedMain says what a process gets that has less.
func refusedMain() int {
	h, err := Open(Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(h.Source())
	h.Start(newRecorder())
	h.Drain()
	h.Close()
	m, err := OpenMirror(fmt.Sprintf("test-refused-%d", os.Getpid()))
	fmt.Println(errors.Is(err, kernfs.ErrRefused), err)
	fmt.Println(kernfs.ProbeNamed())
	if err == nil {
		m.Retire(time.Second)
		return 1
	}
	return 0
}

// Who may not have the connector or the mirror is told why.
func TestRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give up privileges")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name   string
		attr   syscall.SysProcAttr
		source []string // one of these
		mirror string
	}{
		// Linux 6.6 and later let everybody hear the events.
		{"user", syscall.SysProcAttr{Credential: nobody}, []string{"proc connector", "CAP_NET_ADMIN"}, "true fsopen cgroup: operation not permitted (no privilege: CAP_SYS_ADMIN is needed)"},
		{"pid namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, []string{"first pid and user namespace"}, ""},
		{"network namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, []string{"network namespace"}, ""},
		{"cgroup namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP}, []string{"proc connector"}, "true make hierarchy"},
	} {
		cmd := exec.Command("/proc/self/exe", "refused")
		cmd.SysProcAttr = &c.attr
		out, _ := cmd.CombinedOutput()
		lines := bufio.NewScanner(strings.NewReader(string(out)))
		lines.Scan()
		if s := lines.Text(); !slices.ContainsFunc(c.source, func(want string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s: %s", c.name, out)
		}
		lines.Scan()
		if s := lines.Text(); !strings.Contains(s, c.mirror) {
			t.Errorf("%s: %s", c.name, out)
		}
		t.Logf("%s: %s", c.name, out)
	}
}

func BenchmarkDrainIdle(b *testing.B) {
	h := connected(b, Options{})
	h.Start(newRecorder())
	h.Drain()
	for b.Loop() {
		h.Drain()
	}
}

// One fork, its Drain, its end, its Drain.
func BenchmarkForkDrain(b *testing.B) {
	h := connected(b, Options{})
	h.Start(newRecorder())
	var drains time.Duration
	for b.Loop() {
		pid, err := storm.Fork(0)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		h.Drain()
		drains += time.Since(began)
		unix.Wait4(pid, nil, 0, nil)
	}
	b.ReportMetric(float64(drains.Nanoseconds())/float64(b.N), "ns/drain")
}

func BenchmarkTask(b *testing.B) {
	h := polling(b)
	pid := int32(sleeper(b).Process.Pid)
	for b.Loop() {
		if _, err := h.Task(pid); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOwner(b *testing.B) {
	h := polling(b)
	pid := int32(sleeper(b).Process.Pid)
	for b.Loop() {
		if _, _, err := h.Owner(pid); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTasks(b *testing.B) {
	h := polling(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = 0
		if err := h.Tasks(0, func(tree.TaskInfo) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/task")
}
