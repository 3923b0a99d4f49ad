package p9srv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// SocketAddr is where a socket that was passed to this process listens.
func SocketAddr(f *os.File) (Addr, error) {
	l, err := fileListener(f)
	if err != nil {
		return Addr{}, err
	}
	defer l.Close()
	switch a := l.Addr().(type) {
	case *net.TCPAddr:
		return Addr{Network: "tcp", Address: a.String()}, nil
	case *net.UnixAddr:
		if !filepath.IsAbs(a.Name) {
			return Addr{}, fmt.Errorf("unix socket %q has no path", a.Name)
		}
		return Addr{Network: "unix", Address: a.Name}, nil
	case *vsock.Addr:
		host := "*"
		if a.ContextID != anyCID {
			host = fmt.Sprint(a.ContextID)
		}
		return Addr{Network: "vsock", Address: net.JoinHostPort(host, fmt.Sprint(a.Port))}, nil
	}
	return Addr{}, fmt.Errorf("a socket of network %s", l.Addr().Network())
}

// inherited is a listener on the socket that an Export is given, nil if it is given
// none.
func (e *Export) inherited() (net.Listener, error) {
	if e.Socket == nil {
		return nil, nil
	}
	return fileListener(e.Socket)
}

// fileListener makes a listener of a copy of a socket. Closing it leaves the socket,
// and its path, to whom they belong.
func fileListener(f *os.File) (l net.Listener, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var family, listening int
	var errSocket error
	err = raw.Control(func(fd uintptr) {
		family, errSocket = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if errSocket == nil {
			listening, errSocket = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case errSocket == unix.ENOTSOCK:
		return nil, errors.New("is no socket")
	case errSocket != nil:
		return nil, errSocket
	case listening == 0:
		return nil, errors.New("is no listening socket; a socket unit needs ListenStream= and Accept=no")
	}
	if family == unix.AF_VSOCK {
		return vsock.FileListener(f)
	}
	return net.FileListener(f)
}
