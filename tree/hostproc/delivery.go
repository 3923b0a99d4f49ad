package hostproc

import (
	"sync"
	"sync/atomic"

	"containerfs/tree"
)

// A Model is told what happens to the host's tasks. See the package
// documentation for order and for what the events do not say. A tree.Tree is
// one, but for Resync.
type Model interface {
	// Fork: a thread was made. The parent is the child's real_parent, which
	// need not be the task that called fork.
	Fork(tree.ForkEvent)

	// Exec: process tgid runs another program and has one thread, tgid.
	Exec(tgid int32)

	// Exit: a thread is exiting.
	Exit(tid int32)

	// Resync: so many events were lost, or 0: nobody knows how many, or there
	// are no events (polling), or this is the start. The Model compares
	// itself with Host.Tasks. Events that came meanwhile follow, so that
	// a FORK can name a task that the scan has found and an EXIT one that it
	// has missed.
	Resync(lost uint64)
}

// An IDModel is a Model that wants to know of changed users and groups.
type IDModel interface {
	// SetID: a thread changed its user, or with group set its group. ts is
	// the event's CLOCK_MONOTONIC time stamp in nanoseconds.
	SetID(tid, tgid int32, group bool, real, effective uint32, ts int64)
}

// An ExecModel is a Model that wants to know when a program was executed, too.
type ExecModel interface {
	// Executed is called in the place of Exec. ts is the event's time stamp, as SetID's.
	Executed(tgid int32, ts int64)
}

// backlog is how many events may wait for the Model in this process. When it
// is reached the socket is left to fill.
const backlog = 1 << 18

// A delivery is the way of the events from the reader to the Model.
//
// Reader: enter, then receive and put as often as there is something, then
// leave. Applier: run, and whoever waits for what is on its way, by help: it is
// there sooner than another goroutine is awake. The order of the atomics matters for
// quiet: the reader announces itself before it takes anything from the socket, and
// leaves after what it took is counted in received.
type delivery struct {
	reading  atomic.Bool
	received atomic.Uint64 // entries put
	applied  atomic.Uint64 // entries the Model has seen
	waiting  atomic.Int32  // callers in wait
	events   atomic.Uint64
	lost     atomic.Uint64
	resyncs  atomic.Uint64
	asked    atomic.Int64  // resyncs that are put and have not ended
	forks    atomic.Uint64 // delivered, as are the following
	execs    atomic.Uint64
	exits    atomic.Uint64
	ids      atomic.Uint64
	limit    int

	// Called before the Model is told of an exit, or has to find out what has exited.
	exited func(tid int32)
	missed func()

	// applying is held by who calls the Model. It comes before mu.
	applying sync.Mutex
	model    Model
	batch    []event // that is being applied, or was: its memory is used again

	mu       sync.Mutex
	pending  []event // entries not yet taken by the applier
	resync   int     // position of the last resync in pending, or -1
	closed   bool
	entries  sync.Cond // pending got longer, or closed
	room     sync.Cond // pending got shorter, or closed
	progress sync.Cond // applied or reading changed, or closed
}

func newDelivery() *delivery {
	d := &delivery{resync: -1, limit: backlog, exited: func(int32) {}, missed: func() {}}
	for _, c := range []*sync.Cond{&d.entries, &d.room, &d.progress} {
		c.L = &d.mu
	}
	return d
}

func (d *delivery) enter() { d.reading.Store(true) }

func (d *delivery) leave() {
	d.reading.Store(false)
	d.wake()
}

// put hands entries on, and waits while too many are there. It returns false
// when the delivery is closed. Whoever helps need not have the applier told.
func (d *delivery) put(batch []event, helps bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.pending) >= d.limit && !d.closed {
		d.entries.Signal() // who helps may have left it out
		d.room.Wait()
	}
	if d.closed {
		return false
	}
	for i := range batch {
		d.putLocked(&batch[i])
	}
	if !helps {
		d.entries.Signal()
	}
	return true
}

func (d *delivery) putLocked(e *event) {
	if e.kind == kindResync {
		d.lost.Add(e.lost)
		// One that has not begun will see all that happened until now.
		if d.resync >= 0 {
			d.pending[d.resync].lost += e.lost
			return
		}
		d.resync = len(d.pending)
		d.asked.Add(1)
	} else {
		d.events.Add(1)
	}
	d.pending = append(d.pending, *e)
	d.received.Add(1)
}

// ask puts a resync and returns the count that applied reaches with it.
func (d *delivery) ask() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putLocked(&event{kind: kindResync})
	d.entries.Signal()
	return d.received.Load() - uint64(len(d.pending)-1-d.resync)
}

