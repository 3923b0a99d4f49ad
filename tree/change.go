package tree

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// changeLock serialises changes: the tree's changeMu. Those that take microseconds,
// brief ones, are told apart from those that can take long, so that who must not wait
// for these need not.
type changeLock struct {
	mu    sync.Mutex
	long  atomic.Int32 // changes that can take long, and have mu or wait for it
	brief atomic.Int32 // brief ones of those who must not wait for long
}

// maxBrief bounds how many brief changes are waited for by who must not wait for long.
const maxBrief = 16

func (l *changeLock) Lock() {
	l.long.Add(1)
	l.mu.Lock()
}

func (l *changeLock) Unlock() {
	l.mu.Unlock()
	l.long.Add(-1)
}

// lockBrief is for a brief change. Without wait it gives up where it would have to
// wait for a long one, but for one that comes at that very moment, or for many.
func (l *changeLock) lockBrief(wait bool) bool {
	if wait {
		l.mu.Lock()
		return true
	}
	if l.brief.Add(1) > maxBrief || l.long.Load() > 0 {
		l.brief.Add(-1)
		return false
	}
	l.mu.Lock()
	l.brief.Add(-1)
	return true
}

func (l *changeLock) unlockBrief() { l.mu.Unlock() }

// ErrWouldWait is the error of a change that was asked for without a wait, and would
// have to wait for a long one, the host or the Keeper. Nothing that it asks for was done.
var ErrWouldWait = errors.New("the change would have to wait")

// Change runs f as a change: nothing else changes meanwhile, and what f reads
// of the model stays as it is, but for forks and exits.
func (t *Tree) Change(f func() error) error {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	return f()
}

// ChangeBriefly is Change for an f that takes microseconds. Without wait it is
// ErrWouldWait rather than wait for a change that can take long.
func (t *Tree) ChangeBriefly(wait bool, f func() error) error {
	if !t.changeMu.lockBrief(wait) {
		return ErrWouldWait
	}
	defer t.changeMu.unlockBrief()
	return f()
}

// isBrief reports whether an attach takes microseconds, as far as is known: of one
// thread, which the mirror moves at once, without effects of subsystems. Under changeMu it
// stays so, but for what the host does.
func (t *Tree) isBrief(r *AttachRequest) (brief bool) {
	if r.Process || t.mirror == nil || t.prompt == nil || !t.prompt() {
		return false
	}
	t.View(func() { brief = !hasEffects(r.To) && !slices.ContainsFunc(r.Also, hasEffects) })
	return brief
}

// hasEffects reports whether an attach to c does more than to move. With one of the locks.
func hasEffects(c *Container) bool {
	return slices.ContainsFunc(c.h.bound, func(b *registered) bool {
		return b.attach != nil || b.reattach != nil || b.processes
	})
}
