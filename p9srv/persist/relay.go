package persist

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"containerfs/p9srv/sock"
	"containerfs/p9srv/wire"
)

// Config is what a Relay needs to know.
type Config struct {
	// Dial makes another connection to the server.
	Dial func(context.Context) (net.Conn, error)

	// Patience is how long a request waits for a connection.
	Patience time.Duration

	// Log is told when a connection is lost, why there is no other yet, and what is
	// not there any more on the next. It is nil for who does not want to know.
	Log func(format string, args ...any)
}

// Bounds of what a client may have a Relay keep: then no more is read from it.
const (
	maxFirstFrame  = 8 << 10 // before there is an msize
	maxMsize       = 16 << 20
	maxOutstanding = 8 << 10
	maxHeld        = 16 << 20 // bytes of held requests
)

// Relay is one client's session. See the package documentation.
type Relay struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	room   sync.Cond // outstanding or held is less
	client *stream
	server *stream   // nil while there is none
	since  time.Time // when it was made

	version []byte // the client's Tversion
	agreed  []byte // the server's Rversion to it, nil before
	l       bool   // it is 9P2000.L
	msize   uint32

	fids        map[uint32]*fid
	outstanding map[uint16]*request
	seq         uint64
	held        int // bytes
}

// Serve relays between a client and a server until the client hangs up, or ctx is
// done. Both connections are closed then. An error is what else was the end.
func Serve(ctx context.Context, client, server net.Conn, cfg Config) error {
	r := &Relay{cfg: cfg, fids: make(map[uint32]*fid), outstanding: make(map[uint16]*request)}
	r.room.L = &r.mu
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	if r.cfg.Log == nil {
		r.cfg.Log = func(string, ...any) {}
	}
	r.client = newStream(&r.mu, client, bufio.NewReader(client))
	stop := context.AfterFunc(r.ctx, r.interrupt)
	defer stop()
	r.tasks.Go(func() {
		if r.client.write() != nil {
			r.cancel(io.EOF) // it has hung up
		}
		client.Close()
	})
	r.mu.Lock()
	r.connectLocked(newStream(&r.mu, server, bufio.NewReader(server)))
	r.mu.Unlock()

	err := r.listen()
	if cause := context.Cause(r.ctx); cause != nil && cause != ctx.Err() {
		err = cause
	}
	r.cancel(err)
	r.mu.Lock()
	if r.server != nil {
		r.server.closeLocked()
		r.server.conn.Close()
		r.server = nil
	}
	for _, q := range r.outstanding {
		r.forgetLocked(q)
	}
	r.client.closeLocked()
	r.mu.Unlock()
	client.SetWriteDeadline(time.Now().Add(time.Second)) // it need not read
	r.tasks.Wait()
	if err == io.EOF || ctx.Err() != nil {
		err = nil
	}
	return err
}

// interrupt has listen end, whatever it waits for.
func (r *Relay) interrupt() {
	r.client.conn.SetReadDeadline(time.Unix(1, 0))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client.closeLocked()
	if r.server != nil {
		r.server.closeLocked()
	}
	r.room.Signal()
}

// listen takes the client's requests.
func (r *Relay) listen() error {
	var frame []byte
	for {
		r.mu.Lock()
		bound := uint32(maxFirstFrame)
		if r.agreed != nil {
			bound = r.msize
		}
		r.mu.Unlock()
		var err error
		if frame, err = readFrame(r.client.in, bound, frame); err == nil {
			err = r.take(frame)
		}
		if errors.Is(err, syscall.ECONNRESET) { // what it was sent last was not read
			err = io.EOF
		}
		if err != nil {
			return err
		}
	}
}

// Why a session ends, apart from the client's hanging up.
var (
	errTag     = errors.New("tag is already outstanding")
	errVersion = errors.New("no version is agreed on")
)

