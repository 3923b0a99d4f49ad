package ops

import "sync"

// turns have the changes of one user of a peer that can take long come one after the other,
// before they wait for the tree's: who asks for a thousand of them has others wait for the one
// that is under way, and not for all. So have they what is measured for his reads, which the
// server does itself each second to hold processes to their limits. Its lock is a leaf.
type turns struct {
	mu sync.Mutex
	of map[holder]*turn
}

type turn struct {
	mu   sync.Mutex // before the tree's locks
	many int        // that have it or wait for it
}

func (t *turns) enter(who holder) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[who]
	if one == nil {
		if t.of == nil {
			t.of = make(map[holder]*turn)
		}
		one = new(turn)
		t.of[who] = one
	}
	one.many++
	return one
}

func (t *turns) leave(who holder, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.many--; one.many == 0 {
		delete(t.of, who)
	}
}

// inTurn runs a change that can take long, or measures, for who is not privileged when it is his
// turn. It must not be called inside a change.
func (at *attachment) inTurn(change func() error) error {
	if at.privileged() {
		return change()
	}
	who := holder{at.caller.Origin, at.caller.UID}
	one := at.fs.turns.enter(who)
	defer at.fs.turns.leave(who, one)
	one.mu.Lock()
	defer one.mu.Unlock()
	return change()
}
