package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"containerfs/p9srv/sock"
)

// Types of T-messages; a reply's is one more.
const (
	tlopen   = 12
	tgetattr = 24
	treaddir = 40
	tmkdir   = 72
	tversion = 100
	tattach  = 104
	twalk    = 110
	tread    = 116
	twrite   = 118
	tclunk   = 120
	tremove  = 122

	rlerror = 7
)

const (
	headerSize = 7 // size[4] type[1] tag[2]
	msize      = 64 << 10
	noTag      = 0xffff
	noFid      = 0xffffffff
)

var le = binary.LittleEndian

// begin appends a header whose size end fills in.
func begin(b []byte, typ byte, tag uint16) []byte {
	return append(b, 0, 0, 0, 0, typ, byte(tag), byte(tag>>8))
}

func end(b []byte, start int) []byte {
	le.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint16(b, uint16(len(s))), s...)
}

func appendAttach(b []byte, fid uint32, aname string) []byte {
	start := len(b)
	b = begin(b, tattach, 0)
	b = le.AppendUint32(b, fid)
	b = le.AppendUint32(b, noFid)
	b = appendString(b, "root")
	b = appendString(b, aname)
	return end(le.AppendUint32(b, 0), start)
}

func appendWalk(b []byte, tag uint16, fid, newfid uint32, names ...string) []byte {
	start := len(b)
	b = begin(b, twalk, tag)
	b = le.AppendUint32(b, fid)
	b = le.AppendUint32(b, newfid)
	b = le.AppendUint16(b, uint16(len(names)))
	for _, name := range names {
		b = appendString(b, name)
	}
	return end(b, start)
}

func appendOpen(b []byte, tag uint16, fid, flags uint32) []byte {
	start := len(b)
	b = begin(b, tlopen, tag)
	b = le.AppendUint32(b, fid)
	return end(le.AppendUint32(b, flags), start)
}

// appendRead is a Tread or a Treaddir.
func appendRead(b []byte, typ byte, tag uint16, fid uint32, offset uint64, count uint32) []byte {
	start := len(b)
	b = begin(b, typ, tag)
	b = le.AppendUint32(b, fid)
	b = le.AppendUint64(b, offset)
	return end(le.AppendUint32(b, count), start)
}

func appendWrite(b []byte, tag uint16, fid uint32, data []byte) []byte {
	start := len(b)
	b = begin(b, twrite, tag)
	b = le.AppendUint32(b, fid)
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, uint32(len(data)))
	return end(append(b, data...), start)
}

func appendClunk(b []byte, tag uint16, fid uint32) []byte {
	start := len(b)
	return end(le.AppendUint32(begin(b, tclunk, tag), fid), start)
}

func appendGetattr(b []byte, tag uint16, fid uint32) []byte {
	start := len(b)
	b = le.AppendUint32(begin(b, tgetattr, tag), fid)
	return end(le.AppendUint64(b, 0x7ff), start) // P9_GETATTR_BASIC, as Linux asks
}

func appendMkdir(b []byte, tag uint16, fid uint32, name string) []byte {
	start := len(b)
	b = le.AppendUint32(begin(b, tmkdir, tag), fid)
	b = appendString(b, name)
	b = le.AppendUint32(b, 0o755)
	return end(le.AppendUint32(b, 0), start)
}

func appendRemove(b []byte, tag uint16, fid uint32) []byte {
	start := len(b)
	return end(le.AppendUint32(begin(b, tremove, tag), fid), start)
}

// errFrame is a reply that makes no sense.
var errFrame = errors.New("malformed frame")

// conn is a connection. Replies are taken from in[r:w].
type conn struct {
	net.Conn
	from *sock.Reader
	to   *sock.Writer
	in   []byte
	r, w int
	out  []byte
}

func newConn(nc net.Conn) (*conn, error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	_ = sock.RefuseRights(raw) // as containerfs does, where the kernel can
	from := sock.NewReader(raw)
	return &conn{Conn: nc, from: from, to: from.Writer(), in: make([]byte, 256<<10)}, nil
}

// dial connects and attaches: fid 0 is the root of aname.
func dial(at place, aname string) (*conn, error) {
	nc, err := net.Dial(at.network, at.address)
	if err != nil {
		return nil, err
	}
	c, err := newConn(nc)
	if err != nil {
		return nil, err
	}
	c.out = begin(nil, tversion, noTag)
	c.out = le.AppendUint32(c.out, msize)
	c.out = end(appendString(c.out, "9P2000.L"), 0)
	reply, err := c.ask()
	if err == nil && le.Uint32(reply) != msize {
		err = fmt.Errorf("msize %d", le.Uint32(reply))
	}
	if err == nil {
		c.out = appendAttach(c.out, 0, aname)
		_, err = c.ask()
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%s: attach %q: %w", at.address, aname, err)
	}
	return c, nil
}

// send writes what is in out.
func (c *conn) send() error {
	err := c.to.WriteAll(c.out)
	c.out = c.out[:0]
	return err
}

// ask sends the one request in out and returns the body of its reply.
func (c *conn) ask() ([]byte, error) {
	if err := c.send(); err != nil {
		return nil, err
	}
	for {
		frame, err := c.frame()
		if err != nil {
			return nil, err
		}
		if frame != nil {
			return frame[headerSize:], replyError(frame)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

func replyError(frame []byte) error {
	if frame[4] == rlerror && len(frame) >= headerSize+4 {
		return fmt.Errorf("errno %d", le.Uint32(frame[headerSize:]))
	}
	return nil
}

// fill waits for more of what the server sends.
func (c *conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	n, err := c.from.Read(c.in[c.w:])
	c.w += n
	return err
}

// frame takes the next whole frame, nil if there is none. It is valid until fill.
func (c *conn) frame() ([]byte, error) {
	if c.w-c.r < headerSize {
		return nil, nil
	}
	size := int(le.Uint32(c.in[c.r:]))
	if size < headerSize || size > msize {
		return nil, errFrame
	}
	if c.w-c.r < size {
		return nil, nil
	}
	f := c.in[c.r : c.r+size]
	c.r += size
	return f, nil
}
