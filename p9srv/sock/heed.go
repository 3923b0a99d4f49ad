package sock

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Unheard is for how long nothing has to be heard of the peer of a connection over TCP for
// it to be gone, where whoever has it cannot make another.
const Unheard = 150 * time.Second

// heedAfter is how long nothing may come before the peer is asked whether it is there, which
// also keeps the connection in the memory of what is on the way.
const heedAfter = 15 * time.Second

// Heed has the kernel end a connection over TCP, or TLS, when nothing was heard of its peer for
// so long, a multiple of ten seconds and over 15: whether that is asked, or has something to
// acknowledge, for which the kernel by itself tries for a quarter of an hour. So it does when the
// peer takes nothing for so long of what it is sent, though it is heard. Others it leaves as they
// are, as a kernel that refuses does.
func Heed(conn net.Conn, gone time.Duration) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	every := gone / 10
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: heedAfter, Interval: every, Count: int((gone - heedAfter) / every)})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(gone.Milliseconds()))
		})
	}
}
