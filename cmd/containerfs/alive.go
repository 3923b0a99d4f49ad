package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"containerfs/tree"
)

// liveness finds out whether an engine does its work: events come from the kernel and
// reach the model, and the model can be read and changed. There is one look at a
// time; one that hangs is what the next ones report.
type liveness struct {
	steps []step
	wg    sync.WaitGroup

	mu   sync.Mutex
	look *look // under way, or nil
}

// step is one thing that has to work.
type step struct {
	name string
	do   func(context.Context) error
}

type look struct {
	began time.Time
	at    atomic.Pointer[string] // name of the step
	done  chan struct{}
	err   error // when done
}

// hearWithin bounds how long an event may take from the kernel. A storm of events does
// not delay it: any of them will do.
const hearWithin = 10 * time.Second

func (e *engine) liveness() *liveness {
	return livenessOf(e.host.Hear, e.tree.Drain, e.tree)
}

func livenessOf(hear func(context.Context) error, drain func(), model *tree.Tree) *liveness {
	return &liveness{steps: []step{
		{"events from the kernel", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, hearWithin)
			defer cancel()
			return hear(ctx)
		}},
		{"events on their way to the model", func(context.Context) error { drain(); return nil }},
		{"the lock of changes", func(context.Context) error { return model.Change(func() error { return nil }) }},
		{"the model", func(context.Context) error { model.View(func() {}); return nil }},
	}}
}

// check is nil when all steps came through before ctx was done.
func (l *liveness) check(ctx context.Context) error {
	l.mu.Lock()
	k := l.look
	if k == nil {
		k = &look{began: time.Now(), done: make(chan struct{})}
		l.look = k
		l.wg.Go(func() { l.run(k) })
	}
	l.mu.Unlock()
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
	}
	at := "nothing yet"
	if name := k.at.Load(); name != nil {
		at = *name
	}
	return fmt.Errorf("no answer for %v from: %s", time.Since(k.began).Round(time.Millisecond), at)
}

func (l *liveness) run(k *look) {
	for _, s := range l.steps {
		k.at.Store(&s.name)
		if err := s.do(context.Background()); err != nil {
			k.err = fmt.Errorf("%s: %w", s.name, err)
			break
		}
	}
	l.mu.Lock()
	l.look = nil
	l.mu.Unlock()
	close(k.done)
}

// wait returns when nothing is under way. The engine must have been closed.
func (l *liveness) wait() { l.wg.Wait() }
