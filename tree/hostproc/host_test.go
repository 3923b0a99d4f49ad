package hostproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

func init() {
	if len(os.Args) > 1 && slices.Contains([]string{"dead-leader", "dying-leader", "exec-thread"}, os.Args[1]) {
		runtime.LockOSThread() // main stays on the first thread
	}
}

// deadLeaderMain ends its first thread and goes on in another.
func deadLeaderMain() {
	go func() {
		runtime.LockOSThread()
		for dead := false; !dead; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", os.Getpid()))
			first, ok := parseStat(text)
			dead = ok && !first.live()
		}
		fmt.Println(unix.Gettid())
		time.Sleep(time.Minute)
		os.Exit(0)
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

// dyingLeaderMain does so when its input ends.
func dyingLeaderMain() {
	go func() {
		runtime.LockOSThread()
		fmt.Println(unix.Gettid())
		time.Sleep(time.Minute)
		os.Exit(0)
	}()
	var b [1]byte
	syscall.Read(0, b[:])
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

// execThreadMain executes another program from a thread that is not the first, when its
// input ends.
func execThreadMain() {
	go func() {
		runtime.LockOSThread()
		fmt.Println(unix.Gettid())
		io.Copy(io.Discard, os.Stdin)
		fmt.Println(syscall.Exec("/bin/sleep", []string{"sleep", "1000"}, nil))
		os.Exit(1)
	}()
	select {}
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

var began = time.Now()

func TestTask(t *testing.T) {
	h := polling(t)
	runtime.LockOSThread() // the thread ends with the test, its name with it
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(unsafe.StringData(") R 1 (\n) 1\x00"))), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	tid, pid := int32(unix.Gettid()), int32(os.Getpid())
	now := ticksAt(h.Now(), sleep())
	age := uint64(time.Since(began).Seconds()+10) * 100 // of this process, at most
	self, err := h.Task(tid)
	if err != nil || self.TID != tid || self.TGID != pid || self.PPID != int32(os.Getppid()) || self.Kernel || self.Start > now || self.Start+age < now {
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
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // until there were polls of its own
		s, err := h.Stats()
		if late := time.Now().After(end); err != nil || s.Resyncs < 12 && late || s.Events != 0 || s.Lost != 0 {
			t.Fatalf("%+v %v", s, err)
		}
		if s.Resyncs >= 12 {
			break
		}
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
