package p9srv

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Listener accepts connections for Server.Serve.
type Listener struct {
	net  net.Listener
	addr Addr
}

// Addr is where it really listens: a port that was 0 is the one that it got.
func (l *Listener) Addr() Addr { return l.addr }

// Close stops listening and removes a unix socket.
func (l *Listener) Close() error { return l.net.Close() }

// Listen begins to listen. It refuses an address on which the peers could not be
// told apart.
func Listen(a Addr) (*Listener, error) {
	switch a.Network {
	case "tcp":
		return listenTCP(a)
	case "unix":
		return listenUnix(a)
	}
	return nil, fmt.Errorf("listen %s: network must be tcp or unix", a)
}

func listenTCP(a Addr) (*Listener, error) {
	t, err := net.ResolveTCPAddr("tcp", a.Address)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	if !t.IP.IsLoopback() {
		return nil, fmt.Errorf("listen %s: not a loopback address: peers from elsewhere have no identity", a)
	}
	l, err := net.ListenTCP("tcp", t)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	a.Address = l.Addr().String()
	return &Listener{l, a}, nil
}

func listenUnix(a Addr) (*Listener, error) {
	dir := filepath.Dir(a.Address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	// Between two servers that start at once, the second must not take the
	// first one's socket for a stale one. Where directories cannot be locked, it is
	// left to chance.
	if d, err := os.Open(dir); err == nil {
		defer d.Close()
		unix.Flock(int(d.Fd()), unix.LOCK_EX)
	}
	if err := removeStale(a.Address); err != nil {
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: a.Address})
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	// Everybody may connect: permission is by who they are.
	if err := os.Chmod(a.Address, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen %s: %w", a, err)
	}
	return &Listener{l, a}, nil
}

// removeStale removes the socket of a server that is gone.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errors.New("exists and is not a socket")
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("in use: another server answers: %w", unix.EADDRINUSE)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("in use? %w", err)
}
