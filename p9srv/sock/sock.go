// Package sock reads and writes sockets that the runtime has made non-blocking, by
// system calls that the runtime is not told of. They do not wait and take
// microseconds; what the runtime does around calls that might, which is to wake the
// thread that watches over them whenever the program was idle before, costs more than
// they do. See BenchmarkEcho. Where the peer could make a read wait the runtime is told of
// it, since it stands still as a whole for one that waits untold: see TakesRights.
package sock

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Reader reads from a connection, for one caller at a time.
type Reader struct {
	raw   syscall.RawConn
	told  bool // the runtime is, of each read
	try   func(fd uintptr) bool
	into  []byte
	n     int
	err   error
	reads int
}

// NewReader makes a Reader of a connection of which raw is the kernel's side.
func NewReader(raw syscall.RawConn) *Reader {
	r := &Reader{raw: raw, told: TakesRights(raw)}
	r.try = func(fd uintptr) bool {
		r.n, r.err = r.TryRead(fd, r.into)
		return r.err != unix.EAGAIN
	}
	return r
}

// CanHang reports whether the peer can have reads wait for ever: see TakesRights.
func (r *Reader) CanHang() bool { return r.told }

// Read waits until there is something, the connection's deadline for reads is over, or the
// end is reached, which is io.EOF.
func (r *Reader) Read(b []byte) (int, error) {
	r.into, r.n, r.err = b, 0, nil
	err := r.raw.Read(r.try)
	r.into = nil
	switch {
	case err != nil:
	case r.err != nil:
		err = os.NewSyscallError("read", r.err)
	case r.n == 0 && len(b) > 0:
		err = io.EOF
	}
	return r.n, err
}

// toldEvery is how many reads in a row find something before the runtime is told of one.
// It may not be watching over the program since that was idle. While it is not, goroutines
// do not take turns, and nobody looks who else can be read from: who never waits has to
// see to that.
const toldEvery = 8

var readTold = func(fd uintptr, b []byte) (int, error) { return syscall.Read(int(fd), b) }

// TryRead reads what there is: EAGAIN if that is nothing, 0 at the end. It is for the
// function that a RawConn's Read calls, which waits where that returns false.
func (r *Reader) TryRead(fd uintptr, b []byte) (int, error) {
	how := read
	if r.reads++; r.told || r.reads%toldEvery == 0 {
		how = readTold
	}
	n, err := retry(how, fd, b)
	if err != nil {
		r.reads = 0
	}
	return n, err
}

// most bounds one system call, since nothing interrupts it, and the garbage collector may
// have to wait for it.
const most = 64 << 10

func writeTold(fd uintptr, b []byte) (int, error) {
	return unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// A Writer writes to a connection, for one caller at a time.
type Writer struct {
	raw  syscall.RawConn
	told bool // as Reader's: who sends can have to clear up what others sent
	try  func(fd uintptr) bool
	left []byte
	err  error
}

// Writer makes a Writer to the connection that r reads from.
func (r *Reader) Writer() *Writer {
	w := &Writer{raw: r.raw, told: r.told}
	w.try = w.tryWrite
	return w
}

// WriteAll writes b to the end, and waits where it has to, until the connection's
// deadline for writes.
func (w *Writer) WriteAll(b []byte) error {
	w.left, w.err = b, nil
	err := w.raw.Write(w.try)
	w.left = nil
	if err == nil {
		err = w.err
	}
	return err
}

// tryWrite is called by the runtime when the connection may be writable.
func (w *Writer) tryWrite(fd uintptr) bool {
	how := write
	if w.told {
		how = writeTold
	}
	for len(w.left) > 0 {
		n, err := retry(how, fd, w.left[:min(len(w.left), most)])
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			w.err = os.NewSyscallError("write", err)
			return true
		}
		w.left = w.left[n:]
	}
	return true
}

// retry makes a system call again that a signal has interrupted.
func retry(call func(fd uintptr, b []byte) (int, error), fd uintptr, b []byte) (int, error) {
	for {
		n, err := call(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
