package ns

import (
	"errors"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// kinds are the files of /proc/<pid>/ns.
var kinds = [...]string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// Set is the namespaces of a process: their inode numbers in the order of kinds, 0
// for a kind that the kernel lacks.
type Set [len(kinds)]uint64

// Host is what ns needs of the machine.
type Host interface {
	// Namespaces are those of a process's first thread: ESRCH when it is
	// gone or on its way.
	Namespaces(pid int32) (Set, error)
}

// NewHost is the machine that the server runs on.
func NewHost() Host {
	var m machine
	for i, kind := range kinds {
		m.has[i] = unix.Access("/proc/self/ns/"+kind, unix.F_OK) == nil
	}
	return m
}

type machine struct{ has [len(kinds)]bool }

// Namespaces is Host's.
func (m machine) Namespaces(pid int32) (Set, error) {
	return settled(func() (Set, error) { return m.read(pid) })
}

// maxReads bounds how often namespaces are read that change all the time.
const maxReads = 16

// settled reads until two sets in a row are the same. A process gets several new
// namespaces at once, and they are read one after the other: one set alone can be half
// of before and half of after, which the process never had.
func settled(read func() (Set, error)) (Set, error) {
	set, err := read()
	for range maxReads {
		if err != nil {
			break
		}
		was := set
		if set, err = read(); set == was {
			break
		}
	}
	return set, err
}

func (m machine) read(pid int32) (set Set, err error) {
	dir := strconv.Itoa(int(pid)) + "/ns/"
	var buf [64]byte
	for i, kind := range kinds {
		if !m.has[i] {
			continue
		}
		n, err := unix.Readlinkat(kernfs.Proc(), dir+kind, buf[:])
		if errors.Is(err, unix.ENOENT) {
			return Set{}, unix.ESRCH
		}
		if err != nil {
			return Set{}, err
		}
		if set[i], err = parseLink(string(buf[:n]), kind); err != nil {
			return Set{}, err
		}
	}
	return set, nil
}

// parseLink reads what a file of /proc/<pid>/ns links to, kind:[number].
func parseLink(link, kind string) (uint64, error) {
	number, ok := strings.CutPrefix(link, kind+":[")
	if number, closed := strings.CutSuffix(number, "]"); ok && closed {
		if n, err := strconv.ParseUint(number, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, syscall.EIO
}
