package p9srv

import (
	"sync"
	"sync/atomic"
)

// workers serve requests, each one at a time. A few wait for the next: a goroutine
// that is made for a request has to find out anew how much stack it takes.
type workers struct {
	jobs  chan job
	idle  atomic.Int32
	ended chan struct{}
	end   func()
}

// job is a request of a session.
type job struct {
	s *session
	r *request
}

// maxIdle bounds the workers that wait.
const maxIdle = 64

func newWorkers() *workers {
	w := &workers{jobs: make(chan job), ended: make(chan struct{})}
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
