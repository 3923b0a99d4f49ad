package persist

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"sync"

	"containerfs/p9srv/wire"
)

// maxQueue is how many bytes may wait to be written before no more is read that adds to them.
const maxQueue = 1 << 20

// stream is one end's connection: frames are read by one goroutine, and written by another.
type stream struct {
	conn net.Conn
	in   *bufio.Reader

	// Under Relay.mu:
	out    []byte // what is not being written yet
	closed bool
	cond   sync.Cond // out or closed has changed
}

func newStream(mu *sync.Mutex, conn net.Conn, in *bufio.Reader) *stream {
	s := &stream{conn: conn, in: in}
	s.cond.L = mu
	return s
}

// write writes what is put until the stream is closed, and then what is left.
func (s *stream) write() error {
	var buf []byte
	s.cond.L.Lock()
	defer s.cond.L.Unlock()
	for {
		for len(s.out) == 0 && !s.closed {
			s.cond.Wait()
		}
		if len(s.out) == 0 {
			return nil
		}
		buf, s.out = s.out, buf[:0]
		s.cond.Broadcast()
		s.cond.L.Unlock()
		_, err := s.conn.Write(buf)
		s.cond.L.Lock()
		if err != nil {
			return err
		}
		if cap(buf) > 2*maxQueue {
			buf = nil
		}
	}
}

// putLocked has bytes written.
func (s *stream) putLocked(b []byte) {
	if !s.closed {
		s.out = append(s.out, b...)
		s.cond.Broadcast()
	}
}

// awaitLocked waits until there is room for more.
func (s *stream) awaitLocked() {
	for len(s.out) > maxQueue && !s.closed {
		s.cond.Wait()
	}
}

// closeLocked ends the writing.
func (s *stream) closeLocked() {
	s.closed = true
	s.cond.Broadcast()
}

var errFrame = errors.New("frame size out of bounds")

// readFrame reads a frame into room, or into new memory.
func readFrame(in *bufio.Reader, bound uint32, room []byte) ([]byte, error) {
	head, err := in.Peek(4)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size := wire.LE.Uint32(head)
	if size < wire.HeaderSize || size > bound {
		return nil, errFrame
	}
	b := slices.Grow(room[:0], int(size))[:size]
	_, err = io.ReadFull(in, b)
	return b, err
}
