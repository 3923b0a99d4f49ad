package p9srv

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// account is what is kept of where connections come from: an address, or a uid on unix
// sockets. All its connections together may have so many bytes of replies that were
// made, or are about to be, and were not taken; besides, each has room for small ones,
// which wait for nobody. And they may have so many fids, so many requests that workers
// serve at once, and so many bytes of all that workers have.
type account struct {
	conns  int // guarded by Server.mu
	fids   atomic.Int64
	unsent *semaphore.Weighted

	waiting *semaphore.Weighted // bytes of requests that workers have
	running *semaphore.Weighted // requests that workers serve

	mu      sync.Mutex // a leaf
	lacking int        // sessions that wait for room for replies
	watched bool       // relieve will be called, and again as long as there are some
}

const (
	ownRoom   = 1 << minBufferShift // that each batch has, in the least buffer
	replyRoom = 512                 // for what a reply has besides
)

// patience is how long a connection may leave its replies lying when others of its
// account cannot have any.
var patience = time.Second

var errUntaken = errors.New("replies were not taken while there was no room for others'")

// dataRoom is how much data the reply to a request can have.
func (s *session) dataRoom(r *request, slowFile bool) int64 {
	switch {
	case r.typ == msgTgetlock:
		return int64(len(r.lock.client)) // which it repeats
	case r.typ != msgTread && r.typ != msgTreaddir:
		return 0
	case slowFile:
		return int64(min(r.count, s.msize, maxSlowRead))
	}
	return int64(min(r.count, s.msize))
}

// reserveInBatch waits until a reply of the loop with so much data is within the
// account's allowance. For that the batch may be written.
func (s *session) reserveInBatch(data int64) error {
	lacks := func() int64 {
		n := data + replyRoom - ownRoom - s.held
		if s.batch != nil {
			n += int64(len(s.batch.b))
		}
		return max(n, 0)
	}
	n := lacks()
	if !s.tryReserve(n) {
		if err := s.writeBatch(); err != nil {
			return err
		}
		n = lacks() // in an empty batch
		if err := s.awaitRoom(n); err != nil {
			return err
		}
	}
	s.held += n
	return nil
}

// reserve waits until so many bytes of a worker's reply are within the account's
// allowance.
func (s *session) reserve(n int64) error {
	if s.tryReserve(n) {
		return nil
	}
	if err := s.writeBatch(); err != nil {
		return err
	}
	return s.awaitRoom(n)
}

func (s *session) tryReserve(n int64) bool { return n == 0 || s.account.unsent.TryAcquire(n) }

// What a request takes that a worker has, besides its frame: the goroutine's stack, for the
// most part. A Tflush has none.
const (
	waitCost  = 8 << 10
	flushCost = 1 << 10
)

// reserveWaiting waits until a request with such a cost can wait for what workers do, within the
// account's allowance. Until then no more is read: what has to wait for others of the account,
// over however many connections it comes, is the peer's to hold.
func (s *session) reserveWaiting(cost int64) error {
	if s.account.waiting.TryAcquire(cost) {
		return nil
	}
	if err := s.writeBatch(); err != nil {
		return err
	}
	if s.account.waiting.Acquire(s.ctx, cost) != nil {
		return io.EOF // the session's end was asked for
	}
	s.startServing()
	return nil
}

// awaitRoom waits in turn, with the batch written: while serving is unset, workers write
// their own replies. Meanwhile who does not take what he has is hung up on. Who needs
// nothing now that the batch is written does not wait.
func (s *session) awaitRoom(n int64) error {
	if n == 0 {
		s.startServing()
		return nil
	}
	a := s.account
	a.mu.Lock()
	if a.lacking++; !a.watched {
		a.watched = true
		s.srv.relieveSoon(a)
	}
	a.mu.Unlock()
	err := a.unsent.Acquire(s.ctx, n)
	a.mu.Lock()
	a.lacking--
	a.mu.Unlock()
	if err != nil {
		return io.EOF // the session's end was asked for
	}
	s.startServing()
	return nil
}

func (srv *Server) relieveSoon(a *account) {
	time.AfterFunc(patience/4, func() {
		srv.relieve(a)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.watched = a.lacking > 0; a.watched {
			srv.relieveSoon(a)
		}
	})
}

// relieve hangs up on the connections of an account that have left their replies lying
// for too long.
func (srv *Server) relieve(a *account) {
	srv.mu.Lock()
	sessions := srv.sessionsLocked(func(s *session) bool { return s.account == a })
	srv.mu.Unlock()
	now := time.Now()
	for _, s := range sessions {
		s.mu.Lock()
		untaken := !s.writeBegan.IsZero() && now.Sub(s.writeBegan) >= patience
		s.mu.Unlock()
		if untaken {
			s.end(errUntaken)
			s.conn.Close()
		}
	}
}