// take takes up a request.
func (r *Relay) take(frame []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, err := parse(frame, r.l)
	switch {
	case err != nil:
		return err
	case r.outstanding[q.tag] != nil:
		return errTag
	case r.agreed == nil && q.typ != tVersion:
		return errVersion
	}
	q.seq = r.seq
	r.seq++
	if q.typ == tVersion {
		if r.server == nil {
			return errVersion
		}
		for _, o := range r.outstanding {
			r.forgetLocked(o)
		}
		clear(r.fids)
		r.version, r.agreed = bytes.Clone(frame), nil
	}
	if q.typ == tFlush {
		r.flushLocked(q, frame)
	} else {
		r.outstanding[q.tag] = q
		r.sendLocked(q, frame)
	}
	r.client.awaitLocked()
	if r.server != nil {
		r.server.awaitLocked()
	}
	for r.ctx.Err() == nil && (len(r.outstanding) >= maxOutstanding || r.held > maxHeld) {
		r.room.Wait()
	}
	return nil
}

// sendLocked sends a request, or holds it.
func (r *Relay) sendLocked(q *request, frame []byte) {
	switch {
	case r.server == nil:
		r.holdLocked(q, frame)
	case r.isStale(q):
		r.failLocked(q, eStale)
	default:
		if q.frame == nil && repeatable[q.typ] {
			q.frame = bytes.Clone(frame)
		}
		q.sent = true
		r.server.putLocked(frame)
	}
}

// holdLocked has a request wait for a connection. A clunk that is no change has nothing to
// wait for.
func (r *Relay) holdLocked(q *request, frame []byte) {
	q.sent = false
	if q.typ == tClunk && !r.clunkRemoves(q.fid) && !r.awaitedLocked(q) {
		r.endLocked(q)
		return
	}
	if q.frame == nil {
		q.frame = bytes.Clone(frame)
	}
	r.held += len(q.frame)
	q.timer = time.AfterFunc(r.cfg.Patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.outstanding[q.tag] == q && !q.sent {
			r.failLocked(q, eIO)
		}
	})
}

// awaitedLocked reports whether another request is about the fid of q.
func (r *Relay) awaitedLocked(q *request) bool {
	for _, o := range r.outstanding {
		if o != q && (o.fid == q.fid || o.fid2 == q.fid) {
			return true
		}
	}
	return false
}

// forgetLocked takes a request out of those that are outstanding.
func (r *Relay) forgetLocked(q *request) {
	r.releaseLocked(q)
	delete(r.outstanding, q.tag)
	r.room.Signal()
}

// releaseLocked ends what holdLocked began.
func (r *Relay) releaseLocked(q *request) {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
		r.held -= len(q.frame)
	}
}

// answerLocked answers a request with a whole frame.
func (r *Relay) answerLocked(q *request, frame []byte) {
	r.forgetLocked(q)
	r.client.putLocked(frame)
}

// endLocked answers a clunk that the server need not know of.
func (r *Relay) endLocked(q *request) {
	delete(r.fids, q.fid)
	r.answerLocked(q, appendEmpty(nil, q.typ+1, q.tag))
}

// failLocked answers a request of which the fid is stale, of which nobody knows whether it
// was done, or that has waited for long enough. What ends a fid does so nevertheless.
func (r *Relay) failLocked(q *request, errno uint32) {
	switch {
	case q.typ == tClunk && !r.clunkRemoves(q.fid):
		r.endLocked(q)
		return
	case q.typ == tClunk || q.typ == tRemove:
		delete(r.fids, q.fid)
	}
	r.answerLocked(q, appendError(nil, r.l, q.tag, errno))
}

// flushLocked ends a request, with an answer to it only if there is one by now.
func (r *Relay) flushLocked(q *request, frame []byte) {
	old := r.outstanding[q.oldtag]
	if old != nil && old.sent {
		q.sent, q.flushes = true, old
		r.outstanding[q.tag] = q
		r.server.putLocked(frame)
		return
	}
	if old != nil {
		r.forgetLocked(old)
	}
	r.client.putLocked(appendEmpty(nil, tFlush+1, q.tag))
}

