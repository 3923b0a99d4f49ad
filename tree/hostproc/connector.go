package hostproc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoConnector is matched by the errors that say why the proc connector
// cannot be used by this process on this host.
var ErrNoConnector = errors.New("no proc connector")

const (
	mcastListen = 1
	mcastIgnore = 2

	// How long the kernel may take to acknowledge: it does so within the send.
	ackTime = 2 * time.Second

	batchSize = 128
	slotSize  = 256 // a message has about 80 bytes

	// A queued message is charged with at least this: its sk_buff and what
	// belongs to it. Measured: 832.
	minCharge = 512
)

// A connector is a socket that hears the kernel's proc events. One goroutine
// at a time may receive.
type connector struct {
	fd   int
	size int // of the receive buffer, as the kernel counts

	ledger ledger
	heard  atomic.Uint64 // messages received of whatever kind

	// overflow is set from the kernel's word that it dropped something until
	// the queue has been empty, which it must be before the kernel queues
	// again. It was, when so many messages came as cannot have been in it.
	overflow atomic.Bool
	left     uint64

	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	addrs [batchSize]unix.RawSockaddrNetlink
	slots [batchSize][slotSize]byte
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// dial opens the connector with a receive buffer of so many bytes and waits
// until the kernel has confirmed that it sends events.
func dial(buffer int) (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err == unix.EPROTONOSUPPORT || err == unix.EAFNOSUPPORT {
		return nil, noConnector("socket", "the kernel has none", err)
	} else if err != nil {
		return nil, &OpError{"socket", "proc connector", err}
	}
	c := &connector{fd: fd}
	c.prepare()
	if err := c.listen(buffer); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func noConnector(op, why string, err error) error {
	if err == nil {
		return &OpError{op, "proc connector", fmt.Errorf("%w: %s", ErrNoConnector, why)}
	}
	return &OpError{op, "proc connector", fmt.Errorf("%w: %s: %w", ErrNoConnector, why, err)}
}

// prepare says where a batch is to be put.
func (c *connector) prepare() {
	for i := range c.msgs {
		c.iovs[i].Base = &c.slots[i][0]
		c.iovs[i].SetLen(slotSize)
		h := &c.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&c.addrs[i]))
		h.Iov = &c.iovs[i]
		h.SetIovlen(1)
	}
}

func (c *connector) listen(buffer int) error {
	// Without the privilege the ordinary limit holds, which the kernel applies
	// silently; what came of it is read back.
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return &OpError{"set buffer", "proc connector", err}
		}
	}
	size, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return &OpError{"get buffer", "proc connector", err}
	}
	c.size = size
	err = unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc})
	if err == unix.EPERM {
		return noConnector("bind", "no privilege: CAP_NET_ADMIN is needed", err)
	} else if err != nil {
		return &OpError{"bind", "proc connector", err}
	}
	ack := rand.Uint32()
	err = c.control(mcastListen, ack)
	if err == unix.ECONNREFUSED || err == unix.EPERM {
		return noConnector("listen", "it is not in this network namespace", err)
	} else if err != nil {
		return &OpError{"listen", "proc connector", err}
	}
	return c.acknowledged(ack + 1)
}

