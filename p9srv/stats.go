package p9srv

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stats are what a Server has done and has now. They are gathered when they are
// asked for. Counting costs a batch a look at the clock and each kind of message in it
// three atomic additions, and each request that a worker serves as much.
type Stats struct {
	Connections map[string]int    // open now, by network
	Accepted    map[string]uint64 // that became sessions, by network
	Refused     uint64            // that did not: not let in, or too many
	Requests    []VerbStats       // of messages that came at least once
}

// VerbStats are the requests of one kind of message.
type VerbStats struct {
	Verb   string            // walk for Twalk; "unknown" for what the dialect does not have
	Count  uint64            // answered, errors included
	OK     uint64            // without error; while more come, not always the difference of the others
	Errors map[string]uint64 // by the name of the errno

	// The time from the session's taking up the batch that it came in to its reply
	// being ready to be written, which for those that the loop serves is that of
	// the batch; for a worker's with the time that it waited for earlier ones of
	// its fid.
	Sum     time.Duration
	Buckets [LatencyBuckets]uint64 // how many took less than LatencyBound; those of no bucket took longer
}

// LatencyBuckets is the number of buckets of a latency: each is twice as wide as the
// one before.
const LatencyBuckets = 21

const firstBucket = 12 // 4096 ns

// LatencyBound is what the latencies in a bucket are below.
func LatencyBound(bucket int) time.Duration { return 1 << (firstBucket + bucket) }

// verbs is how many types of T-messages there can be: they are the even ones of a byte.
const verbs = 128

// counters count requests. A session counts in one stripe of them, so that
// connections which are served at once seldom write to the same cache line.
type counters struct {
	base    time.Time // of the clock
	next    atomic.Uint32
	stripes [8]stripe
	failed  sync.Map // failure -> *atomic.Uint64

	refused  atomic.Uint64
	accepted [len(networks)]atomic.Uint64
}

var networks = [...]string{"tcp", "tls", "unix", "vsock"}

type stripe [verbs]struct {
	nanos   atomic.Int64
	ok      atomic.Uint64
	buckets [LatencyBuckets + 1]atomic.Uint64 // the last: all that took longer
}

// failure is a kind of message with a number of an error.
type failure struct {
	typ   uint8
	errno unix.Errno
}

// clock is a time to compare with another one of the same counters.
func (c *counters) clock() time.Duration { return time.Since(c.base) }

// stripe gives a session its stripe.
func (c *counters) stripe() *stripe { return &c.stripes[c.next.Add(1)%uint32(len(c.stripes))] }

func (c *counters) accept(network string) {
	for i, n := range networks {
		if n == network {
			c.accepted[i].Add(1)
		}
	}
}

// tally is how many requests of a type, or 0 for unknown, are in the batch.
type tally struct {
	typ   uint8
	n, ok uint32
}

// count counts a request that the loop has answered and that came to err.
func (s *session) count(typ uint8, err error) {
	ok := uint32(1)
	if err != nil {
		s.countError(typ, err)
		ok = 0
	}
	for i := range s.tallies {
		if t := &s.tallies[i]; t.typ == typ {
			t.n++
			t.ok += ok
			return
		}
	}
	s.tallies = append(s.tallies, tally{typ, 1, ok})
}

// countBatch hands on what count has gathered. The batch is ready to be written.
func (s *session) countBatch() {
	if len(s.tallies) == 0 {
		return
	}
	took := s.srv.counters.clock() - s.now
	for _, t := range s.tallies {
		s.stripe.add(t, took)
	}
	s.tallies = s.tallies[:0]
}

func (st *stripe) add(t tally, took time.Duration) {
	v := &st[t.typ/2]
	v.nanos.Add(int64(took) * int64(t.n))
	v.ok.Add(uint64(t.ok))
	bucket := min(bits.Len64(uint64(max(took, 0))>>firstBucket), LatencyBuckets)
	v.buckets[bucket].Add(uint64(t.n))
}

func (s *session) countError(typ uint8, err error) {
	errno, _ := errnoOf(err)
	key := failure{typ, unix.Errno(errno)}
	n, ok := s.srv.counters.failed.Load(key)
	if !ok {
		n, _ = s.srv.counters.failed.LoadOrStore(key, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// refuse answers a request that is not served.
func (s *session) refuse(typ uint8, tag uint16, err error) {
	b := s.batchBuffer()
	b.b = s.dialect.appendError(b.b, tag, err)
	s.batched++
	s.count(typ, err)
}

// Stats gathers them.
func (srv *Server) Stats() Stats {
	c := &srv.counters
	st := Stats{Connections: make(map[string]int), Accepted: make(map[string]uint64), Refused: c.refused.Load()}
	for i, network := range networks {
		st.Connections[network] = 0
		st.Accepted[network] = c.accepted[i].Load()
	}
	srv.mu.Lock()
	for s := range srv.sessions {
		st.Connections[s.listener.addr.Network]++
	}
	srv.mu.Unlock()

	failed := make(map[uint8]map[string]uint64)
	c.failed.Range(func(key, n any) bool {
		f := key.(failure)
		if failed[f.typ] == nil {
			failed[f.typ] = make(map[string]uint64)
		}
		failed[f.typ][unix.ErrnoName(f.errno)] += n.(*atomic.Uint64).Load()
		return true
	})
	for i := range verbs {
		v := VerbStats{Verb: verbName(uint8(2 * i)), Errors: failed[uint8(2*i)]}
		for j := range c.stripes {
			row := &c.stripes[j][i]
			v.OK += row.ok.Load()
			v.Sum += time.Duration(row.nanos.Load())
			for k := range row.buckets {
				n := row.buckets[k].Load()
				v.Count += n
				if k < LatencyBuckets {
					v.Buckets[k] += n
				}
			}
		}
		if v.Count > 0 {
			st.Requests = append(st.Requests, v)
		}
	}
	return st
}

// verbName is the name of a type of T-message, which has one meaning in all dialects.
func verbName(typ uint8) string {
	switch typ {
	case msgTversion:
		return "version"
	case msgTflush:
		return "flush"
	}
	for _, d := range []*dialect{dotL, classic} {
		if name := d.messages[typ].name; name != "" {
			return strings.TrimPrefix(name, "T")
		}
	}
	return "unknown"
}
