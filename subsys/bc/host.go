package bc

import (
	"bytes"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// Usage is what one process holds. What counts processes is not in it.
type Usage [resources]int64

// Host is what bc needs of the machine. Methods may be called concurrently.
type Host interface {
	// Measures says which resources Usage tells of.
	Measures() [resources]bool

	// Usage is what the process of a thread holds: ESRCH when it is gone.
	Usage(tid int32) (Usage, error)

	// Limits says whether the rlimits of any process can be set.
	Limits() bool

	// Rlimit returns the limit that the process of a thread has on a resource
	// that is capped, and sets another unless that is nil: ESRCH when it is gone.
	Rlimit(tid int32, r resource, set *Rlimit) (was Rlimit, err error)
}

// NewHost is the machine that the server runs on.
func NewHost() Host {
	m := &machine{page: int64(os.Getpagesize())}
	m.bufs.New = func() any { b := make([]byte, 8<<10); return &b }
	return m
}

type machine struct {
	page int64
	bufs sync.Pool
}

// Measures is Host's. Memory is everybody's to see, but who has what open is not.
func (m *machine) Measures() (can [resources]bool) {
	_, memory := m.memory(int32(os.Getpid()))
	_, files := countFiles(int32(os.Getpid()))
	can[numfile] = files == nil && os.Geteuid() == 0
	can[physpages], can[lockedpages] = memory == nil, memory == nil
	return can
}

// Usage is Host's.
func (m *machine) Usage(tid int32) (Usage, error) {
	u, err := m.memory(tid)
	if err != nil {
		return Usage{}, err
	}
	u[numfile], err = countFiles(tid)
	return u, err
}

// Limits is Host's.
func (m *machine) Limits() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// Rlimit is Host's. The kernel counts locked memory in bytes.
func (m *machine) Rlimit(tid int32, r resource, set *Rlimit) (Rlimit, error) {
	kind, unit := unix.RLIMIT_NOFILE, uint64(1)
	if r == lockedpages {
		kind, unit = unix.RLIMIT_MEMLOCK, uint64(m.page)
	}
	var was unix.Rlimit
	var is *unix.Rlimit
	if set != nil {
		is = &unix.Rlimit{Cur: times(set.Soft, unit), Max: times(set.Hard, unit)}
	}
	if err := unix.Prlimit(int(tid), kind, is, &was); err != nil {
		return Rlimit{}, err
	}
	return Rlimit{over(was.Cur, unit), over(was.Max, unit)}, nil
}

// times and over convert limits, of which the greatest is none in any unit.
func times(n, unit uint64) uint64 {
	if n > noRlimit/unit {
		return noRlimit
	}
	return n * unit
}

func over(n, unit uint64) uint64 {
	if n == noRlimit {
		return n
	}
	return n / unit
}

// countFiles is the number of descriptors of a thread.
func countFiles(tid int32) (int64, error) {
	dir := strconv.Itoa(int(tid)) + "/fd"
	var st unix.Stat_t
	if err := unix.Fstatat(kernfs.Proc(), dir, &st, 0); err != nil {
		return 0, gone(err)
	}
	if st.Size > 0 {
		return st.Size, nil // since Linux 6.2
	}
	fd, err := unix.Openat(kernfs.Proc(), dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, gone(err)
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	entries, err := d.Readdirnames(-1)
	return int64(len(entries)), gone(err)
}

// memory is what /proc/<tid>/status tells.
func (m *machine) memory(tid int32) (u Usage, err error) {
	fd, err := unix.Openat(kernfs.Proc(), strconv.Itoa(int(tid))+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return u, gone(err)
	}
	defer unix.Close(fd)
	buf := m.bufs.Get().(*[]byte)
	defer m.bufs.Put(buf)
	n, err := unix.Read(fd, *buf)
	if err != nil {
		return u, gone(err)
	}
	locked, resident := parseStatus((*buf)[:n])
	u[lockedpages], u[physpages] = locked/m.page, resident/m.page
	return u, nil
}

// parseStatus finds VmLck and VmRSS, in bytes. A kernel thread has neither, nor has
// a process that is ending: it holds nothing.
func parseStatus(text []byte) (locked, resident int64) {
	for line := range bytes.Lines(text) {
		if v, ok := bytes.CutPrefix(line, []byte("VmLck:")); ok {
			locked = kilobytes(v)
		} else if v, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			return locked, kilobytes(v) // which comes later
		}
	}
	return locked, resident
}

// kilobytes reads a number of kB, 0 where there is none.
func kilobytes(v []byte) int64 {
	digits, ok := bytes.CutSuffix(bytes.TrimSpace(v), []byte(" kB"))
	n, err := strconv.ParseUint(string(digits), 10, 63-10)
	if !ok || err != nil {
		return 0
	}
	return int64(n) << 10
}

// gone is ESRCH for what is not there any more.
func gone(err error) error {
	if os.IsNotExist(err) {
		return unix.ESRCH
	}
	return err
}
