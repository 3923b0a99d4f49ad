package hostproc

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// TestOverflowInABatch: a batch that ends since the kernel has dropped an event does
// not tell that the queue was emptied.
func TestOverflowInABatch(t *testing.T) {
	connected(t, Options{}).Close() // skips where there is no connector
	if !can(t, unix.CAP_NET_ADMIN) {
		t.Skip("the kernel has only the privileged make a socket's queue so long")
	}
	c, err := dial(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	stop := make(chan struct{})
	var forking sync.WaitGroup
	defer forking.Wait()
	defer close(stop)
	forking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			pid, err := storm.Fork(0)
			if err != nil {
				t.Error(err)
				return
			}
			unix.Wait4(pid, nil, 0, nil)
		}
	})
	size := func(bytes int) {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes); err != nil {
			t.Fatal(err)
		}
	}
	drops := uint64(0)
	for range 8 {
		for end := time.Now().Add(20 * time.Second); c.queued() < 2000; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no events")
			}
		}
		size(2048) // a few messages: the next is dropped, until they are taken
		for {
			_, left, err := c.receive(nil)
			if err != nil && err != unix.EAGAIN {
				t.Fatal(err)
			}
			if left == queueEmptied {
				before := c.heard.Load()
				c.receive(nil)
				c.receive(nil)
				if n := c.heard.Load() - before; n > 16 {
					t.Errorf("the queue was emptied, and had %d messages more", n)
				}
			}
			if left == queueUnknown {
				drops++
			}
			if left == queueEmpty || left == queueUnknown {
				break
			}
		}
		size(8 << 20)
		for err = nil; err != unix.EAGAIN; {
			_, _, err = c.receive(nil)
		}
	}
	if drops == 0 {
		t.Error("nothing was dropped")
	}
}
