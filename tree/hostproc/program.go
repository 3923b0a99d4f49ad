package hostproc

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// Program returns the effective uid of a process and the file that it executes,
// "" where there is none or it cannot be seen; ESRCH when the process is gone.
func (h *Host) Program(tgid int32) (uid uint32, exe string, err error) {
	s, err := h.proc.status(tgid)
	if err != nil {
		return 0, "", failTask("program of", tgid, err)
	}
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(h.proc.fd, strconv.Itoa(int(tgid))+"/exe", buf[:])
	if err != nil {
		return s.euid, "", nil
	}
	// The kernel says so of a program that was replaced while it runs.
	return s.euid, string(bytes.TrimSuffix(buf[:n], []byte(" (deleted)"))), nil
}
