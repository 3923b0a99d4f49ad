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
	if root, _ := proc(); root != nil {
		return root.fd
	}
	return -1
}

// ProcIsOwn reports whether it is an instance of the server's own.
func ProcIsOwn() bool {
	_, own := proc()
	return own
}

var proc = sync.OnceValues(func() (root *Dir, own bool) {
	if root, err := openProc(); err == nil {
		return root, true
	}
	root, _ = OpenDir("/proc")
	return root, false
})

// openProc makes an instance. Kernels before 5.8 have one for each pid namespace.
func openProc() (*Dir, error) {
	root, err := openDetached("proc", "/proc", nil)
	if err != nil {
		return nil, err
	}
	var ours, shared unix.Stat_t
	if unix.Fstat(root.fd, &ours) != nil || unix.Stat("/proc", &shared) != nil || ours.Dev == shared.Dev {
		root.Close()
		return nil, &OpError{"make hierarchy", "/proc", unix.EEXIST}
	}
	return root, nil
}

// ReadProc reads a file below the root of Proc: what is gone is ENOENT or ESRCH.
func ReadProc(path string) ([]byte, error) {
	root, _ := proc()
	if root == nil {
		return nil, &OpError{"open", "/proc/" + path, unix.ENOENT}
	}
	return root.Read(path, nil)
}
