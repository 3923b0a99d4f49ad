package backlog

import (
	"sync/atomic"
	"testing"
	"time"
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

// Close waits for what is being done, and for nothing that was taken together with it. Nothing
// is told of if nothing was dropped.
func TestClose(t *testing.T) {
	gate, doing := make(chan struct{}), make(chan int)
	q := New(func(i int) { doing <- i; <-gate }, func(n int) { t.Errorf("%d were dropped", n) })
	q.Add(1)
	if got := <-doing; got != 1 {
		t.Fatalf("%d is done first", got)
	}
	q.Add(2)
	q.Add(3)
	gate <- struct{}{}
	if got := <-doing; got != 2 { // which the worker took with 3
		t.Fatalf("%d is done second", got)
	}
	closed := make(chan struct{})
	go func() { q.Close(); close(closed) }()
	for !q.isClosed() {
	}
	q.Add(4)
	close(gate)
	select {
	case <-closed:
	case got := <-doing:
		t.Fatalf("%d is done after Close", got)
	}
	q.Add(5)
	select {
	case got := <-doing:
		t.Errorf("%d is done after Close", got)
	case <-time.After(10 * time.Millisecond):
	}
}

// Items are worked off in their order.
func TestOrder(t *testing.T) {
	var got []int
	q := New(func(i int) { got = append(got, i) }, func(int) {})
	for i := range 1000 {
		if i == 500 {
			q.Wait() // and the next one begins anew
		}
		q.Add(i)
	}
	q.Wait()
	for i, n := range got {
		if n != i || len(got) != 1000 {
			t.Fatalf("the %d. of %d is %d", i, len(got), n)
		}
	}
}