// control asks the kernel to begin or end sending.
func (c *connector) control(op, ack uint32) error {
	var b [nlHeader + cnHeader + 4]byte
	native.PutUint32(b[0:], uint32(len(b)))
	native.PutUint16(b[4:], nlmsgDone)
	cn := b[nlHeader:]
	native.PutUint32(cn[0:], cnIdxProc)
	native.PutUint32(cn[4:], cnValProc)
	native.PutUint32(cn[12:], ack)
	native.PutUint16(cn[16:], 4)
	native.PutUint32(cn[cnHeader:], op)
	return unix.Sendto(c.fd, b[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// acknowledged waits for the answer to listen. The answers to other listeners
// come here too, hence a number of our own. Events before it are dropped:
// the resync that begins everything comes after.
func (c *connector) acknowledged(ack uint32) error {
	for end := time.Now().Add(ackTime); ; {
		left := time.Until(end)
		if left <= 0 {
			return noConnector("listen", "the kernel does not acknowledge: this process is not in the first pid and user namespace, or the kernel has no proc events", nil)
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return &OpError{"poll", "proc connector", err}
		}
		n, err := c.recvmmsg()
		if err == unix.ENOBUFS {
			c.overflowed()
			continue
		} else if err == unix.EAGAIN || err == unix.EINTR {
			continue
		} else if err != nil {
			return &OpError{"receive", "proc connector", err}
		}
		for i := range n {
			e, h, ok := c.message(i)
			if !ok || e.kind != kindNone || h.ack != ack {
				continue
			}
			if errno := unix.Errno(e.id[0]); errno == unix.EPERM {
				return noConnector("listen", "no privilege: CAP_NET_ADMIN is needed", errno)
			} else if errno != 0 {
				return &OpError{"listen", "proc connector", errno}
			}
			return nil
		}
	}
}

// close ends the kernel's sending for this socket, which closing alone does
// not: the kernel would count a listener for ever and make events for nobody.
func (c *connector) close() {
	c.control(mcastIgnore, 0)
	unix.Close(c.fd)
}

func (c *connector) recvmmsg() (int, error) {
	for i := range c.msgs {
		// The kernel writes the length of the name back.
		c.msgs[i].hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.msgs[0])),
		batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// message decodes what recvmmsg left in a slot and enters it in the ledger.
// Only the kernel, port 0, is believed.
func (c *connector) message(i int) (e event, h header, ok bool) {
	a := &c.addrs[i]
	m := &c.msgs[i]
	if m.hdr.Namelen != unix.SizeofSockaddrNetlink || a.Family != unix.AF_NETLINK || a.Pid != 0 || m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return e, h, false
	}
	return decode(c.slots[i][:min(m.len, slotSize)])
}

// What a receive tells of the queue.
type queue int

const (
	queueUnknown queue = iota // the kernel has dropped something, or its word was not had
	queueEmpty                // it had nothing
	queueEmptied              // it had no more, or what it had besides came meanwhile
	queueFull                 // it had as much as is taken at once
)

// receive appends the next batch of events to into. It returns EAGAIN when the
// queue is empty.
func (c *connector) receive(into []event) ([]event, queue, error) {
	n, err := c.recvmmsg()
	switch {
	case err == unix.ENOBUFS:
		// The kernel says so before it gives what was queued earlier.
		c.overflowed()
		return c.recover(into), queueUnknown, nil
	case err == unix.EINTR:
		return into, queueUnknown, nil
	case err == unix.EAGAIN && c.overflow.Load():
		c.left = 0
		return c.recover(into), queueUnknown, nil
	case err == unix.EAGAIN:
		return into, queueEmpty, err
	case err != nil:
		return into, queueUnknown, err
	}
	c.heard.Add(uint64(n))
	for i := range n {
		e, h, ok := c.message(i)
		if !ok {
			continue
		}
		// During an overflow the resync comes at its end.
		if !c.ledger.note(h) && !c.overflow.Load() {
			if lost := c.ledger.take(0); lost > 0 {
				into = append(into, event{kind: kindResync, lost: lost})
			}
		}
		switch e.kind {
		case kindFork, kindExec, kindExit, kindUID, kindGID:
			into = append(into, e)
		}
	}
	if c.overflow.Load() {
		c.left -= min(c.left, uint64(n))
		return c.recover(into), queueUnknown, nil
	}
	if n < batchSize {
		// An error ends a batch as well, and is told by the next receive.
		if c.broken() {
			return into, queueUnknown, nil
		}
		return into, queueEmptied, nil
	}
	return into, queueFull, nil
}

func (c *connector) overflowed() {
	c.left = c.queued()
	c.overflow.Store(true)
}

// recover ends an overflow if it can be over. As long as it is not there is something to
// receive, so that whoever waits for that ends it.
func (c *connector) recover(into []event) []event {
	if c.left > 0 && c.pending() {
		return into
	}
	c.overflow.Store(false)
	return append(into, event{kind: kindResync, lost: c.ledger.take(c.dropped())})
}

// pending is true when there is something to receive.
func (c *connector) pending() bool { return c.polls(unix.POLLIN) }

// broken is true when the kernel has something to say that comes before what is queued.
func (c *connector) broken() bool { return c.polls(0) }

func (c *connector) polls(events int16) bool {
	ready, err := pollNow(events, c.fd)
	return ready || err != nil
}

// queued is an upper bound of the number of messages in the socket's queue.
func (c *connector) queued() uint64 {
	m, ok := c.meminfo()
	if !ok {
		return uint64(c.size)/minCharge + 1
	}
	return uint64(m[unix.SK_MEMINFO_RMEM_ALLOC])/minCharge + 1
}

// dropped is the kernel's count of messages it did not queue.
func (c *connector) dropped() uint64 {
	m, _ := c.meminfo()
	return uint64(m[unix.SK_MEMINFO_DROPS])
}

func (c *connector) meminfo() (m [unix.SK_MEMINFO_VARS]uint32, ok bool) {
	size := uint32(unsafe.Sizeof(m))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(c.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0)
	return m, errno == 0
}
