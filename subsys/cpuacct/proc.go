package cpuacct

import (
	"bytes"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// Read reads the files of /proc that have a thread's times. A thread that is not
// its process's first has a directory in /proc itself too; there, schedstat is
// about the thread, and stat about its process.
func (machine) Read(tgid, tid int32, split bool) (t Times, err error) {
	b := readBufs.Get().(*readBuf)
	defer readBufs.Put(b)
	if t.Run, err = b.schedstat(tid); err == nil && split {
		t.User, t.System, err = b.stat(tgid, tid)
	}
	if err != nil {
		return Times{}, err
	}
	return t, nil
}

// readBuf has the memory of one Read.
type readBuf struct {
	path []byte
	text [1024]byte
}

var readBufs = sync.Pool{New: func() any { return new(readBuf) }}

func (b *readBuf) schedstat(tid int32) (run uint64, err error) {
	b.path = append(strconv.AppendInt(b.path[:0], int64(tid), 10), "/schedstat"...)
	text, err := b.read()
	if err != nil {
		return 0, err
	}
	run, ok := parseSchedstat(text)
	if !ok {
		err = &fs.PathError{Op: "parse", Path: string(b.path), Err: unix.EIO}
	}
	return run, err
}

func (b *readBuf) stat(tgid, tid int32) (user, system uint64, err error) {
	b.path = append(strconv.AppendInt(b.path[:0], int64(tgid), 10), "/task/"...)
	b.path = append(strconv.AppendInt(b.path, int64(tid), 10), "/stat"...)
	text, err := b.read()
	if err != nil {
		return 0, 0, err
	}
	user, system, ok := parseStat(text)
	if !ok {
		err = &fs.PathError{Op: "parse", Path: string(b.path), Err: unix.EIO}
	}
	return user, system, err
}

// read reads the file at path, which is shorter than text. What is gone is
// ESRCH.
func (b *readBuf) read() ([]byte, error) {
	fd, err := unix.Openat(kernfs.Proc(), string(b.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, unix.ESRCH
	} else if err != nil {
		return nil, &fs.PathError{Op: "open", Path: string(b.path), Err: err}
	}
	defer unix.Close(fd)
	for {
		switch n, err := unix.Read(fd, b.text[:]); err {
		case nil:
			return b.text[:n], nil
		case unix.EINTR:
		case unix.ESRCH:
			return nil, unix.ESRCH
		default:
			return nil, &fs.PathError{Op: "read", Path: string(b.path), Err: err}
		}
	}
}

// parseSchedstat reads the first number of a schedstat file, nanoseconds.
func parseSchedstat(text []byte) (run uint64, ok bool) {
	run, rest, ok := number(text)
	return run, ok && len(rest) > 0 && rest[0] == ' '
}

// parseStat reads fields 14 and 15 of a stat file, in USER_HZ, as nanoseconds.
// The name of the program, in parentheses, can hold anything, but nothing after
// it can hold a parenthesis.
func parseStat(text []byte) (user, system uint64, ok bool) {
	const tick = uint64(time.Second / userHZ)
	text = text[bytes.LastIndexByte(text, ')')+1:]
	for field := 2; field < 14; field++ {
		space := bytes.IndexByte(text, ' ')
		if space < 0 {
			return 0, 0, false
		}
		text = text[space+1:]
	}
	user, text, ok = number(text)
	if !ok || len(text) == 0 || text[0] != ' ' {
		return 0, 0, false
	}
	system, text, ok = number(text[1:])
	if !ok || len(text) == 0 || text[0] != ' ' || max(user, system) > 1<<63/tick {
		return 0, 0, false
	}
	return user * tick, system * tick, true
}

// number reads the decimal number that text begins with.
func number(text []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		if n > (1<<64-1-9)/10 {
			return 0, text, false
		}
		n = n*10 + uint64(text[i]-'0')
	}
	return n, text[i:], i > 0
}
