package p9srv

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/p9srv/sock"
)

// TestKeepAlive has the kernel find out about TCP peers that are gone without a word, at both
// ends, whether something is on its way or not.
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
	checkHeeded(t, c)
	conn, err := l.net.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn, _, err = l.admit(conn); err != nil {
		t.Fatal(err)
	}
	checkHeeded(t, conn)
}

func checkHeeded(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		get := func(level, option int) time.Duration {
			n, err := unix.GetsockoptInt(int(fd), level, option)
			if err != nil {
				t.Error(err)
			}
			return time.Duration(n)
		}
		on := get(unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		idle := time.Second * get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		all := idle + time.Second*get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		unacked := time.Millisecond * get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if on != 1 || idle > time.Minute || all != sock.Unheard || unacked != sock.Unheard {
			t.Errorf("keepalive %d, after %v, for %v, user timeout %v", on, idle, all, unacked)
		}
	})
}
