package hostproc

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// TestForged: events that somebody else than the kernel sends are none, and do not
// count as gaps either.
func TestForged(t *testing.T) {
	connected(t, Options{}).Close()
	if !can(t, unix.CAP_NET_ADMIN) {
		t.Skip("the kernel has only the privileged send to others")
	}
	c, err := dial(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	at, err := unix.Getsockname(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	port := at.(*unix.SockaddrNetlink).Pid
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	const nobody = 1<<22 + 7 // no pid
	for seq := range uint32(3) {
		forged := message(kindFork, seq*1000, 0, 1, 1, 1, nobody, nobody)
		if err := unix.Sendto(s, forged, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}); err != nil {
			t.Fatal(err)
		}
	}
	pid, err := storm.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		batch, _, err := c.receive(nil)
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		for _, e := range batch {
			switch {
			case e.kind == kindResync:
				t.Fatalf("%d events are missed", e.lost)
			case e.kind == kindFork && e.id[2] == nobody:
				t.Fatal("a forged fork is believed")
			case e.kind == kindExit && e.id[0] == uint32(pid):
				return // behind the forged
			}
		}
		if time.Now().After(end) {
			t.Fatal("the kernel's own events do not come")
		}
		if err == unix.EAGAIN {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestReceiveBuffer: the queue is as long as it was asked for, where that is allowed.
func TestReceiveBuffer(t *testing.T) {
	h := connected(t, Options{})
	if got := h.Source().ReceiveBuffer; can(t, unix.CAP_NET_ADMIN) && got < 64<<20 {
		t.Errorf("the queue has %d bytes", got)
	}
}
