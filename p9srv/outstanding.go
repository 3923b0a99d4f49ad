package p9srv

import (
	"runtime"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// isOutstanding reports whether a worker has a request of that tag. The loop's own
// requests are answered before the next frame is looked at.
func (s *session) isOutstanding(tag uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[tag] != nil
}

// admit waits until one more request is within the window, and keeps
// the batch within its bound.
func (s *session) admit() error {
	window := s.srv.cfg.MaxRequests
	if s.batched >= window || s.batch != nil && len(s.batch.b) >= maxBatch {
		if err := s.resume(); err != nil {
			return err
		}
	}
	return s.waitFor(func() bool { return s.outstanding+s.batched < window })
}

// waitFor writes the batch and waits until ready, which looks under mu.
func (s *session) waitFor(ready func() bool) error {
	s.mu.Lock()
	ok := ready()
	s.mu.Unlock()
	if ok {
		return nil
	}
	// While serving is unset, workers write their own replies.
	if err := s.writeBatch(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ready() && s.writeErr == nil {
		s.cond.Wait()
	}
	s.serving = true
	s.now = s.srv.counters.clock() // the wait is not the request's
	return s.writeErr
}

// resume writes the batch and goes on serving.
func (s *session) resume() error {
	err := s.writeBatch()
	s.startServing()
	return err
}

// forWorker decides who serves a request: a worker if it can be slow, or
// if a worker has an earlier one of the same fid. slowFile says that the fid's File is
// known to be: nobody looks at a fid that a worker has.
func (s *session) forWorker(r *request) (worker, slowFile bool) {
	s.mu.Lock()
	busy := len(s.queues) > 0 && (len(s.queues[r.fid]) > 0 || len(s.queues[r.fid2]) > 0)
	f := s.fids[r.fid]
	s.mu.Unlock()
	switch {
	case busy || r.msg.pace == slow:
		return true, false
	case r.msg.pace == writes:
		if f != nil {
			_, r.now = f.file.(prompter)
		}
		return !r.now, false
	case r.msg.pace == quick, r.msg.pace == opens && p9.OpenFlags(r.flags).Mode() == p9.WriteOnly:
		return false, false
	}
	slowFile = f != nil && f.isSlow()
	return slowFile, slowFile
}

// giveToWorker puts a request behind the earlier ones of its fids.
func (s *session) giveToWorker(r *request) {
	r = r.forWorker()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags == nil {
		s.tags = make(map[uint16]*request)
		s.queues = make(map[uint32][]*request)
	}
	s.tags[r.tag] = r
	s.outstanding++
	s.enqueue(r, r.fid)
	if r.fid2 != r.fid {
		s.enqueue(r, r.fid2)
	}
	if r.waits == 0 {
		s.startLocked(r)
	}
}

func (s *session) enqueue(r *request, n uint32) {
	if n == wire.NoFid {
		return
	}
	q := s.queues[n]
	if len(q) > 0 {
		r.waits++
	}
	s.queues[n] = append(q, r)
}

// dequeue takes the first request of a fid away, which has been served, and
// starts the next if it waits for nothing else.
func (s *session) dequeue(n uint32) {
	if n == wire.NoFid {
		return
	}
	q := s.queues[n][1:]
	if len(q) == 0 {
		delete(s.queues, n)
		return
	}
	s.queues[n] = q
	if q[0].waits--; q[0].waits == 0 {
		s.startLocked(q[0])
	}
}

func (s *session) startLocked(r *request) {
	s.workers.Add(1)
	s.srv.workers.start(job{s, r})
}

// work serves one request, in a worker, and sees to its reply.
func (s *session) work(r *request) {
	defer s.workers.Done()
	reply, err := s.serveSlowly(r)
	t := tally{r.typ, 1, 1}
	if err != nil {
		t.ok = 0
		s.countError(r.typ, err)
	}
	s.stripe.add(t, s.srv.counters.clock()-r.taken)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		s.out = reply
	} else {
		s.out.b = append(s.out.b, reply.b...)
		putBuffer(reply)
	}
	s.answeredLocked(r)
	s.dequeue(r.fid)
	if r.fid2 != r.fid {
		s.dequeue(r.fid2)
	}
	s.cond.Broadcast()
	if !s.serving && !s.writing {
		s.writing = true
		s.mu.Unlock()
		runtime.Gosched() // those who are about to finish can still join
		s.mu.Lock()
		s.writeLocked()
	}
}

// answeredLocked is called when the reply of a request is in out: its tag is free, and
// the flushes that wait for it are answered.
func (s *session) answeredLocked(r *request) {
	delete(s.tags, r.tag)
	s.account.waiting.Release(r.cost)
	s.outReplies++
	s.outHeld += r.held
	for _, f := range r.flushes {
		s.out.b = appendRflush(s.out.b, f.tag)
		s.answeredLocked(f)
	}
}

// flush answers a Tflush after the request that it names. That request runs to its
// end: there is nothing in it that blocks for good.
func (s *session) flush(tag uint16, body *wire.Decoder) error {
	old := body.U16()
	if !body.Finish() || tag == wire.NoTag {
		s.refuse(msgTflush, tag, linux.EINVAL)
		return nil
	}
	s.count(msgTflush, nil)
	if err := s.reserveWaiting(flushCost); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.tags[old]; r != nil && old != tag {
		f := &request{tag: tag, cost: flushCost}
		r.flushes = append(r.flushes, f)
		s.tags[tag] = f
		s.outstanding++
		return nil
	}
	s.account.waiting.Release(flushCost)
	b := s.batchBuffer()
	b.b = appendRflush(b.b, tag)
	s.batched++
	return nil
}

func appendRflush(out []byte, tag uint16) []byte {
	start := len(out)
	return wire.End(wire.Begin(out, msgTflush+1, tag), start)
}

// writeBatch writes the batch behind the workers' replies that are ready. After
// it the loop is no longer serving.
func (s *session) writeBatch() error {
	s.countBatch()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.cond.Wait()
	}
	if s.batch != nil {
		// A buffer that grows is copied, and what it was is garbage.
		s.usual = max(len(s.batch.b), s.usual/2)
		if s.out == nil {
			s.out = s.batch
		} else {
			s.out.b = append(s.out.b, s.batch.b...)
			putBuffer(s.batch)
		}
		s.batch, s.batched = nil, 0
	}
	s.outHeld += s.held
	s.held = 0
	s.serving = false
	s.writing = true
	s.writeLocked()
	return s.writeErr
}

