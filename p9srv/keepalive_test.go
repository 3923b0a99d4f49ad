package p9srv

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepAlive has the kernel find out about TCP peers that are gone without a word.
func TestKeepAlive(t *testing.T) {
	l, err := Listen(Export{Addr: Addr{Network: "tcp", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := l.Addr().Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := l.net.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		on, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		idle, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		if on != 1 || idle > 60 {
			t.Errorf("keepalive %d, after %d s", on, idle)
		}
	})
}
