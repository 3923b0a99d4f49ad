package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// serveFloor answers every request with a constant that a client could take for
// true. Nothing about it is looked up: what there is to read is told by the number
// of the fid. With the root of a cgroup hierarchy, tasks are moved there.
func serveFloor(stdout io.Writer, unixSocket string, root *kernfs.Dir) error {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	unix, err := net.Listen("unix", unixSocket)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, tcp.Addr())
	failed := make(chan error)
	for _, l := range []net.Listener{tcp, unix} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go answer(c, root)
			}
		}()
	}
	return <-failed
}

// answer reads what there is, answers it, and writes all answers at once.
func answer(nc net.Conn, root *kernfs.Dir) error {
	defer nc.Close()
	c, err := newConn(nc)
	if err != nil {
		return err
	}
	m := mover{root: root}
	for {
		if err := c.fill(); err != nil {
			return err
		}
		for {
			f, err := c.frame()
			if err != nil {
				return err
			}
			if f == nil {
				break
			}
			if root != nil {
				if err := m.request(f); err != nil {
					return err
				}
			}
			if c.out, err = appendConstant(c.out, f); err != nil {
				return err
			}
			if len(c.out) > 256<<10 {
				if err := c.send(); err != nil {
					return err
				}
			}
		}
		if err := c.send(); err != nil {
			return err
		}
	}
}

// mover does what the kernel has to do for the requests of a connection that move tasks,
// and nothing else: by an open file, each task between two directories of its own.
type mover struct {
	root   *kernfs.Dir
	second [maxSlots]bool // whether a slot has walked to its second container
}

func (m *mover) request(f []byte) error {
	typ, body := f[4], f[headerSize:]
	switch typ {
	case twalk:
		if to := le.Uint32(body[4:]); to >= fidSmall {
			m.second[to-fidSmall] = le.Uint32(body) >= fidDirs+secondDir
		}
	case twrite:
		pid := string(body[16:])
		dir := pid + ".0"
		if m.second[le.Uint32(body)-fidSmall] {
			dir = pid + ".1"
		}
		id, err := strconv.ParseInt(pid, 10, 32)
		if err != nil {
			return err
		}
		if err = m.root.Move(dir, int32(id), false); !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := m.root.Make(dir); err != nil {
			return err
		}
		return m.root.Move(dir, int32(id), false)
	}
	return nil
}

var (
	zeros   [msize]byte
	errType = errors.New("the floor has no answer to that")
)

func appendConstant(b, f []byte) ([]byte, error) {
	typ, tag, body := f[4], le.Uint16(f[5:]), f[headerSize:]
	start := len(b)
	b = begin(b, typ+1, tag)
	n := 0 // bytes of the answer, all 0
	switch typ {
	case tversion:
		b = append(b, body...)
	case tattach, tmkdir:
		n = 13
	case tlopen:
		n = 17
	case tgetattr:
		n = 8 + 13 + 12 + 15*8
	case twalk:
		names := le.Uint16(body[8:])
		b = le.AppendUint16(b, names)
		n = 13 * int(names)
	case tclunk, tremove:
	case twrite:
		b = append(b, body[12:16]...)
	case tread:
		fid, offset, count := le.Uint32(body), le.Uint64(body[4:]), le.Uint32(body[12:])
		n = int(min(uint64(count), size(fid)-min(size(fid), offset)))
		b = le.AppendUint32(b, uint32(n))
	case treaddir:
		return appendEntries(b, start, body), nil
	default:
		return nil, errType
	}
	return end(append(b, zeros[:n]...), start), nil
}

// size is that of the file behind a fid, with numbers of six bytes.
func size(fid uint32) uint64 {
	switch {
	case fid >= fidMany:
		return 60000
	case fid >= fidKilo:
		return 6000
	}
	return 2
}

const entrySize = 24 + 6

func appendEntries(b []byte, start int, body []byte) []byte {
	fid, at, count := le.Uint32(body), le.Uint64(body[4:]), le.Uint32(body[12:])
	last := size(fid) / 6
	n := int(min(uint64(count)/entrySize, last-min(last, at)))
	b = le.AppendUint32(b, uint32(n*entrySize))
	for range n {
		at++
		b = append(b, zeros[:13]...)
		b = le.AppendUint64(b, at)
		b = append(b, 4, 6, 0)
		b = append(b, "child0"...)
	}
	return end(b, start)
}
