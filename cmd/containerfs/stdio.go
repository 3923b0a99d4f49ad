package main

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stdio is the connection to whoever has the other ends of standard input and output.
type stdio struct{ in, out *os.File }

// openStdio makes a connection of the two. They must not be read or written otherwise any more:
// pipes and sockets do not block then, so that it can be closed while somebody reads.
func openStdio() stdio {
	open := func(fd int, name string) *os.File {
		_ = unix.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), name)
	}
	return stdio{open(0, "standard input"), open(1, "standard output")}
}

func (s stdio) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s stdio) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s stdio) Close() error                { return errors.Join(s.in.Close(), s.out.Close()) }

// CloseWrite closes both: ssh's server tells its client of no end before that of the process, and
// where the two are one socket there is none before both are closed.
func (s stdio) CloseWrite() error { return s.Close() }

func (s stdio) LocalAddr() net.Addr  { return stdioAddr{} }
func (s stdio) RemoteAddr() net.Addr { return stdioAddr{} }

func (s stdio) SetDeadline(t time.Time) error {
	return errors.Join(s.in.SetDeadline(t), s.out.SetDeadline(t))
}
func (s stdio) SetReadDeadline(t time.Time) error  { return s.in.SetReadDeadline(t) }
func (s stdio) SetWriteDeadline(t time.Time) error { return s.out.SetWriteDeadline(t) }

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "standard input and output" }