// run calls the Model until close.
func (d *delivery) run() {
	for {
		d.mu.Lock()
		for len(d.pending) == 0 && !d.closed {
			d.entries.Wait()
		}
		closed := d.closed
		d.mu.Unlock()
		if closed {
			return
		}
		d.applying.Lock()
		d.step()
		d.applying.Unlock()
	}
}

// fetch receives what is in the socket, in which so many messages may be queued, and
// returns the count that applied reaches with it. What comes meanwhile is not waited for.
func (d *delivery) fetch(queued uint64, receive func() (queue, error)) (mark uint64) {
	// What the reader holds, at most a batch, is neither in the socket nor
	// counted in received; and a resync can come on top.
	mark = d.received.Load() + batchSize + 1 + queued
	dropped := false
	for range queued/batchSize + 1 {
		left, err := receive()
		switch {
		case err != nil:
			return mark
		case left == queueEmpty, left == queueEmptied && !dropped:
			return d.received.Load()
		}
		dropped = dropped || left == queueUnknown
	}
	if dropped {
		return mark
	}
	return d.received.Load() // full batches, with all that was queued
}

// help applies what is pending, until the count is reached, if nobody else does.
func (d *delivery) help(mark uint64) {
	if d.applying.TryLock() {
		for d.applied.Load() < mark && d.step() {
		}
		d.applying.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pending) > 0 {
		d.entries.Signal() // which was left out
	}
}

// step applies what is pending, and returns false when there was nothing. The caller
// holds applying.
func (d *delivery) step() bool {
	d.mu.Lock()
	if len(d.pending) == 0 || d.closed {
		d.mu.Unlock()
		return false
	}
	d.batch, d.pending = d.pending, d.batch[:0]
	d.resync = -1
	d.room.Signal()
	d.mu.Unlock()
	ids, _ := d.model.(IDModel)
	execs, _ := d.model.(ExecModel)
	asleep := sleep()
	for i := range d.batch {
		d.apply(d.model, ids, execs, &d.batch[i], asleep)
		d.applied.Add(1)
		if i%64 == 63 {
			d.wake()
		}
	}
	d.wake()
	if cap(d.batch) > 1<<14 {
		d.batch = nil // a storm's memory is not kept
	}
	return true
}

func (d *delivery) apply(m Model, ids IDModel, execs ExecModel, e *event, asleep int64) {
	a, b := int32(e.id[0]), int32(e.id[1])
	switch e.kind {
	case kindFork:
		d.forks.Add(1)
		m.Fork(tree.ForkEvent{
			ParentTID: a, ParentTGID: b, TID: int32(e.id[2]), TGID: int32(e.id[3]),
			Time: e.ts, StartMax: ticksAt(e.ts, asleep),
		})
	case kindExec:
		d.execs.Add(1)
		if execs != nil {
			execs.Executed(b, e.ts)
		} else {
			m.Exec(b)
		}
	case kindExit:
		d.exits.Add(1)
		d.exited(a)
		m.Exit(a)
	case kindUID, kindGID:
		d.ids.Add(1)
		if ids != nil {
			ids.SetID(a, b, e.kind == kindGID, e.id[2], e.id[3], e.ts)
		}
	case kindResync:
		d.resyncs.Add(1)
		d.missed()
		m.Resync(e.lost)
		d.asked.Add(-1)
	}
}

// few are as many entries as are delivered in less than a millisecond.
const few = 256

// prompt reports whether the Model is told soon of what there is.
func (d *delivery) prompt() bool {
	applied := d.applied.Load() // first, or more may have been applied than received was
	return d.asked.Load() == 0 && d.received.Load()-applied <= few
}

// quiet is true when nothing is between the socket and the Model. The socket
// has been looked at before: the order is that of the events' way.
func (d *delivery) quiet() bool {
	return !d.reading.Load() && d.applied.Load() == d.received.Load()
}

// wait returns when done says so; it is asked after each progress.
func (d *delivery) wait(done func() bool) {
	// Announced before done looks: whoever makes progress after that look
	// sees it and needs mu to wake, which Wait gives up.
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && !done() {
		d.progress.Wait()
	}
}

func (d *delivery) wake() {
	if d.waiting.Load() == 0 {
		return
	}
	d.mu.Lock()
	d.progress.Broadcast()
	d.mu.Unlock()
}

func (d *delivery) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.entries.Broadcast()
	d.room.Broadcast()
	d.progress.Broadcast()
}

// ended returns when the Model is not called any more. The delivery is closed.
func (d *delivery) ended() {
	d.applying.Lock()
	defer d.applying.Unlock()
}
