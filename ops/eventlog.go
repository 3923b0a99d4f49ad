package ops

import (
	"bytes"
	"sync"
)

// eventLog is the text of an events file: an append-only sequence of lines of
// which the newest are kept. Offsets count from the first byte ever appended. Its
// lock is a leaf: events are appended inside the tree's mu.
type eventLog struct {
	mu    sync.Mutex
	ring  []byte // byte i of the log is at i % len(ring)
	limit int    // of len(ring)
	start int64  // of the oldest line that is kept
	end   int64
}

func newEventLog(limit int) *eventLog { return &eventLog{limit: limit} }

// append adds a line. One that is longer than the log is cut.
func (l *eventLog) append(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(line) > l.limit {
		line = append(line[:l.limit-1:l.limit-1], '\n')
	}
	if need := int(l.end-l.start) + len(line); need > len(l.ring) && len(l.ring) < l.limit {
		l.grow(need)
	}
	for int(l.end-l.start)+len(line) > len(l.ring) {
		l.dropLine()
	}
	for len(line) > 0 {
		n := copy(l.ring[l.end%int64(len(l.ring)):], line)
		line = line[n:]
		l.end += int64(n)
	}
}

// grow makes the ring twice as large, or as large as is needed and allowed.
func (l *eventLog) grow(need int) {
	ring := make([]byte, min(max(2*len(l.ring), need, 4096), l.limit))
	for at := l.start; at < l.end; {
		run := l.run(at)
		for len(run) > 0 {
			n := copy(ring[at%int64(len(ring)):], run)
			run = run[n:]
			at += int64(n)
		}
	}
	l.ring = ring
}

// run is what is kept from an offset on, up to where the ring begins again.
func (l *eventLog) run(at int64) []byte {
	i := at % int64(len(l.ring))
	return l.ring[i:min(int64(len(l.ring)), i+l.end-at)]
}

func (l *eventLog) dropLine() {
	for l.start < l.end {
		run := l.run(l.start)
		if i := bytes.IndexByte(run, '\n'); i >= 0 {
			l.start += int64(i + 1)
			return
		}
		l.start += int64(len(run))
	}
}

// size is the offset of the log's end.
func (l *eventLog) size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// readAt reads from an offset on, or from the oldest line that is kept when that
// is dropped; from is where it read. At the end, and beyond, there is nothing.
func (l *eventLog) readAt(b []byte, offset int64) (n int, from int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from = max(offset, l.start)
	for n < len(b) && from+int64(n) < l.end {
		n += copy(b[n:], l.run(from+int64(n)))
	}
	return n, from
}
