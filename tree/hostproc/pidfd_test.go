package hostproc

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

// byPidfd opens the host with the connector, where threads are looked at again by pidfds.
func byPidfd(t *testing.T) (*Host, *recorder) {
	t.Helper()
	if !hasPidfds() {
		t.Skip("Linux before 6.13 does not tell of threads by their pidfds")
	}
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	if !h.proc.pidfds.Load() {
		t.Fatal("pidfds are there and are not used")
	}
	return h, r
}

// look looks at a thread so often that the last one is by pidfd.
func look(t *testing.T, h *Host, tid int32) {
	t.Helper()
	for range 3 {
		if _, err := h.Task(tid); err != nil {
			t.Fatal(err)
		}
	}
	k, ok, since := h.proc.threads.Take(tid)
	if !ok || !k.pidfd {
		t.Fatalf("%d is not looked at by pidfd", tid)
	}
	h.proc.threads.Keep(tid, k, since)
}

// TestPidfdDead: who was looked at by pidfd and is dead is nobody: as a zombie, and as a
// first thread that ended before the others, which its pidfd does not tell.
func TestPidfdDead(t *testing.T) {
	h, r := byPidfd(t)
	cmd := sleeper(t)
	pid := int32(cmd.Process.Pid)
	look(t, h, pid)
	if ruid, suid, err := h.Owner(pid); err != nil || ruid != uint32(os.Getuid()) || suid != uint32(os.Geteuid()) {
		t.Errorf("owner: %d, %d, %v", ruid, suid, err)
	}
	cmd.Process.Kill()
	var si unix.Siginfo
	if err := unix.Waitid(unix.P_PID, int(pid), &si, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if ti, err := h.Task(pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("zombie: %+v, %v", ti, err)
	}
	if _, _, err := h.Owner(pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("owner of a zombie: %v", err)
	}
	awaitExit(t, h, r, pid)
	if ti, err := h.Task(pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("zombie whose EXIT was told: %+v, %v", ti, err)
	}

	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd, line := startWith(t, in, "dying-leader")
	in.Close()
	var tid int32
	if _, err := fmt.Sscan(line, &tid); err != nil {
		t.Fatal(err)
	}
	leader := int32(cmd.Process.Pid)
	look(t, h, leader)
	look(t, h, tid)
	out.Close()
	awaitExit(t, h, r, leader)
	if ti, err := h.Task(leader); !errors.Is(err, unix.ESRCH) {
		t.Errorf("dead first thread: %+v, %v", ti, err)
	}
	if ti, ok := h.Glance(leader); ok {
		t.Errorf("glance at a dead first thread: %+v", ti)
	}
	if ti, err := h.Task(tid); err != nil || ti.TGID != leader {
		t.Errorf("its thread: %+v, %v", ti, err)
	}
}

// TestGlance: what Glance tells is what Drain and Task would, but for the parent.
func TestGlance(t *testing.T) {
	h, r := byPidfd(t)
	cmd := sleeper(t)
	pid := int32(cmd.Process.Pid)
	glances := func(tid int32) (tree.TaskInfo, bool) {
		t.Helper()
		for range 100 { // other events, which only delay
			h.Drain()
			if info, ok := h.Glance(tid); ok {
				return info, true
			}
		}
		return tree.TaskInfo{}, false
	}
	if info, ok := glances(pid); ok {
		t.Errorf("of who was not looked at: %+v", info)
	}
	look(t, h, pid)
	want, err := h.Task(pid)
	want.PPID = 0
	if info, ok := glances(pid); !ok || err != nil || info != want {
		t.Errorf("%+v, %v, want %+v, %v", info, ok, want, err)
	}

	// What is outstanding is not passed over, in the socket and after it.
	r.mu.Lock()
	if pid, err := storm.Fork(0); err != nil {
		t.Error(err)
	} else {
		unix.Wait4(pid, nil, 0, nil)
	}
	for began, n := time.Now(), 0; n == 0 || h.conn.pending() && time.Since(began) < 10*time.Second; n++ {
		if info, ok := h.Glance(pid); ok {
			t.Errorf("before a fork was told: %+v", info)
			break
		}
	}
	if info, ok := h.Glance(pid); ok {
		t.Errorf("before a fork was told that was received: %+v", info)
	}
	r.mu.Unlock()

	// A number that an exec gave up is nobody's, although no EXIT tells of it.
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	execs, line := startWith(t, in, "exec-thread")
	in.Close()
	var tid int32
	if _, err := fmt.Sscan(line, &tid); err != nil || int(tid) == execs.Process.Pid {
		t.Fatal(line, err)
	}
	look(t, h, tid)
	out.Close()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := r.execs[int32(execs.Process.Pid)]
		r.mu.Unlock()
		if n == 2 { // this binary's is the first
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d execs", n)
		}
	}
	if info, ok := glances(tid); ok {
		t.Errorf("a tid from before an exec: %+v", info)
	}

	cmd.Process.Kill()
	var si unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &si, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if info, ok := glances(pid); ok {
		t.Errorf("zombie: %+v", info)
	}
	pid = int32(sleeper(t).Process.Pid)
	look(t, h, pid)
	h.Close()
	if info, ok := h.Glance(pid); ok {
		t.Errorf("closed: %+v", info)
	}
}

// TestPidfdOwner: the users are those that the thread has now.
func TestPidfdOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("users can be changed by root only")
	}
	h, _ := byPidfd(t)
	cmd := sleeperAs(t, 12345)
	pid := int32(cmd.Process.Pid)
	look(t, h, pid)
	if ruid, suid, err := h.Owner(pid); err != nil || ruid != 12345 || suid != 12345 {
		t.Errorf("%d, %d, %v", ruid, suid, err)
	}
}

// TestPidfdResync: where exits may have been lost, everybody is looked at anew.
func TestPidfdResync(t *testing.T) {
	h, _ := byPidfd(t)
	pid := int32(sleeper(t).Process.Pid)
	look(t, h, pid)
	mark := h.delivery.ask()
	h.delivery.wait(func() bool { return h.delivery.applied.Load() >= mark })
	if _, ok, _ := h.proc.threads.Take(pid); ok {
		t.Error("a pidfd is kept over a resync")
	}
}

// TestPidfdLate: an EXIT that comes while somebody looks counts, too.
func TestPidfdLate(t *testing.T) {
	h, r := byPidfd(t)
	cmd := sleeper(t)
	_, _, since := h.proc.threads.Take(1)
	cmd.Process.Kill()
	awaitExit(t, h, r, int32(cmd.Process.Pid))
	h.proc.threads.Keep(1, thread{FD: -1}, since)
	if _, ok, _ := h.proc.threads.Take(1); ok {
		t.Error("kept, although it may be of who has ended")
	}
}
