package p9srv

import (
	"errors"
	"syscall"

	"github.com/hugelgupf/p9/linux"
)

// errnoOf finds the number that a client is told for err. It is false for an
// error that carries none, which the client sees as EIO.
func errnoOf(err error) (linux.Errno, bool) {
	if e, ok := err.(linux.Errno); ok && e != 0 { // nearly always
		return e, true
	}
	var l linux.Errno
	if errors.As(err, &l) && l != 0 {
		return l, true
	}
	var s syscall.Errno
	if errors.As(err, &s) && s != 0 {
		return linux.Errno(s), true
	}
	return linux.EIO, false
}
