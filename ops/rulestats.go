package ops

import "time"

// RuleStats is what the rules in force have done, since they are.
type RuleStats struct {
	Lines []RuleCount // by line of the file; none without rules

	// Since the start, under any rules.
	Waiting   int64         // tasks that are to be classified
	Overflows uint64        // those that found no room in the queue
	Placed    uint64        // tasks that were moved after an event
	Waited    time.Duration // from that to the placement
	Within    []WaitedCount // ascending, each with those before
}

// RuleCount is of one line: MaxRules bounds how many there are.
type RuleCount struct {
	Line     int
	Matches  uint64 // classifications in which it decided, in a hierarchy or more
	Failures uint64 // and could not be followed
}

// WaitedCount is how many placements took less than a time.
type WaitedCount struct {
	Less  time.Duration
	Count uint64
}

// Bounds of Within: each is twice the one before, from 16 µs to 17 s.
const (
	firstWaited = 14
	lastWaited  = 34
)

// RuleStats is what the rules have done so far.
func (fs *FS) RuleStats() RuleStats {
	c := fs.rules
	set := c.set.Load()
	s := RuleStats{Waiting: c.queue.pending.Load(), Overflows: c.queue.lost.Load()}
	for _, r := range set.file.Rules {
		n := set.counts[r]
		s.Lines = append(s.Lines, RuleCount{r.Line, n.matches.Load(), n.failures.Load()})
	}
	i := 0
	for k := firstWaited; k <= lastWaited; k++ {
		for end := bucketOf(1 << k); i < end; i++ {
			s.Placed += c.placed.buckets[i].Load()
		}
		s.Within = append(s.Within, WaitedCount{1 << k, s.Placed})
	}
	for ; i < len(c.placed.buckets); i++ {
		s.Placed += c.placed.buckets[i].Load()
	}
	s.Waited = time.Duration(c.placed.sum.Load())
	return s
}
