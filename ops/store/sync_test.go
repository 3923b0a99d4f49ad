package store

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// failCalls has calls of the kernel of the thread that calls it fail with EIO, those
// that fails says, counted from 0. It is for the goroutine that commits, which keeps
// that thread.
func failCalls(t testing.TB, calls []uint32, fails func(n int, call uint32) bool) {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Error(err)
		return
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the system call's number
	for _, call := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		t.Error("seccomp:", errno)
		return
	}
	go func() {
		defer unix.Close(int(listener))
		for n := 0; ; n++ {
			// struct seccomp_notif and seccomp_notif_resp.
			var asked struct {
				id   uint64
				_    [8]byte
				call uint32
				_    [60]byte
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, -1); err == unix.EINTR {
				n--
				continue
			}
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
				return // the thread has ended
			}
			answer := struct {
				id    uint64
				val   int64
				error int32
				flags uint32
			}{id: asked.id, flags: 1} // SECCOMP_USER_NOTIF_FLAG_CONTINUE
			if fails(n, asked.call) {
				answer.error, answer.flags = -int32(syscall.EIO), 0
			}
			unix.Syscall(unix.SYS_IOCTL, listener, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
		}
	}()
}

// failCommits has syncs of what a store commits from now on fail as failCalls does.
func failCommits(t testing.TB, s *Store, fails func(n int) bool) {
	failFromCommit(t, s, []uint32{unix.SYS_FDATASYNC}, func(n int, _ uint32) bool { return fails(n) })
}

// failFromCommit has calls of the kernel by the goroutine that commits fail as failCalls does,
// from within its next commit on.
func failFromCommit(t testing.TB, s *Store, calls []uint32, fails func(n int, call uint32) bool) {
	asked := false
	s.InCommit = func() error {
		if !asked {
			asked = true
			failCalls(t, calls, fails)
		}
		return nil
	}
}

// TestFailedSync has the disk fail at a sync of a commit, before its meta page is
// written or after: nothing of the commit is there, and what is kept afterwards is
// read by the next Open.
func TestFailedSync(t *testing.T) {
	for at, name := range []string{"pages", "meta page"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			s.Put(key(1), []byte("a"), nil)
			kept(t, s)
			failCommits(t, s, func(n int) bool { return n == at })
			s.Undo = func([]Change, error) {
				if v, err := s.Get(key(1)); string(v) != "a" || err != nil {
					t.Errorf("what is to be put back is %q, %v, want a", v, err)
				}
				s.Discard()
			}
			if err := s.Wait(s.Put(key(1), []byte("b"), nil)); !errors.Is(err, syscall.EIO) {
				t.Fatalf("%v, want EIO", err)
			}
			s.Put(key(2), []byte("c"), nil)
			kept(t, s)
			mustClose(t, s)
			s, got := open(t, dir)
			same(t, got, map[Key]string{key(1): "a", key(2): "c"})
			mustClose(t, s)
		})
	}
}

// TestTornSync has a sync of a meta page fail, and all that come after it: since it is
// not known what is kept, nothing more is. The next Open reads what was there before,
// or after.
func TestTornSync(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Put(key(1), []byte("a"), nil)
	kept(t, s)
	failCommits(t, s, func(n int) bool { return n > 0 })
	s.Undo = func([]Change, error) {
		if v, err := s.Get(key(1)); !errors.Is(err, syscall.EIO) {
			t.Errorf("what is to be put back is %q, %v, want EIO", v, err)
		}
		s.Discard()
	}
	for range 3 {
		if err := s.Wait(s.Put(key(1), []byte("b"), nil)); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%v, want EIO", err)
		}
	}
	s.Close()
	s, got := open(t, dir)
	if v := got[key(1)]; v != "a" && v != "b" {
		t.Errorf("the row is %q, want a or b", v)
	}
	mustClose(t, s)
}