// maxPiece is how much the peer has WriteTimeout for. What is written at once can be all that
// was asked for in one window, which a slow network takes minutes for.
const maxPiece = 64 << 10

// send writes to the connection. The caller has set writing. When the session is to end there
// is one time for all that is left.
func (s *session) send(b []byte, now time.Time) (err error) {
	for err == nil && len(b) > 0 {
		// Moving the deadline costs more than looking at the clock.
		if s.writeDue.Sub(now) < s.srv.cfg.WriteTimeout/2 {
			s.writeDue = now.Add(s.srv.cfg.WriteTimeout)
			s.conn.SetWriteDeadline(s.writeDue)
		}
		piece := b[:min(len(b), maxPiece)]
		if s.writer != nil {
			err = s.writer.WriteAll(piece)
		} else {
			_, err = s.conn.Write(piece)
		}
		if b = b[len(piece):]; len(b) > 0 && !s.isEnding() {
			now = time.Now()
		}
	}
	return err
}

func (s *session) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// writeLocked writes until out is empty. The caller has set writing.
func (s *session) writeLocked() {
	for s.out != nil {
		buf, replies, held := s.out, s.outReplies, s.outHeld
		s.out, s.outReplies, s.outHeld = nil, 0, 0
		err := s.writeErr
		now := time.Now()
		s.writeBegan = now
		s.mu.Unlock()
		if err == nil {
			if err = s.send(buf.b, now); err != nil {
				s.conn.Close()
				s.cancel()
			}
		}
		putBuffer(buf)
		s.account.unsent.Release(held)
		s.mu.Lock()
		s.writeBegan = time.Time{}
		s.writeErr = err
		s.outstanding -= replies
		s.cond.Broadcast()
	}
	s.writing = false
	s.cond.Broadcast()
}
