// Package backlog has what callbacks find to be done, and must not do themselves, done by a
// goroutine that lives as long as there is some of it.
package backlog

import "sync"

// Most is how many items can wait in a Queue.
const Most = 1 << 16

// A Queue has items worked off, one after the other, in the order in which they came. All
// methods may be called concurrently.
type Queue[T any] struct {
	do      func(T)
	dropped func(n int)

	mu      sync.Mutex // a leaf
	waiting []T
	missed  int // since dropped was last told
	running bool
	closed  bool
	worker  sync.WaitGroup
}

// New makes a Queue. do works off an item; dropped is told how many found no room. Both are
// called by one goroutine at a time, without any lock.
func New[T any](do func(T), dropped func(n int)) *Queue[T] {
	return &Queue[T]{do: do, dropped: dropped}
}

// Add adds an item. It does not block, so it may be called with any lock held.
func (q *Queue[T]) Add(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return
	case len(q.waiting) >= Most:
		q.missed++
		return
	}
	q.waiting = append(q.waiting, item)
	if !q.running {
		q.running = true
		q.worker.Go(q.work)
	}
}

func (q *Queue[T]) work() {
	for {
		batch, missed := q.take()
		if missed > 0 {
			q.dropped(missed)
		}
		if len(batch) == 0 {
			return
		}
		for _, item := range batch {
			if q.isClosed() {
				break
			}
			q.do(item)
		}
	}
}

// take takes all that wait; without any the worker ends.
func (q *Queue[T]) take() (batch []T, missed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, missed = q.waiting, q.missed
	q.waiting, q.missed = nil, 0
	q.running = len(batch) > 0
	return batch, missed
}

func (q *Queue[T]) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// Wait returns when nothing is being done, and nothing waits. Nothing may be added meanwhile.
func (q *Queue[T]) Wait() { q.worker.Wait() }

// Close drops what was not begun, and returns when what is being done has ended. What is
// added later is dropped.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	q.closed = true
	q.waiting = nil
	q.mu.Unlock()
	q.worker.Wait()
}
