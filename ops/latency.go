package ops

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencies counts durations, in buckets of an eighth of their size. It may be used
// concurrently.
type latencies struct {
	count   atomic.Uint64
	sum     atomic.Int64 // of nanoseconds
	buckets [62 << 3]atomic.Uint64
}

func (l *latencies) add(d time.Duration) {
	d = max(d, 0)
	l.buckets[bucketOf(uint64(d))].Add(1)
	l.sum.Add(int64(d))
	l.count.Add(1)
}

// bucketOf is the bucket of a number of nanoseconds.
func bucketOf(ns uint64) int {
	if ns < 8 {
		return int(ns)
	}
	shift := bits.Len64(ns) - 4
	return (shift+1)<<3 | int(ns>>shift&7)
}

// bucketEnd is the largest number in a bucket.
func bucketEnd(i int) uint64 {
	if i < 16 {
		return uint64(i)
	}
	shift := i>>3 - 1
	return uint64(i&7+8+1)<<shift - 1
}

// quantile is a duration that the part q of those counted does not exceed, but for
// the size of a bucket; 0 when there are none.
func (l *latencies) quantile(q float64) time.Duration {
	n := uint64(0)
	rank := uint64(q * float64(l.count.Load()))
	for i := range l.buckets {
		if n += l.buckets[i].Load(); n > rank {
			return time.Duration(bucketEnd(i))
		}
	}
	return time.Duration(0)
}
