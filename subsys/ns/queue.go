package ns

import (
	"log/slog"
	"sync"

	"containerfs/tree"
)

// maxWaiting bounds the processes that wait to be looked at.
const maxWaiting = 1 << 16

// queue has processes looked at, one after the other, in a goroutine that lives
// as long as there are any. It is added to under the Tree's mu.
type queue struct {
	look func(*tree.Process)
	log  *slog.Logger

	mu      sync.Mutex
	waiting []*tree.Process
	dropped int // since it was last said
	running bool
	closed  bool
	worker  sync.WaitGroup
}

func (q *queue) add(p *tree.Process) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return
	case len(q.waiting) >= maxWaiting:
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, p)
	if !q.running {
		q.running = true
		q.worker.Go(q.work)
	}
}

func (q *queue) work() {
	for {
		batch, dropped := q.take()
		if dropped > 0 {
			q.log.Warn("processes were not looked at for new namespaces: too many at once", "processes", dropped)
		}
		if len(batch) == 0 {
			return
		}
		for _, p := range batch {
			if q.isClosed() {
				break
			}
			q.look(p)
		}
	}
}

// take takes all that wait; without any the worker ends.
func (q *queue) take() (batch []*tree.Process, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, dropped = q.waiting, q.dropped
	q.waiting, q.dropped = nil, 0
	q.running = len(batch) > 0
	return batch, dropped
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.waiting = nil
	q.mu.Unlock()
	q.worker.Wait()
}
