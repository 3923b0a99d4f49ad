package hostproc

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverflowEnds: an overflow does not outlast what is queued, or nothing would wake who
// has to look at the host.
func TestOverflowEnds(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	c := &connector{fd: pair[0]}
	c.prepare()
	for _, queued := range []int{2, batchSize, batchSize + 1} {
		for range queued {
			if err := unix.Sendto(pair[1], []byte("nobody's"), unix.MSG_DONTWAIT, nil); err != nil {
				t.Fatal(err)
			}
		}
		c.overflow.Store(true)
		c.left = 1 << 20
		var got []event
		for c.pending() {
			if !c.overflow.Load() {
				t.Errorf("%d queued: the overflow ended before the queue", queued)
			}
			if got, _, err = c.receive(got); err != nil {
				t.Fatal(err)
			}
		}
		if c.overflow.Load() || len(got) != 1 || got[0].kind != kindResync {
			t.Errorf("%d queued: overflow %v after the last, %v", queued, c.overflow.Load(), got)
		}
	}
}