// connectLocked has a connection be the one to the server, and sends what was held.
func (r *Relay) connectLocked(s *stream) {
	sock.Heed(s.conn, goneTime)
	r.server, r.since = s, time.Now()
	r.tasks.Go(func() {
		if err := s.write(); err != nil {
			r.lose(s, err)
		}
	})
	r.tasks.Go(func() { r.lose(s, r.hear(s)) })
	for _, q := range r.inOrderLocked() {
		r.releaseLocked(q)
		r.sendLocked(q, q.frame)
	}
	r.room.Signal()
}

func (r *Relay) inOrderLocked() []*request {
	qs := make([]*request, 0, len(r.outstanding))
	for _, q := range r.outstanding {
		qs = append(qs, q)
	}
	slices.SortFunc(qs, func(a, b *request) int { return cmp.Compare(a.seq, b.seq) })
	return qs
}

// Why a connection is given up, apart from the server's hanging up.
var (
	errReply = errors.New("reply to no request")
	errMsize = errors.New("message size out of bounds")
)

// hear takes a server's replies until the connection is lost.
func (r *Relay) hear(s *stream) error {
	var frame []byte
	for {
		r.mu.Lock()
		r.client.awaitLocked()
		bound := max(r.msize, maxFirstFrame)
		r.mu.Unlock()
		var err error
		if frame, err = readFrame(s.in, bound, frame); err != nil {
			return err
		}
		if err := r.heard(s, frame); err != nil {
			return err
		}
	}
}

// heard takes one reply.
func (r *Relay) heard(s *stream, frame []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != s {
		return net.ErrClosed
	}
	typ, q := frame[4], r.outstanding[wire.LE.Uint16(frame[5:])]
	if q == nil && r.agreed == nil {
		return nil // to what was before a Tversion
	}
	if q == nil || !q.sent || typ != q.typ+1 && !isError(typ) {
		return errReply
	}
	switch q.typ {
	case tVersion:
		if err := r.agreeLocked(frame); err != nil {
			return err
		}
	case tClunk, tRemove: // whatever the answer is
		delete(r.fids, q.fid)
	case tFlush:
		if old := q.flushes; r.outstanding[old.tag] == old {
			r.forgetLocked(old)
		}
	}
	if !isError(typ) {
		r.done(q, wire.Decode(frame[wire.HeaderSize:]))
	}
	r.answerLocked(q, frame)
	return nil
}

// agreeLocked notes what the server has answered a Tversion with.
func (r *Relay) agreeLocked(frame []byte) error {
	asked, d := wire.Decode(r.version[wire.HeaderSize:]), wire.Decode(frame[wire.HeaderSize:])
	msize := d.U32()
	if msize > min(asked.U32(), maxMsize) || msize < wire.HeaderSize {
		return errMsize
	}
	version := d.Str()
	switch version {
	case "9P2000", "9P2000.L", "unknown":
	default:
		return fmt.Errorf("sessions of version %q cannot be kept", version)
	}
	r.msize, r.l = msize, version == "9P2000.L"
	r.agreed = bytes.Clone(frame)
	return nil
}

// lose gives up a connection, and has another be made.
func (r *Relay) lose(s *stream, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.closeLocked()
	s.conn.Close()
	if r.server != s {
		return
	}
	r.server = nil
	if r.agreed == nil {
		r.cancel(fmt.Errorf("connection lost before there was a version: %w", err))
		return
	}
	var flushes []*request
	for _, q := range r.inOrderLocked() {
		switch {
		case q.typ == tFlush:
			flushes = append(flushes, q)
		case !q.sent:
		case repeatable[q.typ]:
			r.holdLocked(q, q.frame)
		default:
			r.failLocked(q, eIO)
		}
	}
	for _, q := range flushes {
		if old := q.flushes; r.outstanding[old.tag] == old {
			r.forgetLocked(old)
		}
		r.answerLocked(q, appendEmpty(nil, tFlush+1, q.tag))
	}
	next := r.since.Add(minAge)
	r.tasks.Go(func() { r.reconnect(err, next) })
}
