package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// point is where in a commit a server is.
type point int

const (
	nowhere      point = iota
	beforeAll          // nothing of it is written: not inside
	betweenPages       // some pages are
	beforeSync         // all pages are, and none is sure to be on disk
	beforeMeta         // that the pages are valid is not written
	afterMeta          // it is, and not sure to be on disk
	points
)

var pointNames = [points]string{"", "before a commit", "between pages", "before pages are synced", "before the meta page", "before the meta page is synced"}

// A tap has the kernel ask before each write and sync that a server does, so that it
// can be killed right there. The server itself knows nothing of it.
type tap struct {
	listener int
	server   int            // its pid
	done     sync.WaitGroup // of who answers

	mu     sync.Mutex
	last   step
	target point
	pass   int // how often it may pass the target
}

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

const continueSyscall = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE

// tapIt makes a server's command one that is asked about. It is to be started, and
// then given to the function that is returned.
func tapIt(t testing.TB, cmd *exec.Cmd) (begin func() *tap) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "tap")
	cmd.Args = append([]string{os.Args[0], cmd.Path}, cmd.Args[1:]...)
	cmd.Path = os.Args[0]
	cmd.Env = append(os.Environ(), "CONTAINERFS_TEST_LAUNCHER=1")
	cmd.ExtraFiles = []*os.File{theirs}
	return func() *tap {
		t.Helper()
		theirs.Close()
		defer unix.Close(ends[0])
		control := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(ends[0], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil || len(messages) != 1 {
			t.Fatalf("the launcher has sent no listener: %v", err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("the launcher has sent no listener: %v", err)
		}
		p := &tap{listener: fds[0], server: cmd.Process.Pid}
		p.done.Go(func() { p.serve() })
		return p
	}
}

// launcherMain has the kernel ask about its writes and syncs, sends away by which
// descriptor it does, and becomes the command that its arguments are.
func launcherMain() {
	runtime.LockOSThread()
	fail := func(what string, err error) {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
	env := append(os.Environ(), "CONTAINERFS_TEST_LAUNCHER=")
	unix.CloseOnExec(3)
	ask := []uint32{unix.SYS_PWRITE64, unix.SYS_FDATASYNC}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the system call's number
	for i, nr := range ask {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(ask) - i)})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		fail("seccomp", errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		fail("sendmsg", err)
	}
	fail("exec", syscall.Exec(os.Args[1], os.Args[1:], env))
}

// serve answers the kernel until the server has ended.
func (p *tap) serve() {
	defer unix.Close(p.listener)
	for {
		fds := []unix.PollFd{{Fd: int32(p.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return // nobody is left to be asked about
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(p.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // who asked was killed
		}
		if p.passes(&n) {
			r := response{id: n.id, flags: continueSyscall}
			unix.Syscall(unix.SYS_IOCTL, uintptr(p.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
		}
	}
}

// step is what a server did last.
type step int

const (
	nothing step = iota // of a commit
	page
	pagesSync
	meta
)

// passes follows a commit, and kills the server where it is to be.
func (p *tap) passes(n *notification) bool {
	file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, n.args[0]))
	if err != nil || filepath.Base(file) != "state.db" {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var at point
	writes := n.nr == unix.SYS_PWRITE64
	switch {
	case writes && n.args[3] < uint64(2*os.Getpagesize()):
		at, p.last = beforeMeta, meta
	case writes && p.last == nothing:
		at, p.last = beforeAll, page
	case writes:
		at, p.last = betweenPages, page
	case p.last == meta:
		at, p.last = afterMeta, nothing
	case p.last == page:
		at, p.last = beforeSync, pagesSync
	default:
		return true
	}
	if p.target != at {
		return true
	}
	if p.pass--; p.pass < 0 {
		// It never does what it has asked for.
		unix.Kill(p.server, unix.SIGKILL)
		return false
	}
	return true
}

// kill has the server killed when it has been at a point so many times.
func (p *tap) kill(at point, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.pass = at, times
}
