package hostproc

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// Options say how a Host learns what happens. The zero value is right.
type Options struct {
	// Polling leaves the connector alone.
	Polling bool

	// ReceiveBuffer is the size asked for the connector's socket; 0 is 64 MiB.
	ReceiveBuffer int

	// Interval is the time between the resyncs of polling; 0 is a second.
	Interval time.Duration

	// Urgent has events read and delivered Urgently: for who does something about
	// them that cannot wait until processes that take all the time let it.
	Urgent bool
}

// A Source describes where events come from.
type Source struct {
	// Connector is true for the proc connector, false for polling.
	Connector bool

	// Reason says why it is polling.
	Reason string

	// ReceiveBuffer is the size of the connector's socket buffer as the kernel
	// counts it, which is twice what was granted.
	ReceiveBuffer int

	// Interval is the time between the resyncs of polling.
	Interval time.Duration
}

func (s Source) String() string {
	if s.Connector {
		return fmt.Sprintf("proc connector, receive buffer %d KiB", s.ReceiveBuffer>>10)
	}
	return fmt.Sprintf("polling /proc every %v: %s", s.Interval, s.Reason)
}

// Stats count what a Host has received.
type Stats struct {
	Events  uint64 // received
	Lost    uint64 // made by the kernel and not received
	Resyncs uint64 // delivered

	Forks, Execs, Exits, IDs uint64 // delivered; IDs are changes of users and groups
}

// A Host is the machine that the process runs on. It implements tree.Host.
type Host struct {
	proc     *procFS
	source   Source
	interval time.Duration // of polling, also when the connector fails later
	urgent   bool
	delivery *delivery
	wg       sync.WaitGroup
	stop     chan struct{}

	life   sync.RWMutex // conn is used under it
	conn   *connector   // nil when polling
	reader *waiter      // with conn
	closed bool

	receiving sync.Mutex // of the socket: the order of batches
	batch     []event
	failed    error // what ended the receiving

	started atomic.Bool
	readErr atomic.Pointer[error]
}

var (
	_ tree.Host    = (*Host)(nil)
	_ tree.Glancer = (*Host)(nil)
)

// Open opens the host. If the connector is refused it falls back to polling and
// Source says why; an error is something that should not be. Events are
// gathered from now on, and delivered after Start.
func Open(opts Options) (*Host, error) {
	if opts.ReceiveBuffer == 0 {
		opts.ReceiveBuffer = 64 << 20
	}
	if opts.Interval == 0 {
		opts.Interval = time.Second
	}
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	h := &Host{
		proc:     proc,
		delivery: newDelivery(),
		stop:     make(chan struct{}),
		interval: opts.Interval,
		urgent:   opts.Urgent,
		source:   Source{Interval: opts.Interval, Reason: "asked for"},
	}
	if opts.Polling {
		return h, nil
	}
	h.conn, err = dial(opts.ReceiveBuffer)
	if err == nil {
		if h.reader, err = newWaiter(h.conn.fd); err != nil {
			h.conn.close()
		}
	}
	switch {
	case err == nil:
		h.source = Source{Connector: true, ReceiveBuffer: h.conn.size}
		h.proc.pidfds.Store(hasPidfds())
		h.delivery.exited = h.proc.threads.Drop
		h.delivery.missed = h.proc.threads.DropAll
	case errors.Is(err, ErrNoConnector):
		h.source.Reason = err.Error()
	default:
		proc.close()
		return nil, err
	}
	return h, nil
}

// Start begins to call the Model, first of all Resync. It is called once; the
// Model's methods can run before it returns.
func (h *Host) Start(m Model) {
	h.delivery.applying.Lock() // nobody helps before the Model is known
	defer h.delivery.applying.Unlock()
	if h.started.Swap(true) {
		panic("hostproc: Host started twice")
	}
	run := func(f func()) {
		if h.urgent {
			h.wg.Go(func() { Urgently(f) })
		} else {
			h.wg.Go(f)
		}
	}
	h.delivery.model = m
	h.delivery.ask()
	run(h.delivery.run)
	if h.conn != nil {
		run(h.read)
	} else {
		run(h.poll)
	}
}

// Close ends the delivery and waits until the Model is not called any more.
// What was not delivered is dropped. Callers of Drain return.
func (h *Host) Close() error {
	h.life.Lock()
	if h.closed {
		h.life.Unlock()
		return nil
	}
	h.closed = true
	h.life.Unlock()
	close(h.stop)
	h.delivery.close()
	if h.conn != nil {
		h.reader.stop()
	}
	h.wg.Wait()
	h.delivery.ended()
	if h.conn != nil {
		h.reader.close()
		h.conn.close()
	}
	h.proc.close()
	return nil
}

// Source says where events come from.
func (h *Host) Source() Source { return h.source }

// Stats returns the counts so far, and the error that ended the reading of
// events, if something did: a Host in that state lies about new tasks.
func (h *Host) Stats() (Stats, error) {
	d := h.delivery
	s := Stats{Events: d.events.Load(), Lost: d.lost.Load(), Resyncs: d.resyncs.Load(),
		Forks: d.forks.Load(), Execs: d.execs.Load(), Exits: d.exits.Load(), IDs: d.ids.Load()}
	if err := h.readErr.Load(); err != nil {
		return s, *err
	}
	return s, nil
}

