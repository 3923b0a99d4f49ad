package p9srv_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// socketFile is a listening socket as a process gets it that is started with it.
func socketFile(t testing.TB, network, address string) *os.File {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestInherited: a socket is listened on as if it had been made here, and when the
// listener is closed it is still there for another.
func TestInherited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, at := range [][2]string{{"unix", path}, {"tcp", "127.0.0.1:0"}} {
		f := socketFile(t, at[0], at[1])
		a, err := p9srv.SocketAddr(f)
		if err != nil || a.Network != at[0] {
			t.Fatal(a, err)
		}
		for range 2 {
			l, err := p9srv.Listen(p9srv.Export{Addr: a, Socket: f})
			if err != nil {
				t.Fatal(err)
			}
			if l.Addr() != a {
				t.Errorf("listens at %v, not %v", l.Addr(), a)
			}
			srv := p9srv.New(p9srv.Config{Attacher: p9test.NewTree()})
			go srv.Serve(l)
			w := p9test.NewWire(t, p9test.Dial(t, a))
			w.Script(hello)
			srv.Withdraw(l)
			w.WantClosed()
			srv.Shutdown(context.Background())
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of the service manager is gone: %v", err)
	}

	open := socketFile(t, "tcp", "0.0.0.0:0")
	a, err := p9srv.SocketAddr(open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p9srv.Listen(p9srv.Export{Addr: a, Socket: open}); err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("open to everybody: %v", err)
	}
}

// TestNoSocket: what is no listening socket is told from one.
func TestNoSocket(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := p9srv.SocketAddr(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	socketFile(t, "tcp", "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := p9srv.SocketAddr(conn); err == nil || !strings.Contains(err.Error(), "Accept=no") {
		t.Errorf("a connection: %v", err)
	}
}
