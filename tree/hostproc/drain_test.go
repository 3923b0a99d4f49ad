package hostproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

// A recorder is a Model that keeps the set of threads by events alone.
type recorder struct {
	mu      sync.Mutex
	born    map[int32]tree.ForkEvent
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
	return &recorder{born: map[int32]tree.ForkEvent{}, dead: map[int32]int{}, execs: map[int32]int{}}
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

func (r *recorder) Fork(e tree.ForkEvent) {
	if r.block != nil {
		<-r.block
	}
	defer r.enter("fork")()
	r.born[e.TID] = e
	delete(r.dead, e.TID)
}

func (r *recorder) Exec(tgid int32) { defer r.enter("exec")(); r.execs[tgid]++ }

func (r *recorder) Exit(tid int32) { defer r.enter("exit")(); r.dead[tid]++ }

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

// awaitExit returns when an EXIT was delivered, which can be a little late.
func awaitExit(t *testing.T, h *Host, r *recorder, tid int32) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		h.Drain()
		r.mu.Lock()
		dead := r.dead[tid]
		r.mu.Unlock()
		if dead > 0 {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("no EXIT of %d", tid)
		}
	}
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
		before, begun := h.Now(), clock(unix.CLOCK_BOOTTIME)
		pid, err := storm.Fork(0)
		if err != nil {
			t.Fatal(err)
		}
		after := h.Now()
		h.Drain()
		tid := int32(pid)
		r.mu.Lock()
		fork, ok := r.born[tid]
		r.mu.Unlock()
		ts, bound := fork.Time, fork.StartMax
		if want := (tree.ForkEvent{
			ParentTID: int32(unix.Gettid()), ParentTGID: int32(os.Getpid()), TID: tid, TGID: tid, Time: ts, StartMax: bound,
		}); !ok || fork != want {
			t.Fatalf("round %d: fork of %d: %+v %v, want %+v", i, tid, ok, fork, want)
		}
		if ts < before || ts > after {
			t.Fatalf("stamp %d is not in %d..%d", ts, before, after)
		}
		if ti, err := h.Task(tid); err == nil && (ti.Start > bound || ti.Start < ticksAt(begun, 0)) {
			t.Fatalf("started in tick %d, bounds %d %d", ti.Start, ticksAt(begun, 0), bound)
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
	pid := int32(cmd.Process.Pid)
	awaitExit(t, h, r, pid)
	r.mu.Lock()
	defer r.mu.Unlock()
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
			if want := int32(os.Getppid()); f.TGID != int32(os.Getpid()) || f.ParentTGID != want {
				t.Errorf("thread %+v, parent's parent is %d", f, want)
			}
		}
	}
	if !found {
		t.Error("no thread was made")
	}
}

// The thread that executes becomes the leader: it exits under neither tid, the
// leader that was there does, and the start time stays.
func TestExecByThread(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	cmd, line := start(t, "exec-thread")
	pid := int32(cmd.Process.Pid)
	var tid int32
	if _, err := fmt.Sscan(line, &tid); err != nil || tid == pid {
		t.Fatal(line, err)
	}
	for try := 0; ; try++ { // this binary's exec is the first
		h.Drain()
		r.mu.Lock()
		execs, leader, thread := r.execs[pid], r.dead[pid], r.dead[tid]
		r.mu.Unlock()
		if execs == 2 {
			if leader != 1 || thread != 0 {
				t.Errorf("%d exits of the leader, %d of the thread", leader, thread)
			}
			break
		} else if try == 1000 {
			t.Fatalf("%d execs", execs)
		}
		time.Sleep(time.Millisecond)
	}
	now, err := h.Task(pid)
	r.mu.Lock()
	born := r.born[pid].StartMax
	r.mu.Unlock()
	if err != nil || now.Start > born || now.Start+1 < born {
		t.Errorf("%+v %v, born in tick %d", now, err, born)
	}
	if ti, err := h.Task(tid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("its former tid: %+v %v", ti, err)
	}
}

// Drain returns while events never end, and the model is right when they do.
func TestDrainInStorm(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	p := storm.Default
	p.Life = time.Millisecond
	p.Forks = 20000
	switch {
	case os.Getenv("SOAK") != "": // a minute or more
		p.Forks = 250_000
	case testing.Short():
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
	if stats.Forks < uint64(p.Forks) { // numbers come again in a long storm: born has fewer
		t.Fatalf("only %d births seen", stats.Forks)
	}
	// All of the storm is dead, and the events say so, if late.
	for try := 0; ; try++ {
		ghosts := 0
		r.mu.Lock()
		for tid := range r.born {
			if r.dead[tid] == 0 {
				if _, err := h.Task(tid); errors.Is(err, unix.ESRCH) {
					ghosts++
				}
			}
		}
		r.mu.Unlock()
		if ghosts == 0 {
			break
		} else if try == 1000 {
			t.Fatalf("%d threads live in the model only", ghosts)
		}
		time.Sleep(time.Millisecond)
		h.Drain()
	}
}
