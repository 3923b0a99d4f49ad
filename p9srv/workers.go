package p9srv

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// workers serve requests, each one at a time. A few wait for the next: a goroutine
// that is made for a request has to find out anew how much stack it takes.
//
// What they serve can have a thread of the process each for as long as the host takes its
// time, and a Go program that would have more than 10,000 is ended. So an account has only so
// many requests served by them at once, and all together; others wait.
type workers struct {
	jobs  chan job
	idle  atomic.Int32
	ended chan struct{}
	end   func()

	running *semaphore.Weighted // requests, but for those of the privileged on unix sockets
}

// job is a request of a session.
type job struct {
	s *session
	r *request
}

// maxIdle bounds the workers that wait.
const maxIdle = 64

func newWorkers(most int) *workers {
	w := &workers{jobs: make(chan job), ended: make(chan struct{}), running: semaphore.NewWeighted(int64(most))}
	w.end = sync.OnceFunc(func() { close(w.ended) })
	return w
}

// start has a job done by a worker that waits, or by another.
func (w *workers) start(j job) {
	select {
	case w.jobs <- j:
	default:
		go w.run(j)
	}
}

func (w *workers) run(j job) {
	for {
		j.s.work(j.r)
		j = job{} // it is garbage from here on
		if w.idle.Add(1) > maxIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case j = <-w.jobs:
			w.idle.Add(-1)
		case <-w.ended:
			return
		}
	}
}

// serveSlowly serves a request when there is room for one more that can take its time.
func (s *session) serveSlowly(r *request) (reply *buffer, err error) {
	// Requests in hand are answered, so this is not until the session ends. Neither can
	// fail then.
	_ = s.account.running.Acquire(context.Background(), 1)
	defer s.account.running.Release(1)
	if !s.peer.local || s.peer.stranger {
		_ = s.srv.workers.running.Acquire(context.Background(), 1)
		defer s.srv.workers.running.Release(1)
	}
	reply = getBuffer(0)
	reply.b, err = s.serve(r, reply.b)
	return reply, err
}
