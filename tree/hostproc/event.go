package hostproc

import "encoding/binary"

// What a proc connector event is, include/uapi/linux/cn_proc.h. A queue entry
// has two kinds of our own beside them.
type kind uint32

const (
	kindNone   kind = 0 // the acknowledgement of a listener
	kindFork   kind = 0x00000001
	kindExec   kind = 0x00000002
	kindUID    kind = 0x00000004
	kindGID    kind = 0x00000040
	kindExit   kind = 0x80000000
	kindResync kind = 0xffffffff
)

// An event is a decoded message of the connector, or a resync. Which of the
// four numbers means what depends on the kind:
//
//	fork      parent tid, parent tgid, child tid, child tgid
//	exec exit tid, tgid
//	uid gid   tid, tgid, real id, effective id
//	none      error
type event struct {
	kind kind
	id   [4]uint32
	ts   int64  // CLOCK_MONOTONIC ns
	lost uint64 // resync: how many events
}

// Sizes and positions in a message: nlmsghdr, cn_msg, proc_event.
const (
	nlHeader   = 16
	cnHeader   = 20
	eventFixed = 16
	minMessage = nlHeader + cnHeader + eventFixed

	cnIdxProc = 1
	cnValProc = 1

	nlmsgDone = 3
)

// A header is what a message says of itself beside the event.
type header struct {
	seq uint32 // of the CPU's events
	ack uint32
	cpu uint32
}

var native = binary.NativeEndian

// decode reads one netlink message of the proc connector. It does not accept
// other messages; events of kinds without use here come with no ids.
func decode(b []byte) (e event, h header, ok bool) {
	if len(b) < minMessage {
		return e, h, false
	}
	size := native.Uint32(b)
	if size < minMessage || uint64(size) > uint64(len(b)) || native.Uint16(b[4:]) != nlmsgDone {
		return e, h, false
	}
	cn := b[nlHeader:size]
	if native.Uint32(cn) != cnIdxProc || native.Uint32(cn[4:]) != cnValProc {
		return e, h, false
	}
	h.seq, h.ack = native.Uint32(cn[8:]), native.Uint32(cn[12:])
	n := int(native.Uint16(cn[16:]))
	data := cn[cnHeader:]
	if n < eventFixed || n > len(data) {
		return e, h, false
	}
	data = data[:n]
	e.kind = kind(native.Uint32(data))
	h.cpu = native.Uint32(data[4:])
	e.ts = int64(native.Uint64(data[8:]))
	ids := 0
	switch e.kind {
	case kindNone:
		ids = 1
	case kindExec, kindExit:
		ids = 2
	case kindFork, kindUID, kindGID:
		ids = 4
	case kindResync: // ours, not the kernel's
		return e, h, false
	}
	data = data[eventFixed:]
	if len(data) < 4*ids {
		return e, h, false
	}
	for i := range ids {
		e.id[i] = native.Uint32(data[4*i:])
	}
	return e, h, true
}

// A ledger finds out how many events were lost. The kernel numbers the events
// of each CPU, so a gap is a loss; and it counts what it could not queue, which
// shows at once what gaps show only with the CPU's next event. Both see the
// same losses but for two: the first events of a CPU are in no gap, and events
// for which the kernel had no memory are not in its count.
type ledger struct {
	cpus     []cpuSeq
	gaps     uint64
	reported uint64
}

type cpuSeq struct {
	seen bool
	last uint32
}

// The kernel's own limit is 8192; more is not believed.
const maxCPUs = 1 << 16

// note enters a message and returns false if its number does not continue that
// of the CPU's last.
func (l *ledger) note(h header) bool {
	if h.cpu >= maxCPUs {
		return true
	}
	for int(h.cpu) >= len(l.cpus) {
		l.cpus = append(l.cpus, cpuSeq{})
	}
	c := &l.cpus[h.cpu]
	gap := h.seq - c.last - 1
	seen := c.seen
	c.seen, c.last = true, h.seq
	if !seen || gap == 0 {
		return true
	}
	// A number that goes back has no place in the kernel's scheme. Nobody
	// knows how much is missing; it must not pass as nothing.
	if gap >= 1<<31 {
		gap = 1
	}
	l.gaps += uint64(gap)
	return false
}

// take returns the losses that were not returned before, of which the kernel
// has counted so many in all.
func (l *ledger) take(counted uint64) uint64 {
	known := max(l.gaps, counted)
	if known <= l.reported {
		return 0
	}
	lost := known - l.reported
	l.reported = known
	return lost
}
