package persist

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func checkHeeded(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		ms, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		idle, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		interval, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
		count, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if gone := int(goneTime.Seconds()); ms != 1000*gone || idle+count*interval != gone {
			t.Errorf("user timeout %d ms, keepalive after %d s, %d times in %d s each", ms, idle, count, interval)
		}
	})
}
