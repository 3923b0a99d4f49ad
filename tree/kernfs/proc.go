package kernfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Proc is a descriptor of the root of a procfs for paths below it, for good; -1 where there
// is none. It is an instance of the server's own, if the kernel gives it one (Linux 5.8,
// CAP_SYS_ADMIN). In the one that all share a user can hold the directory of his own
// process locked for as long as he likes, by reading it into memory that a file server of
// his fills, and whoever reads it waits for that.
func Proc() int {
	fd, _ := proc()
	return fd
}

// ProcIsOwn reports whether it is an instance of the server's own.
func ProcIsOwn() bool {
	_, own := proc()
	return own
}

var proc = sync.OnceValues(func() (fd int, own bool) {
	shared, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false
	}
	fd, err = openProc()
	if err != nil {
		return shared, false
	}
	unix.Close(shared)
	return fd, true
})

// openProc makes an instance. Kernels before 5.8 have one for each pid namespace.
func openProc() (int, error) {
	cfg, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(cfg)
	if err := unix.FsconfigCreate(cfg); err != nil {
		return -1, err
	}
	root, err := unix.Fsmount(cfg, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	var ours, shared unix.Stat_t
	if err := unix.Fstat(root, &ours); err != nil {
		return -1, err
	}
	if err := unix.Stat("/proc", &shared); err != nil || ours.Dev == shared.Dev {
		return -1, unix.EEXIST
	}
	return unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// ReadProc reads a file below the root of Proc: what is gone is ENOENT or ESRCH.
func ReadProc(path string) ([]byte, error) {
	fd, err := unix.Openat(Proc(), path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &OpError{"open", "/proc/" + path, err}
	}
	defer unix.Close(fd)
	var data []byte
	buf := make([]byte, 4096)
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
		if err != nil {
			return nil, &OpError{"read", "/proc/" + path, err}
		}
		if n == 0 {
			return data, nil
		}
		data = append(data, buf[:n]...)
	}
}
