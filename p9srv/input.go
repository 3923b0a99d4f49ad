package p9srv

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/p9srv/sock"
	"containerfs/p9srv/wire"
)

// maxFirstFrame bounds frames before a version is agreed on.
const maxFirstFrame = 8 << 10

// maxKept is how much of a frame is kept. Nothing that any request says is longer but
// the data of a write, which is too long for a command by then: what is left of it is
// for the File to see that it is, and the rest is dropped as it comes.
const maxKept = 1 << minBufferShift

// input is what has arrived and is not served yet. While the session waits with
// nothing unfinished, it has no buffer.
type input struct {
	buf  *buffer
	r, w int // the unserved bytes are buf.b[r:w]
	skip int // so many bytes are the end of a frame that was too long to keep

	conn net.Conn
	raw  syscall.RawConn // of conn, if it is the kernel's own
	sock *sock.Reader    // of raw
	try  func(fd uintptr) bool
	n    int // what tryRead has read
	err  error

	// Of a connection that is not the kernel's own, such as TLS, nobody says when
	// it is readable. The read that waits is into this, the next one into a buffer
	// if there seems to be more.
	first []byte
	more  bool

	due bool // a deadline for reads is set
}

func (in *input) open(conn net.Conn) {
	in.conn = conn
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			in.raw, in.sock, in.try = raw, sock.NewReader(raw), in.tryRead
			return
		}
	}
	in.first = make([]byte, firstRead)
}

// firstRead is what an idle connection is read by if it is not the kernel's own:
// some small requests.
const firstRead = 512

// partial reports whether there are bytes of an unfinished frame.
func (in *input) partial() bool { return in.w > in.r }

// unfinished reports whether a frame has begun and not ended.
func (in *input) unfinished() bool { return in.partial() || in.skip > 0 }

// fill waits for more bytes.
func (in *input) fill() error {
	var err error
	in.n, in.err = 0, nil
	if in.raw != nil {
		if err = in.raw.Read(in.try); err == nil {
			err = in.err
		}
	} else {
		err = in.read()
	}
	if in.n > 0 {
		in.w += in.n
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// read is fill for a connection that is not the kernel's own.
func (in *input) read() (err error) {
	if in.partial() || in.more {
		in.makeRoom()
		in.n, err = in.conn.Read(in.buf.b[in.w:])
		in.more = in.n == len(in.buf.b)-in.w
		return err
	}
	in.release()
	in.n, err = in.conn.Read(in.first)
	in.makeRoom()
	copy(in.buf.b, in.first[:in.n])
	in.more = in.n == len(in.first)
	return err
}

// makeRoom provides for a read: an unfinished frame moves to the front. It never
// fills the buffer, which holds all that is kept of one.
func (in *input) makeRoom() {
	switch {
	case in.buf == nil:
		in.buf = getBuffer(0)
		in.r, in.w = 0, 0
		in.buf.b = in.buf.b[:cap(in.buf.b)]
	case in.r == in.w:
		in.r, in.w = 0, 0
	case in.r > 0:
		in.w = copy(in.buf.b, in.buf.b[in.r:in.w])
		in.r = 0
	}
}

// tryRead is called by the runtime when the connection may be readable, and
// before it parks the goroutine.
func (in *input) tryRead(fd uintptr) bool {
	in.makeRoom()
	n, err := in.sock.TryRead(fd, in.buf.b[in.w:])
	switch err {
	case unix.EAGAIN:
		if !in.partial() {
			in.release()
		}
		return false
	case nil:
		in.n = n
	default:
		in.err = os.NewSyscallError("read", err)
	}
	return true
}

func (in *input) release() {
	putBuffer(in.buf)
	in.buf, in.r, in.w = nil, 0, 0
}

// frame returns the next frame, or nil: whole, or the first maxKept bytes of it. It
// stays valid until fill.
func (in *input) frame(bound uint32) ([]byte, error) {
	n := min(in.skip, in.w-in.r)
	in.r, in.skip = in.r+n, in.skip-n
	if in.w-in.r < 4 {
		return nil, nil
	}
	size := wire.LE.Uint32(in.buf.b[in.r:])
	if size < wire.HeaderSize || size > bound {
		return nil, errFrameSize
	}
	kept := min(int(size), maxKept)
	if in.w-in.r < kept {
		return nil, nil
	}
	f := in.buf.b[in.r : in.r+kept]
	in.r += kept
	if in.skip = int(size) - kept; in.skip > 0 && isWrite(f, size) {
		wire.LE.PutUint32(f[writeCount:], uint32(kept-writeData))
	}
	return f, nil
}

// Where a Twrite has its count and its data, in both dialects.
const (
	writeCount = wire.HeaderSize + 4 + 8
	writeData  = writeCount + 4
)

// isWrite reports whether a frame of so many bytes is a write of all that follows.
func isWrite(f []byte, size uint32) bool {
	return f[4] == msgTwrite && wire.LE.Uint32(f[writeCount:]) == size-writeData
}

// startVersionClock begins the time in which a version must be agreed on.
func (s *session) startVersionClock() { s.versionDue = time.Now().Add(s.srv.cfg.VersionTimeout) }

// setReadDeadline says how long the next read may take: until the version is
// due, until the frame that has begun is due, or for ever. fresh is set when a
// frame was served since the last call: then what is there is another frame's.
func (s *session) setReadDeadline(fresh bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due time.Time
	switch {
	case s.ending:
		return nil // end has set it, for good
	case s.dialect == nil:
		due = s.versionDue
	case !s.in.unfinished():
		if !s.in.due {
			return nil
		}
	case s.in.due && !fresh:
		return nil
	default:
		due = time.Now().Add(s.srv.cfg.FrameTimeout)
	}
	s.in.due = !due.IsZero()
	return s.conn.SetReadDeadline(due)
}

// readError tells the end of input that the session has itself asked for from others.
func (s *session) readError(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return io.EOF
	}
	return errTimeout
}

var errTimeout = errors.New("peer took too long to finish a message")
