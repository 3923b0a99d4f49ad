package ops

import (
	"sync"
	"time"
)

// What may be written to the log of a key: a burst, then a steady rate.
const (
	logBurst = 200
	logRate  = 20   // lines a second
	logKeys  = 1024 // more share an allowance: an address of IPv6 costs nothing
)

// allowances bound lines of the log by keys. Its lock is a leaf.
type allowances[K comparable] struct {
	now func() time.Time

	mu sync.Mutex
	of map[K]*allowance
}

// allowance is what may still be written of a key.
type allowance struct {
	tokens     float64
	at         time.Time // when tokens was right
	suppressed int
}

func newAllowances[K comparable]() *allowances[K] {
	return &allowances[K]{now: time.Now, of: make(map[K]*allowance)}
}

// take reports whether a line of a key may be written, and how many of its kind were not.
// Where there are too many keys it is of the one that they share.
func (a *allowances[K]) take(key, shared K) (suppressed int, ok bool) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.of[key]
	if w == nil {
		if len(a.of) >= logKeys {
			key = shared
			w = a.of[key]
		}
		if w == nil {
			w = &allowance{tokens: logBurst, at: now}
			a.of[key] = w
		}
	}
	w.refill(now)
	if w.tokens < 1 {
		w.suppressed++
		return 0, false
	}
	w.tokens--
	suppressed, w.suppressed = w.suppressed, 0
	return suppressed, true
}

func (w *allowance) refill(now time.Time) {
	w.tokens = min(logBurst, w.tokens+logRate*now.Sub(w.at).Seconds())
	w.at = now
}

// leftOut is how many lines of a key were not written.
type leftOut[K comparable] struct {
	key   K
	lines int
}

// flush returns what was left out and not said yet, and forgets what has been quiet.
func (a *allowances[K]) flush() (list []leftOut[K]) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, w := range a.of {
		if w.suppressed > 0 {
			list = append(list, leftOut[K]{key, w.suppressed})
			w.suppressed = 0
		}
		if w.refill(now); w.tokens >= logBurst {
			delete(a.of, key)
		}
	}
	return list
}
