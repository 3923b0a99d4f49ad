package hostproc

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// cloneArgs is struct clone_args of linux/sched.h, as far as set_tid_size.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
}

// forkAs forks a process with a pid that is wanted, which does nothing.
//
//go:norace
//go:nosplit
func forkAs(args *cloneArgs) int {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 {
		return -int(errno)
	}
	for pid == 0 {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid)
}

// TestTaskReused: a look at a tid tells of the thread that has it, also when a file of
// one that had it before is still open.
func TestTaskReused(t *testing.T) {
	t.Run("by stat", func(t *testing.T) { testTaskReused(t, false) })
	t.Run("by pidfd", func(t *testing.T) { testTaskReused(t, true) })
}

func testTaskReused(t *testing.T, pidfds bool) {
	if pidfds && !hasPidfds() {
		t.Skip("Linux before 6.13 does not tell of threads by their pidfds")
	}
	h := polling(t)
	h.proc.pidfds.Store(pidfds)
	end := func(pid int) {
		unix.Kill(pid, unix.SIGKILL)
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	again := func(pid int) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tids := [1]int32{int32(pid)}
		var all, old unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
			return err
		}
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		args := cloneArgs{exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&tids))), setTIDSize: 1}
		got := forkAs(&args)
		runtime.KeepAlive(&tids)
		if got < 0 {
			return unix.Errno(-got)
		}
		return nil
	}
	pid, err := storm.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Wait4(pid, nil, 0, nil)
	if err := again(pid); errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip("pids cannot be chosen: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		first, err := h.Task(int32(pid))
		if err != nil {
			t.Fatal(err)
		}
		if k, ok, since := h.proc.threads.Take(int32(pid)); !ok || k.pidfd != pidfds {
			t.Fatalf("no file is kept of it: %+v, %v", k, ok)
		} else {
			h.proc.threads.Keep(int32(pid), k, since)
		}
		if again, err := h.Task(int32(pid)); err != nil || again != first {
			t.Errorf("looked at again: %+v, %v; first %+v", again, err, first)
		}
		end(pid)
		for clock := h.Now(); h.Now() < clock+2*tick; {
		}
		if err := again(pid); err != nil {
			t.Fatal(err)
		}
		second, err := h.Task(int32(pid))
		if err != nil {
			t.Fatal(err)
		}
		if second.Start <= first.Start || second.TGID != int32(pid) {
			t.Errorf("looked at %+v, and then at %+v, which is another", first, second)
		}
	}
	end(pid)
	if ti, err := h.Task(int32(pid)); !errors.Is(err, unix.ESRCH) {
		t.Errorf("its end: %+v, %v", ti, err)
	}
	if _, ok, _ := h.proc.threads.Take(int32(pid)); ok {
		t.Error("a file of one that is gone is kept")
	}
}
