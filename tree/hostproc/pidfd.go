package hostproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdThread is PIDFD_THREAD, include/uapi/linux/pidfd.h: of the very thread, not of its
// process.
const pidfdThread = unix.O_EXCL

// pidfdInfo is struct pidfd_info of the same as it was first, in Linux 6.13.
type pidfdInfo struct {
	mask                   uint64
	cgroup                 uint64
	pid, tgid, ppid        uint32
	ruid, rgid, euid, egid uint32
	suid, sgid, fsuid      uint32
	fsgid                  uint32
	exit                   int32
}

// pidfdGetInfo is PIDFD_GET_INFO for that size.
const pidfdGetInfo = 3<<30 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xFF<<8 | 11

// readPidfd tells of the thread of a pidfd: ESRCH when it has ended. One that is exiting
// has not, until the kernel tells of it.
func readPidfd(fd int) (info pidfdInfo, err error) {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return info, errno
	}
	// It is readable from when its end is told on, which is before its EXIT.
	ready, err := pollNow(unix.POLLIN, fd)
	if ready {
		err = unix.ESRCH
	}
	return info, err
}

// pollNow reports whether there are events on one or two files, which are looked at in
// their order, without a wait. The runtime is not told of the call, which costs more than
// such a call itself.
func pollNow(events int16, fds ...int) (bool, error) {
	var p [2]unix.PollFd
	for i, fd := range fds {
		p[i] = unix.PollFd{Fd: int32(fd), Events: events}
	}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), uintptr(len(fds)), uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if errno != 0 {
		return false, errno
	}
	return n != 0, nil
}

// hasPidfds finds out whether the kernel tells of a thread by its pidfd.
func hasPidfds() bool {
	fd, err := unix.PidfdOpen(unix.Gettid(), pidfdThread)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := readPidfd(fd)
	return err == nil && int(info.tgid) == unix.Getpid()
}
