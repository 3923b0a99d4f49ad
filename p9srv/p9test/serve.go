package p9test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv"
)

// Serve serves on a unix socket until the test ends and returns its address.
func Serve(t testing.TB, cfg p9srv.Config) p9srv.Addr {
	t.Helper()
	dir, err := os.MkdirTemp("", "p9") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	a := p9srv.Addr{Network: "unix", Address: dir + "/sock"}
	_, a = ServeAt(t, cfg, a)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return a
}

// ServeAt serves at an address until the test ends.
func ServeAt(t testing.TB, cfg p9srv.Config, a p9srv.Addr) (*p9srv.Server, p9srv.Addr) {
	t.Helper()
	return ServeExport(t, cfg, p9srv.Export{Addr: a})
}

// ServeExport serves an export until the test ends.
func ServeExport(t testing.TB, cfg p9srv.Config, e p9srv.Export) (*p9srv.Server, p9srv.Addr) {
	t.Helper()
	l, err := p9srv.Listen(e)
	if err != nil {
		t.Fatal(err)
	}
	srv := p9srv.New(cfg)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return srv, l.Addr()
}

// ServeLibrary serves by the p9 library's own server and returns the other end.
func ServeLibrary(t testing.TB, a p9.Attacher) net.Conn {
	t.Helper()
	client, server := socketPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p9.NewServer(a).Handle(server, server)
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		<-done
	})
	return client
}

func socketPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// Dial connects to an address until the test ends.
func Dial(t testing.TB, a p9srv.Addr) net.Conn {
	t.Helper()
	c, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Client attaches with the library's client.
func Client(t testing.TB, conn net.Conn) p9.File {
	t.Helper()
	c, err := p9.NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	root, err := c.Attach("")
	if err != nil {
		t.Fatal(err)
	}
	return root
}
