package p9srv

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// slowLink takes what it is given, each time in the longest time that there is for it.
type slowLink struct {
	net.Conn
	each    time.Duration
	due     bool // there is a deadline for the next write
	sizes   []int
	without int // how many had none
}

func (c *slowLink) SetWriteDeadline(time.Time) error { c.due = true; return nil }

func (c *slowLink) Write(b []byte) (int, error) {
	if !c.due {
		c.without++
	}
	c.due = false
	c.sizes = append(c.sizes, len(b))
	time.Sleep(c.each)
	return len(b), nil
}

// TestSlowLink: who takes what he is sent, however slowly, is not hung up on for how much that
// is: each piece has its time, until the session is to end.
func TestSlowLink(t *testing.T) {
	const size, pieces = 10*maxPiece + 1, 11
	for _, ending := range []bool{false, true} {
		srv := New(Config{WriteTimeout: 10 * time.Millisecond})
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		c := &slowLink{Conn: a, each: srv.cfg.WriteTimeout}
		s := newSession(srv, nil, c, peer{})
		s.account = &account{unsent: semaphore.NewWeighted(srv.cfg.MaxUnsent)}
		s.batchBuffer().b = append(s.batchBuffer().b, make([]byte, size)...)
		if ending {
			s.end(nil)
		}
		if err := s.writeBatch(); err != nil {
			t.Fatal(err)
		}
		all := 0
		for _, n := range c.sizes {
			if all += n; n > maxPiece {
				t.Errorf("%d bytes have one time", n)
			}
		}
		without := 0
		if ending {
			without = pieces - 1
		}
		if all != size || c.without != without {
			t.Errorf("ending: %v: %d bytes of %d in %d writes, of which %d had no time of their own, want %d", ending, all, size, len(c.sizes), c.without, without)
		}
	}
}
