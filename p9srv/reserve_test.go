package p9srv

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// SetPatience is for tests that start their server later.
func SetPatience(t *testing.T, d time.Duration) {
	was := patience
	t.Cleanup(func() { patience = was })
	patience = d
}

// TestReserve: what is held covers the reply that it was for, also when the batch had to
// be written for it, and is given back with it.
func TestReserve(t *testing.T) {
	const size, read = 4 << 20, 1 << 20
	srv := New(Config{})
	a, b := net.Pipe()
	defer b.Close()
	go io.Copy(io.Discard, b)
	s := newSession(srv, nil, a, peer{})
	s.account = &account{unsent: semaphore.NewWeighted(size)}
	s.msize = 1 << 20
	unsent := s.account.unsent
	free := func() bool {
		ok := unsent.TryAcquire(size)
		if ok {
			unsent.Release(size)
		}
		return ok
	}

	// A long read, which returns little, and another while others have the rest.
	if err := s.reserveInBatch(read); err != nil {
		t.Fatal(err)
	}
	first := s.held
	if first < read-ownRoom {
		t.Errorf("%d held for a read of %d", first, read)
	}
	s.batchBuffer().b = append(s.batchBuffer().b, "short"...)
	if !unsent.TryAcquire(size - first) {
		t.Fatal("more is held than is known of")
	}
	if err := s.reserveInBatch(read); err != nil {
		t.Fatal(err)
	}
	if s.held < read-ownRoom || s.batch != nil {
		t.Errorf("%d held for a read of %d", s.held, read)
	}
	unsent.Release(size - first)
	s.batchBuffer().b = append(s.batchBuffer().b, make([]byte, read)...)
	if err := s.writeBatch(); err != nil {
		t.Fatal(err)
	}
	if s.held != 0 || !free() {
		t.Errorf("%d held when all is written", s.held)
	}

	// Small ones do not wait.
	if !unsent.TryAcquire(size) {
		t.Fatal("not free")
	}
	if err := s.reserveInBatch(0); err != nil || s.held != 0 {
		t.Errorf("%v, %d held for a small reply", err, s.held)
	}
	// Nor do many, of which a batch is full, behind others that wait.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go unsent.Acquire(ctx, 1)
	for unsent.TryAcquire(0) { // nobody waits yet
		time.Sleep(time.Millisecond)
	}
	s.batchBuffer().b = append(s.batchBuffer().b, make([]byte, ownRoom)...)
	many := make(chan error)
	go func() { many <- s.reserveInBatch(0) }()
	select {
	case err := <-many:
		if err != nil || s.held != 0 || s.batch != nil {
			t.Errorf("%v, %d held, batch %v after many small replies", err, s.held, s.batch)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("small replies wait for room")
	}
	cancel()
	// Who waits for room is told of the end, and holds nothing then.
	waited := make(chan error)
	go func() { waited <- s.reserveInBatch(read) }()
	for s.account.waits() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.end(nil)
	if err := <-waited; err != io.EOF || s.held != 0 {
		t.Errorf("%v, %d held after the end", err, s.held)
	}
	unsent.Release(size)
	if !free() {
		t.Error("not all was given back")
	}
}

func (a *account) waits() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lacking
}

// TestRelieveEnds: it is looked for who is to be hung up on as long as somebody waits.
func TestRelieveEnds(t *testing.T) {
	SetPatience(t, 20*time.Millisecond)
	srv := New(Config{})
	a := &account{unsent: semaphore.NewWeighted(1)}
	a.unsent.TryAcquire(1)
	ctx, cancel := context.WithCancel(context.Background())
	const many = 100
	done := make(chan error)
	for range many {
		s := &session{srv: srv, account: a, ctx: ctx, cancel: cancel}
		s.cond.L = &s.mu
		go func() { done <- s.awaitRoom(1) }()
	}
	for a.waits() < many {
		time.Sleep(time.Millisecond)
	}
	a.mu.Lock()
	watched := a.watched
	a.mu.Unlock()
	if !watched {
		t.Error("nobody looks")
	}
	cancel()
	for range many {
		if err := <-done; err != io.EOF {
			t.Error(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		watched := a.watched
		a.mu.Unlock()
		if !watched {
			break
		}
		if time.Now().After(end) {
			t.Fatal("somebody looks when nobody waits")
		}
	}
}