// read is the goroutine that empties the socket and does nothing else.
func (h *Host) read() {
	var failed error
	// While events come closer together than a nap or two, they are let gather.
	busy := false
	nap := h.nap()
	var last time.Time
	for failed == nil && !h.stopping() {
		if busy {
			time.Sleep(nap)
		} else {
			failed = h.reader.wait() // also when who drains has found an error
		}
		some := false
		for more := true; more && failed == nil; {
			var left queue
			left, failed = h.receive(false)
			some = some || left != queueEmpty
			more = left == queueFull || left == queueUnknown
		}
		if busy = some; some {
			now := time.Now()
			busy, last = now.Sub(last) < 2*nap, now
		}
	}
	if _, err := h.receive(false); err != nil {
		failed = err
	}
	select {
	case <-h.stop:
	default:
		err := error(&OpError{"receive", "proc connector", failed})
		h.readErr.Store(&err)
		h.proc.pidfds.Store(false)
		h.proc.threads.DropAll()
		h.delivery.wake()
		// Nothing will be known from events any more: go on as well as can be.
		h.poll()
	}
}

// nap is how long the reader of a socket that is busy lets events gather: a wake-up for
// each of them would cost more than all the rest. Drain does not wait for its end.
func (h *Host) nap() time.Duration {
	if h.urgent {
		return time.Millisecond
	}
	return 2 * time.Millisecond
}

// receive moves a batch of events from the socket to the delivery, and says what that
// tells of the queue. Whoever drains does so itself rather than wake the reader for it,
// and then helps to deliver them.
func (h *Host) receive(helps bool) (left queue, err error) {
	h.receiving.Lock()
	defer h.receiving.Unlock()
	d := h.delivery
	d.enter()
	defer d.leave()
	if h.failed != nil {
		return queueUnknown, h.failed
	}
	h.life.RLock()
	if h.closed {
		h.life.RUnlock()
		return queueEmpty, nil
	}
	h.batch, left, err = h.conn.receive(h.batch[:0])
	h.life.RUnlock()
	if len(h.batch) > 0 && !d.put(h.batch, helps) {
		return queueEmpty, nil
	}
	if err == unix.EAGAIN {
		return left, nil
	}
	if err != nil {
		h.failed = err
		h.reader.stop()
	}
	return left, err
}

func (h *Host) stopping() bool {
	select {
	case <-h.stop:
		return true
	default:
		return false
	}
}

// poll is the goroutine that stands in for events.
func (h *Host) poll() {
	t := time.NewTicker(max(h.interval, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-t.C:
			h.delivery.ask()
		}
	}
}

// Drain returns when every event that the kernel had queued before the call
// has been delivered: see the package documentation for what that means for
// forks and for exits. With the connector it costs a poll of the socket when nothing is
// outstanding; else it waits until all is quiet, or until as much was delivered
// as can have been queued at the call, since the queue is first in, first out.
// Polling has nothing but a scan of /proc, which begins after the call.
func (h *Host) Drain() {
	if !h.started.Load() {
		return
	}
	d := h.delivery
	if h.hears() {
		if h.quiet() {
			return
		}
		mark := d.fetch(h.queued(), func() (queue, error) { return h.receive(true) })
		d.help(mark)
		d.wait(func() bool {
			return h.quiet() || d.applied.Load() >= mark && !h.conn.overflow.Load() || !h.hears()
		})
		if h.hears() {
			return
		}
	}
	mark := d.ask()
	d.wait(func() bool { return d.applied.Load() >= mark })
}

// Resync has the Model compare itself with the host once more, and does not wait for it.
func (h *Host) Resync() { h.delivery.ask() }

// Prompt reports whether Drain takes microseconds, as far as is known: the kernel tells
// of events, none was lost of late, and not many wait to be delivered.
func (h *Host) Prompt() bool {
	return h.hears() && !h.conn.overflow.Load() && h.delivery.prompt()
}

// hears reports whether the kernel tells of events.
func (h *Host) hears() bool { return h.conn != nil && h.readErr.Load() == nil }

// quiet looks at the socket, then at the reader, then at the entries: what
// moves on between the looks is seen at the later place.
func (h *Host) quiet() bool {
	h.life.RLock()
	defer h.life.RUnlock()
	return h.closed || !h.conn.pending() && h.delivery.quiet()
}

func (h *Host) queued() uint64 {
	h.life.RLock()
	defer h.life.RUnlock()
	if h.closed {
		return 0
	}
	return h.conn.queued()
}

// Task implements tree.Host.
func (h *Host) Task(tid int32) (tree.TaskInfo, error) {
	t, err := h.proc.task(tid)
	if err != nil {
		return t, failTask("look up", tid, err)
	}
	return t, nil
}

// Glance implements tree.Glancer, of a thread that was looked at before and of which a
// pidfd is kept: in one call of the kernel.
func (h *Host) Glance(tid int32) (info tree.TaskInfo, ok bool) {
	if !h.started.Load() || !h.hears() {
		return info, false
	}
	t, held, since := h.proc.threads.Take(tid)
	if !held {
		return info, false
	}
	defer h.proc.threads.Keep(tid, t, since)
	info = tree.TaskInfo{TID: tid, TGID: t.tgid, Start: t.start, Kernel: t.kernel}
	h.life.RLock()
	defer h.life.RUnlock()
	if !t.pidfd || h.closed {
		return info, false
	}
	ready, err := pollNow(unix.POLLIN, h.conn.fd, int(t.FD)) // see quiet and readPidfd
	return info, !ready && err == nil && h.delivery.quiet()
}

// Owner implements tree.Host.
func (h *Host) Owner(tid int32) (ruid, suid uint32, err error) {
	ruid, suid, err = h.proc.owner(tid)
	if err != nil {
		return 0, 0, failTask("owner of", tid, err)
	}
	return ruid, suid, nil
}

// Tasks implements tree.Host.
func (h *Host) Tasks(tgid int32, yield func(tree.TaskInfo) bool) error {
	if err := h.proc.tasks(tgid, yield); err != nil {
		return &OpError{"list", "tasks of " + strconv.Itoa(int(tgid)), err}
	}
	return nil
}
