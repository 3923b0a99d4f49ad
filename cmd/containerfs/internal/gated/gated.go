// Package gated makes processes that wait before they execute their program. Until then
// one is a single thread that does nothing but wait, so that whatever is done to it, as to
// be put under a limit of processes, is done to the program alone. A program that waited by
// itself would need its threads and memory for that, and a traced one would not get what a
// set-user-ID bit gives.
//
// The process is a copy of this one in which nothing but the functions marked nosplit runs:
// Go's runtime is not there, so they make system calls and nothing else.
package gated

import (
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Process waits until it is let go or ended.
type Process struct {
	*os.Process
	gate   *os.File // a byte lets it go, the end ends it
	failed *os.File // has the errno of an exec that failed, or ends
}

// start is what a process needs to execute its program, made before it is.
type start struct {
	path      *byte
	argv, env []*byte // with a nil at the end
	gate      [2]int
	failed    [2]int
	mask      unix.Sigset_t
	nofile    *unix.Rlimit // nil to leave it
	errno     int32
}

// Start makes a process with our standard files, directory and user. It executes the file
// program with these arguments, the name first, and our environment.
func Start(program string, args []string) (*Process, error) {
	s := &start{nofile: filesAtStart()}
	var err error
	if s.path, err = syscall.BytePtrFromString(program); err != nil {
		return nil, err
	}
	if s.argv, err = syscall.SlicePtrFromStrings(args); err != nil {
		return nil, err
	}
	if s.env, err = syscall.SlicePtrFromStrings(os.Environ()); err != nil {
		return nil, err
	}
	if err := unix.Pipe2(s.gate[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.Pipe2(s.failed[:], unix.O_CLOEXEC); err != nil {
		unix.Close(s.gate[0])
		unix.Close(s.gate[1])
		return nil, os.NewSyscallError("pipe2", err)
	}
	pid, err := s.fork()
	unix.Close(s.gate[0])
	unix.Close(s.failed[1])
	p := &Process{gate: os.NewFile(uintptr(s.gate[1]), "gate"), failed: os.NewFile(uintptr(s.failed[0]), "failed")}
	if err != nil {
		p.close()
		return nil, os.NewSyscallError("fork", err)
	}
	p.Process, err = os.FindProcess(pid) // cannot be another's, since nobody has waited for it
	if err != nil {
		p.close()
		unix.Wait4(pid, nil, 0, nil)
		return nil, err
	}
	return p, nil
}

// filesAtStart is the limit of open files that we were started with, nil if that is ours.
// Package syscall raises it, and keeps what it was for the processes that it makes itself.
func filesAtStart() *unix.Rlimit {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur != r.Max-1 {
		return nil // this is what it raises it to
	}
	out, err := exec.Command("/bin/sh", "-c", "ulimit -n").Output()
	if err != nil {
		return nil
	}
	if r.Cur, err = strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64); err != nil {
		return nil
	}
	return &r
}

func (p *Process) close() {
	p.gate.Close()
	p.failed.Close()
}

// Go lets the process go, and returns why it cannot execute its program. Then, or if it was
// ended while it waited, it is the caller's to wait for.
func (p *Process) Go() error {
	defer p.close()
	p.gate.Write([]byte{1})
	var errno [4]byte
	if _, err := io.ReadFull(p.failed, errno[:]); err != nil {
		return nil
	}
	return syscall.Errno(binary.NativeEndian.Uint32(errno[:]))
}

// End ends a process that was not let go, and waits for it.
func (p *Process) End() {
	p.close()
	p.Wait()
}

// fork makes the process. Signals wait meanwhile: they are not for a copy of us.
func (s *start) fork() (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	syscall.ForkLock.Lock() // descriptors that are being made are not for it either
	defer syscall.ForkLock.Unlock()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &s.mask); err != nil {
		return 0, err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &s.mask, nil)
	var errno syscall.Errno
	if pid, errno = s.clone(); errno != 0 {
		return 0, errno
	}
	runtime.KeepAlive(s)
	return pid, nil
}

//go:norace
//go:nosplit
func (s *start) clone() (pid int, errno syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && n == 0 {
		s.child()
	}
	return int(n), errno
}

// sigaction is struct sigaction of the kernel.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	sigIgnore  = 1 // SIG_IGN
	lastSignal = 64
	maskSize   = lastSignal / 8
)

// child is the life of the process until its program is executed.
//
//go:norace
//go:nosplit
func (s *start) child() {
	var b byte
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s.gate[1]), 0, 0) // or the pipe does not end with our maker
	if n, _, _ := syscall.RawSyscall(unix.SYS_READ, uintptr(s.gate[0]), uintptr(unsafe.Pointer(&b)), 1); n != 1 {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
	// What waits is delivered when the mask goes, and Go's handlers have no runtime here. What
	// is ignored stays so, as over any exec.
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var a sigaction
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&a)), maskSize, 0, 0)
		if a.handler > sigIgnore {
			a = sigaction{}
			syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&a)), 0, maskSize, 0, 0)
		}
	}
	if s.nofile != nil {
		syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(s.nofile)), 0, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&s.mask)), 0, maskSize, 0, 0)
	_, _, errno := syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(s.path)),
		uintptr(unsafe.Pointer(unsafe.SliceData(s.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(s.env))))
	s.errno = int32(errno)
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.failed[1]), uintptr(unsafe.Pointer(&s.errno)), 4)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
