package sock_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/p9srv/sock"
)

func rawConn(t *testing.T, c any) syscall.RawConn {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRefuseRights: a peer cannot send descriptors to a socket that was accepted from one
// that refuses them; where the kernel cannot refuse them that is known, as it is of a
// socket that was connected to before.
func TestRefuseRights(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func() *net.UnixConn {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	send := func(c *net.UnixConn) error {
		_, _, err := c.WriteMsgUnix([]byte("x"), unix.UnixRights(int(os.Stdin.Fd())), nil)
		return err
	}

	before := connect()
	refusal := sock.RefuseRights(rawConn(t, l))
	after := connect()
	if err := send(before); err != nil {
		t.Errorf("before anybody refuses: %v", err)
	}
	if !sock.TakesRights(rawConn(t, accept())) {
		t.Error("one that was connected to before is not known to take descriptors")
	}
	accepted := accept()
	switch err := send(after); {
	case refusal == nil && (err == nil || sock.TakesRights(rawConn(t, accepted))):
		t.Errorf("refused, and sent all the same: %v", err)
	case refusal != nil && (err != nil || !sock.TakesRights(rawConn(t, accepted))):
		t.Errorf("this kernel does not refuse them (%v), and %v", refusal, err)
	}
	t.Logf("the kernel on refusing descriptors: %v", refusal)

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if sock.TakesRights(rawConn(t, tcp)) {
		t.Error("TCP carries no descriptors")
	}
}
