package cpuset

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Host is what cpuset needs of the machine. Methods may be called concurrently;
// errors are a syscall.Errno or wrap one.
type Host interface {
	// Online are the CPUs and the memory nodes that the machine has now.
	Online() (cpus, mems Set, err error)

	// Affinity is the mask of a thread, its online CPUs only.
	Affinity(tid int32) (Set, error)

	// SetAffinity sets the mask of a thread. The kernel may cut it to what
	// its own cpuset controller allows the thread, and say nothing; it fails
	// with EINVAL where nothing would be left.
	SetAffinity(tid int32, cpus Set) error

	// MigratePages moves the memory that a process has in the nodes from to
	// the nodes to, and returns how many pages it could not move. It may take
	// long.
	MigratePages(tgid int32, from, to Set) (left int, err error)

	// Probe says what the host will refuse, in words for the log at start.
	Probe() []string
}

// NewHost is the machine that the server runs on.
func NewHost() Host { return machine{} }

type machine struct{}

const (
	onlineCPUs  = "/sys/devices/system/cpu/online"
	onlineNodes = "/sys/devices/system/node/online"

	// maxOnline bounds the numbers in these two files, which the kernel
	// writes: it is above what any kernel is built for.
	maxOnline = 1 << 16
)

func (machine) Online() (cpus, mems Set, err error) {
	if cpus, err = readOnline(onlineCPUs); err != nil {
		return nil, nil, err
	}
	mems, err = readOnline(onlineNodes)
	if errors.Is(err, fs.ErrNotExist) {
		return cpus, NewSet(0), nil // a kernel without NUMA has one node
	}
	return cpus, mems, err
}

func readOnline(path string) (Set, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set, err := ParseSet(text, maxOnline)
	if err == nil && set.Empty() {
		err = syscall.EINVAL
	}
	if err != nil {
		return nil, &fs.PathError{Op: "parse", Path: path, Err: err}
	}
	return set, nil
}

// The kernel refuses to write a mask into fewer bits than it has CPU ids. Most
// machines do with the first size.
const (
	firstMask = 1024
	largeMask = 1 << 16
)

func (machine) Affinity(tid int32) (Set, error) {
	mask := unix.NewCPUSet(firstMask)
	err := unix.SchedGetaffinityDynamic(int(tid), mask)
	if err == unix.EINVAL {
		mask = unix.NewCPUSet(largeMask)
		err = unix.SchedGetaffinityDynamic(int(tid), mask)
	}
	if err != nil {
		return nil, err
	}
	words := make([]uint64, 0, firstMask/wordBits)
	for i, w := range mask {
		if w == 0 {
			continue
		}
		at := i * bits.UintSize
		for len(words) <= at/wordBits {
			words = append(words, 0)
		}
		words[at/wordBits] |= uint64(w) << (at % wordBits)
	}
	return trim(words), nil
}

func (machine) SetAffinity(tid int32, cpus Set) error {
	mask := unix.NewCPUSet(len(cpus) * wordBits)
	for n := cpus.next(0, true); n >= 0; n = cpus.next(n+1, true) {
		mask.Set(n)
	}
	return unix.SchedSetaffinityDynamic(int(tid), mask)
}

func (machine) MigratePages(tgid int32, from, to Set) (left int, err error) {
	// One pair of masks of the same length; the kernel takes one bit less
	// than it is told.
	masks := make([]uint64, 2*max(len(from), len(to), 1))
	half := len(masks) / 2
	copy(masks, from)
	copy(masks[half:], to)
	r, _, errno := unix.Syscall6(unix.SYS_MIGRATE_PAGES, uintptr(tgid), uintptr(half*wordBits+1),
		uintptr(unsafe.Pointer(&masks[0])), uintptr(unsafe.Pointer(&masks[half])), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

func (m machine) Probe() (refusals []string) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil || caps[0].Effective&(1<<unix.CAP_SYS_NICE) == 0 {
		refusals = append(refusals, "the affinity of other users' tasks cannot be set: CAP_SYS_NICE is missing")
	}
	_, mems, err := m.Online()
	if err == nil {
		_, err = m.MigratePages(int32(os.Getpid()), mems, mems)
	}
	if err != nil {
		refusals = append(refusals, fmt.Sprintf("memory_migrate moves no pages: migrate_pages: %v", err))
	}
	return refusals
}
