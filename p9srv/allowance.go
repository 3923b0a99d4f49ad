package p9srv

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// account is what is kept of where connections come from: an address, or a uid on unix
// sockets. All its connections together may have so many bytes of replies that were
// made, or are about to be, and were not taken; besides, each has room for small ones,
// which wait for nobody.
type account struct {
	conns  int // guarded by Server.mu
	unsent *semaphore.Weighted

	relieving sync.Mutex // leaf, held by who looks for a connection to hang up on
}

const (
	msgTreaddir uint8 = 40
	msgTread    uint8 = 116

	ownRoom   = 1 << minBufferShift // that each batch has, in the least buffer
	replyRoom = 512                 // for a reply, besides its data and what it repeats
)

// patience is how long a connection may leave its replies lying when others of its
// account cannot have any.
var patience = time.Second

var errUntaken = errors.New("replies were not taken while there was no room for others'")

// dataRoom is how much data the reply to a request can have.
func (s *session) dataRoom(r *request, slowFile bool) int64 {
	switch {
	case r.typ != msgTread && r.typ != msgTreaddir:
		return 0
	case slowFile:
		return int64(min(r.count, s.msize, maxSlowRead))
	}
	return int64(min(r.count, s.msize))
}

// makeRoom sees to it that a reply of the loop is within its account's allowance.
func (s *session) makeRoom(n int64) error {
	if s.batch != nil {
		n += int64(len(s.batch.b))
	}
	more := n - ownRoom - s.held
	if more <= 0 {
		return nil
	}
	more = max(more, ownRoom)
	err := s.reserve(more)
	if err == nil {
		s.held += more
	}
	return err
}

// reserve waits until so many bytes are within the account's allowance. While there is
// no room, who does not take what it has is hung up on.
func (s *session) reserve(n int64) error {
	unsent := s.account.unsent
	if n == 0 || unsent.TryAcquire(n) {
		return nil
	}
	// While serving is unset, workers write their own replies.
	if err := s.writeBatch(); err != nil {
		return err
	}
	for {
		s.srv.relieve(s.account)
		ctx, cancel := context.WithTimeout(s.ctx, patience/4)
		err := unsent.Acquire(ctx, n)
		cancel()
		if err == nil {
			break
		}
		if s.ctx.Err() != nil {
			return io.EOF // the session's end was asked for
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = true
	s.now = s.srv.counters.clock() // the wait is not the request's
	return s.writeErr
}

// relieve hangs up on the connections of an account that have left their replies lying
// for too long.
func (srv *Server) relieve(a *account) {
	if !a.relieving.TryLock() {
		return
	}
	defer a.relieving.Unlock()
	srv.mu.Lock()
	all := srv.sessionList()
	srv.mu.Unlock()
	now := time.Now()
	for _, s := range all {
		if s.account != a {
			continue
		}
		s.mu.Lock()
		untaken := !s.writeBegan.IsZero() && now.Sub(s.writeBegan) >= patience
		s.mu.Unlock()
		if untaken {
			s.end(errUntaken)
			s.conn.Close()
		}
	}
}
