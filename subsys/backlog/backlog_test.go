package backlog

import (
	"sync/atomic"
	"testing"
)

// The queue is bounded, and says what it dropped; Close ends it.
func TestQueue(t *testing.T) {
	gate := make(chan struct{})
	var done, dropped atomic.Int32
	doing := make(chan struct{}, Most+10)
	q := New(func(int) { done.Add(1); doing <- struct{}{}; <-gate }, func(n int) { dropped.Add(int32(n)) })
	q.Add(0)
	<-doing
	for i := range Most + 3 {
		q.Add(i)
	}
	close(gate)
	q.Wait()
	if done.Load() != 1+Most || dropped.Load() != 3 {
		t.Errorf("%d were done, %d dropped", done.Load(), dropped.Load())
	}
	gate = make(chan struct{})
	q.Add(0)
	q.Add(0)
	closed := make(chan struct{})
	go func() { q.Close(); close(closed) }()
	for !q.isClosed() {
	}
	before := done.Load()
	close(gate)
	<-closed
	q.Add(0)
	q.Wait()
	if done.Load() > before+1 {
		t.Errorf("%d more were done after Close", done.Load()-before)
	}
}

// Items are worked off in their order.
func TestOrder(t *testing.T) {
	var got []int
	q := New(func(i int) { got = append(got, i) }, func(int) {})
	for i := range 1000 {
		q.Add(i)
	}
	q.Wait()
	for i, n := range got {
		if n != i || len(got) != 1000 {
			t.Fatalf("the %d. of %d is %d", i, len(got), n)
		}
	}
}
