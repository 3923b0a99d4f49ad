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
	return s.euid, h.proc.exe(tgid), nil
}

// exe is the file that a thread executes, "" where there is none or it cannot be
// seen.
func (p *procFS) exe(tid int32) string {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(p.fd, strconv.Itoa(int(tid))+"/exe", buf[:])
	if err != nil {
		return ""
	}
	// The kernel says so of a program that was replaced while it runs.
	return string(bytes.TrimSuffix(buf[:n], []byte(" (deleted)")))
}
