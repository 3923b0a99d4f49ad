package sock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// passRights is SO_PASSRIGHTS of Linux 6.16, include/uapi/asm-generic/socket.h.
const passRights = 83

// RefuseRights has the kernel refuse the descriptors (SCM_RIGHTS) that peers would send to
// a unix socket, and to those that are accepted from it. Nobody here asks for them, so that
// the kernel drops them: in the call that reads the bytes that they came with, which then
// takes as long as the file system likes that they are of, for ever if it is one of the
// peer's own. ENOPROTOOPT where the kernel cannot refuse them.
func RefuseRights(socket syscall.RawConn) error {
	return control(socket, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, passRights, 0) })
}

// TakesRights reports whether descriptors can come with what is read from a socket: from
// any that is a unix socket and does not refuse them.
func TakesRights(socket syscall.RawConn) (takes bool) {
	err := control(socket, func(fd int) error {
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || family != unix.AF_UNIX {
			return err
		}
		passes, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, passRights)
		takes = err != nil || passes != 0
		return nil
	})
	return takes || err != nil
}

func control(socket syscall.RawConn, do func(fd int) error) (err error) {
	if e := socket.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		err = e
	}
	return err
}
