package cpuacct

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of generic netlink and of taskstats, include/uapi/linux/genetlink.h
// and taskstats.h.
const (
	genlCtrl       = 16 // family
	ctrlGetFamily  = 3
	ctrlFamilyID   = 1 // attributes
	ctrlFamilyName = 2

	taskstatsGet = 1
	taskstatsNew = 2

	getPID          = 1 // attributes of a request
	registerCPUMask = 3

	typeMask = 0x3fff // of an attribute: the rest are flags

	typePID     = 1 // attributes of an answer
	typeStats   = 3
	typeAggrPID = 4

	nlHeader   = 16
	genlHeader = 4
)

// Positions in struct taskstats. Those behind maxima that Linux put in the
// middle, and later moved to the end, are further back in some versions.
const (
	statsRun    = 72 // cpu_run_virtual_total, ns: the scheduler's
	statsPID    = 128
	statsUser   = 152 // µs
	statsSystem = 160
	statsLength = 168
)

// shifts are how much further back, in the versions that there were: none, with
// maxima, with minima too, each of three delays that come before.
var shifts = []int{0, 3 * 8, 3 * 16}

// taskstatsBuffer holds some 10,000 records.
const taskstatsBuffer = 16 << 20

// taskstats receives the records of the tasks of all CPUs that exit.
type taskstats struct {
	file *os.File
	raw  interface {
		Read(func(uintptr) bool) error
	}
	family uint16
	shift  int
}

func openTaskstats() (watcher, error) {
	t := new(taskstats)
	if err := t.open(); err != nil {
		t.close()
		return nil, fmt.Errorf("taskstats: %w", err)
	}
	return t, nil
}

func (t *taskstats) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if err != nil {
		return err
	}
	t.file = os.NewFile(uintptr(fd), "taskstats")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, taskstatsBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, taskstatsBuffer)
	}
	answer, err := t.ask(genlCtrl, ctrlGetFamily, attribute(ctrlFamilyName, []byte("TASKSTATS\x00")))
	if err != nil {
		return err
	}
	id := find(answer, ctrlFamilyID)
	if len(id) != 2 {
		return unix.EPROTO
	}
	t.family = binary.NativeEndian.Uint16(id)

	self := uint32(os.Getpid())
	answer, err = t.ask(t.family, taskstatsGet, attribute(getPID, binary.NativeEndian.AppendUint32(nil, self)))
	if err != nil {
		return err
	}
	if t.shift, err = shiftOf(find(find(answer, typeAggrPID), typeStats), self); err != nil {
		return err
	}
	cpus, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return err
	}
	mask := append(bytes.TrimSpace(cpus), 0)
	if _, err = t.ask(t.family, taskstatsGet, attribute(registerCPUMask, mask)); err != nil {
		return err
	}
	t.raw, err = t.file.SyscallConn()
	return err
}

// shiftOf finds out how a version has the structure: it is asked for a task with
// a known number.
func shiftOf(stats []byte, pid uint32) (int, error) {
	for _, shift := range shifts {
		if len(stats) >= statsLength+shift && binary.NativeEndian.Uint32(stats[statsPID+shift:]) == pid {
			return shift, nil
		}
	}
	return 0, fmt.Errorf("records of %d bytes in an unknown layout: %w", len(stats), unix.ENOTSUP)
}

// ask sends a request to a family and returns the attributes of its answer, none
// for an acknowledgement.
func (t *taskstats) ask(family uint16, command byte, attrs []byte) ([]byte, error) {
	fd := int(t.file.Fd()) // stays as it is: no deadline is set
	ne := binary.NativeEndian
	m := ne.AppendUint32(nil, uint32(nlHeader+genlHeader+len(attrs)))
	m = ne.AppendUint16(m, family)
	m = ne.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = append(m, make([]byte, 8)...) // sequence and port
	m = append(m, command, 1, 0, 0)
	m = append(m, attrs...)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var answer []byte
	buf := make([]byte, 16<<10)
	for deadline := time.Now().Add(time.Second); ; {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			left := int(time.Until(deadline).Milliseconds())
			if left <= 0 {
				return nil, unix.ETIMEDOUT
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, left)
			continue
		} else if err != nil {
			return nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue // not the kernel's
		}
		for kind, body := range messages(buf[:n]) {
			switch {
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if errno := -int32(ne.Uint32(body)); errno != 0 {
					return nil, unix.Errno(errno)
				}
				return answer, nil
			case kind == family && len(body) >= genlHeader:
				answer = bytes.Clone(body[genlHeader:])
			}
		}
	}
}

// run is watcher's.
func (t *taskstats) run(ended func([]Final)) {
	const most = 256
	buf := make([]byte, 16<<10)
	batch := make([]Final, 0, most)
	_ = t.raw.Read(func(fd uintptr) (done bool) {
		for err := error(nil); ; {
			var n int
			var from unix.Sockaddr
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			if nl, ok := from.(*unix.SockaddrNetlink); err == nil && ok && nl.Pid == 0 {
				batch = t.decode(buf[:n], batch)
			}
			if len(batch) > 0 && (err == unix.EAGAIN || len(batch) >= most/2) {
				ended(batch)
				batch = batch[:0]
			}
			switch err {
			case nil, unix.EINTR, unix.ENOBUFS: // what was dropped never comes
			case unix.EAGAIN:
				return false
			default:
				return true
			}
		}
	})
}

// decode appends the records in a datagram.
func (t *taskstats) decode(datagram []byte, fs []Final) []Final {
	for kind, body := range messages(datagram) {
		if kind != t.family || len(body) < genlHeader || body[0] != taskstatsNew {
			continue
		}
		task := find(body[genlHeader:], typeAggrPID)
		if f, ok := decodeStats(find(task, typePID), find(task, typeStats), t.shift); ok {
			fs = append(fs, f)
		}
	}
	return fs
}

func decodeStats(pid, stats []byte, shift int) (f Final, ok bool) {
	if len(pid) != 4 || len(stats) < statsLength+shift {
		return f, false
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(stats[i+shift:]) }
	f = Final{TID: int32(binary.NativeEndian.Uint32(pid)), Times: Times{
		Run:    at(statsRun),
		User:   at(statsUser) * uint64(time.Microsecond),
		System: at(statsSystem) * uint64(time.Microsecond),
	}}
	return f, f.TID > 0
}

// close is watcher's: it ends run's wait.
func (t *taskstats) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// messages yields the kinds and bodies of the netlink messages in b, as far as
// they are whole.
func messages(b []byte) func(func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= nlHeader {
			size := int64(binary.NativeEndian.Uint32(b))
			if size < nlHeader || size > int64(len(b)) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[4:]), b[nlHeader:size]) {
				return
			}
			b = b[min(int(size+3)&^3, len(b)):]
		}
	}
}

// find is the value of the first attribute of a type, nil where there is none.
func find(attrs []byte, kind uint16) []byte {
	const header = 4
	for len(attrs) >= header {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < header || size > len(attrs) {
			return nil
		}
		if binary.NativeEndian.Uint16(attrs[2:])&typeMask == kind {
			return attrs[header:size]
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return nil
}

// attribute is one attribute with its padding.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}
