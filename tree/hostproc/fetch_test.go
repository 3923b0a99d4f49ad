package hostproc

import (
	"errors"
	"testing"
)

// TestFetch: who drains waits for what was queued, and not for what comes after it has
// taken that: in a steady stream of events that would be a hundred more. Only where the
// kernel has dropped some does it take the count that is too high.
func TestFetch(t *testing.T) {
	type step struct {
		events uint64 // received
		left   queue
	}
	failed := errors.New("failed")
	const queued = batchSize + 3
	pessimist := uint64(10 + batchSize + 1 + queued)
	for _, test := range []struct {
		name  string
		steps []step // an error after the last
		mark  uint64
		rest  int // steps not taken
	}{
		{"quiet", []step{{0, queueEmpty}, {1, queueEmptied}}, 10, 1},
		{"stream", []step{{2, queueEmptied}, {1, queueEmptied}}, 12, 1},
		{"much", []step{{batchSize, queueFull}, {2, queueEmptied}, {1, queueEmptied}}, 10 + batchSize + 2, 1},
		{"storm", []step{{batchSize, queueFull}, {batchSize, queueFull}, {batchSize, queueFull}}, 10 + 2*batchSize, 1},
		{"dropped", []step{{0, queueUnknown}, {5, queueEmptied}, {1, queueEmptied}}, pessimist, 1},
		{"dropped in the midst", []step{{batchSize, queueFull}, {0, queueUnknown}, {1, queueEmptied}}, pessimist, 1},
		{"dropped, then quiet", []step{{5, queueUnknown}, {0, queueEmpty}, {1, queueEmptied}}, 15, 1},
		{"error", nil, pessimist, 0},
		{"error later", []step{{batchSize, queueFull}}, pessimist, 0},
	} {
		d := newDelivery()
		d.received.Store(10)
		mark := d.fetch(queued, func() (queue, error) {
			if len(test.steps) == 0 {
				return queueUnknown, failed
			}
			s := test.steps[0]
			test.steps = test.steps[1:]
			d.received.Add(s.events)
			return s.left, nil
		})
		if mark != test.mark || len(test.steps) != test.rest {
			t.Errorf("%s: mark %d, %d steps left; want %d, %d", test.name, mark, len(test.steps), test.mark, test.rest)
		}
	}
}
