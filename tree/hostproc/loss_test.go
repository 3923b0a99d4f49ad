package hostproc

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// Without a reader the queue runs over. The gaps in the numbers say how many
// events were lost, which the kernel counts too.
func TestLoss(t *testing.T) {
	connected(t, Options{}).Close()
	c, err := dial(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for round := range 3 {
		before := c.dropped()
		for range 300 {
			reap(t)
		}
		dropped := c.dropped() - before
		if dropped == 0 {
			t.Fatalf("nothing was lost with a buffer of %d", c.size)
		}
		var lost uint64
		resyncs := 0
		for {
			batch, _, err := c.receive(nil)
			for _, e := range batch {
				if e.kind == kindResync {
					resyncs++
					lost += e.lost
				}
			}
			if err == unix.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		// Others on this host fork too: more is lost, and at any time.
		more := c.dropped()-before > dropped
		if resyncs != 1 && !more || lost < dropped {
			t.Fatalf("round %d: %d resyncs, %d lost of %d", round, resyncs, lost, dropped)
		}
		known := c.dropped()
		// An event on each CPU shows the gaps, which say the same.
		var old, set unix.CPUSet
		runtime.LockOSThread()
		if err := unix.SchedGetaffinity(0, &old); err != nil {
			t.Fatal(err)
		}
		for cpu := range 1024 {
			if !old.IsSet(cpu) {
				continue
			}
			set.Zero()
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				t.Fatal(err)
			}
			reap(t)
			if batch, _, err := c.receive(nil); err != nil {
				t.Fatal(err)
			} else {
				for _, e := range batch {
					if e.kind == kindResync && c.dropped() == known {
						t.Fatalf("a loss that was known is noticed again: %+v, %+v", e, c.ledger)
					}
				}
			}
		}
		if err := unix.SchedSetaffinity(0, &old); err != nil {
			t.Fatal(err)
		}
		runtime.UnlockOSThread()
		if round == 0 {
			continue // a CPU's first loss can be before its first event
		}
		for {
			if _, _, err := c.receive(nil); err == unix.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if c.ledger.gaps > c.ledger.reported || c.ledger.reported > c.dropped() {
			t.Fatalf("round %d: gaps %d, reported %d, kernel %d", round, c.ledger.gaps, c.ledger.reported, c.dropped())
		}
		t.Logf("gaps %d, reported %d, kernel %d", c.ledger.gaps, c.ledger.reported, c.dropped())
	}
}

func reap(t testing.TB) {
	pid, err := storm.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}

// A model that stands still: the backlog fills, then the socket, then events
// are lost. Drain comes back when the model has been told to look for itself.
func TestStalledModel(t *testing.T) {
	h := connected(t, Options{ReceiveBuffer: 64 << 10})
	h.delivery.limit = 100
	r := newRecorder()
	r.block = make(chan struct{})
	h.Start(r)
	for range 1000 {
		reap(t)
	}
	dropped := h.conn.dropped()
	if dropped == 0 {
		t.Fatal("nothing was lost")
	}
	drained := make(chan struct{})
	go func() { h.Drain(); close(drained) }()
	select {
	case <-drained:
		t.Fatal("Drain returned while the model stood")
	case <-time.After(50 * time.Millisecond):
	}
	close(r.block)
	<-drained
	stats, err := h.Stats()
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost < dropped || r.lost != stats.Lost || r.resyncs < 2 {
		t.Fatalf("%d lost in %d resyncs, kernel %d, %+v", r.lost, r.resyncs, dropped, stats)
	}
}
