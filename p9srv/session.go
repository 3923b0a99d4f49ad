package p9srv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hugelgupf/p9/linux"

	"containerfs/ops"
	"containerfs/p9srv/sock"
	"containerfs/p9srv/wire"
)

// Why a session ends, apart from the peer's hanging up.
var (
	errFrameSize     = errors.New("frame size out of bounds")
	errNotRequest    = errors.New("message is not a request")
	errBeforeVersion = errors.New("request before version")
	errBadVersion    = errors.New("malformed Tversion")
	errDuplicateTag  = errors.New("tag is already outstanding")
	errPanic         = errors.New("file panicked")
)

// maxBatch is how many bytes of replies the loop gathers before it writes.
const maxBatch = 256 << 10

// session is what one connection carries. See the package documentation for its
// goroutines.
type session struct {
	srv      *Server
	listener *Listener
	conn     net.Conn
	writer   *sock.Writer // of conn, nil if that is not the kernel's own
	peer     peer
	log      *slog.Logger
	stripe   *stripe
	account  *account        // set by Server.start
	ctx      context.Context // until the session ends, or is to
	cancel   context.CancelFunc

	// The loop's own. dialect and msize change only while no worker runs.
	dialect    *dialect // nil before a version is agreed on
	msize      uint32
	in         input
	req        request      // the one that is being decoded or served by the loop
	body       wire.Decoder // of it
	batch      *buffer      // replies of this batch, nil if none
	batched    int          // how many
	usual      int          // how many bytes to make room for in a batch
	held       int64        // of the account's allowance, for the batch
	versionDue time.Time
	now        time.Duration // the clock of the counters when the loop took up the batch
	tallies    []tally       // of the batch

	workers sync.WaitGroup

	mu   sync.Mutex
	cond sync.Cond // of mu: writing or outstanding has become less
	fids map[uint32]*fid

	mostFids int // that there were since fids was made

	// Requests that workers have, by tag, and by each fid number that they name
	// in order of arrival: a request runs when it is first everywhere.
	tags   map[uint16]*request
	queues map[uint32][]*request

	outstanding int // requests that workers have, and replies of theirs that are not written

	out        *buffer // workers' replies that are not being written yet, nil if none
	outReplies int     // how many, with the Rflushes among them
	outHeld    int64   // of the account's allowance, for them

	serving    bool // the loop is in a batch and will write what is in out
	writing    bool // someone is in conn.Write, or about to be
	writeErr   error
	writeDue   time.Time // the deadline in force for writes: of who has set writing
	writeBegan time.Time // when conn.Write was called; zero when it has returned
	ending     bool      // no more is read; the deadline for reads is in the past
	endErr     error     // why, if the session itself decided so
}

func newSession(srv *Server, l *Listener, conn net.Conn, p peer) *session {
	s := &session{
		srv:      srv,
		listener: l,
		conn:     conn,
		peer:     p,
		log:      srv.log.With("peer", p.String()),
		stripe:   srv.counters.stripe(),
	}
	s.cond.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.in.open(conn)
	if s.in.raw != nil {
		s.writer = s.in.sock.Writer()
	}
	return s
}

// run serves the connection until it ends, and leaves nothing behind.
func (s *session) run() {
	err := s.greet()
	if err == nil {
		err = s.loop()
	}
	if err != io.EOF {
		s.conn.Close() // frees a worker that is in the middle of a write
	}
	s.workers.Wait()
	s.dropAll()
	s.conn.Close()
	s.in.release()
	s.cancel()

	s.mu.Lock()
	s.account.unsent.Release(s.held + s.outHeld)
	err = cmp.Or(s.endErr, s.writeErr, err)
	s.mu.Unlock()
	if err == io.EOF {
		s.log.Debug("connection closed")
	} else {
		s.srv.cfg.Audit.Ended(s.peer.from, "peer", s.peer.name, "err", err)
	}
}

// greet does what comes before the first frame, in the time that there is for a
// version.
func (s *session) greet() error {
	if s.peer.greet == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.srv.cfg.VersionTimeout)
	defer cancel()
	return s.peer.greet(ctx)
}

// loop reads, serves and writes, a batch at a time.
func (s *session) loop() error {
	s.startVersionClock()
	fresh := true // what is unfinished in the buffer arrived with the last read
	for {
		if err := s.setReadDeadline(fresh); err != nil {
			return err
		}
		if err := s.in.fill(); err != nil {
			return s.readError(err)
		}
		s.startServing()
		fresh = false
		for {
			frame, err := s.in.frame(s.bound())
			if err == nil && frame != nil {
				fresh = true
				err = s.frame(frame)
			}
			if err != nil {
				s.writeBatch()
				return err
			}
			if frame == nil {
				break
			}
		}
		if err := s.writeBatch(); err != nil {
			return err
		}
	}
}

// startServing begins a batch, or goes on after one was written: what took time until
// now is not the requests'.
func (s *session) startServing() {
	s.mu.Lock()
	s.serving = true
	s.mu.Unlock()
	s.now = s.srv.counters.clock()
}

// bound is the largest frame to accept.
func (s *session) bound() uint32 {
	if s.dialect == nil {
		return maxFirstFrame
	}
	return s.msize
}

// frame serves one frame. An error ends the session.
func (s *session) frame(frame []byte) error {
	typ, tag := frame[4], wire.LE.Uint16(frame[5:])
	body := &s.body
	*body = wire.Decode(frame[wire.HeaderSize:])
	switch {
	case typ&1 != 0: // every R-message is odd, no T-message is
		return errNotRequest
	case typ == msgTversion:
		return s.version(tag, body)
	case s.dialect == nil:
		return errBeforeVersion
	}
	if err := s.admit(); err != nil {
		return err
	}
	if s.isOutstanding(tag) {
		return errDuplicateTag
	}
	if typ == msgTflush {
		return s.flush(tag, body)
	}

	r := &s.req
	r.tag, r.typ, r.fid, r.fid2 = tag, typ, wire.NoFid, wire.NoFid
	r.names, r.data, r.now = nil, nil, false
	r.msg = &s.dialect.messages[typ]
	switch {
	case r.msg.serve == nil:
		s.refuse(0, tag, linux.EOPNOTSUPP)
		return nil
	case tag == wire.NoTag:
		s.refuse(typ, tag, linux.EINVAL)
		return nil
	}
	if r.msg.decode(r, body); !body.Finish() {
		s.refuse(typ, tag, linux.EINVAL)
		return nil
	}
	worker, slowFile := s.forWorker(r)
	data := s.dataRoom(r, slowFile)
	if !worker {
		if err := s.reserveInBatch(data); err != nil {
			return err
		}
		r.taken = s.now
		b := s.batchBuffer()
		var err error
		if b.b, err = s.serve(r, b.b); err != ops.ErrWouldWait {
			s.batched++
			s.count(typ, err)
			return s.writeSoon(r)
		}
	}
	cost := waitCost + int64(len(frame))
	if err := s.reserveWaiting(cost); err != nil {
		return err
	}
	if err := s.reserve(data); err != nil {
		s.account.waiting.Release(cost)
		return err
	}
	r.taken, r.held, r.cost, r.now = s.now, data, cost, false
	s.giveToWorker(r)
	return nil
}

// writesTime is how long a batch goes on after a write that changed something: the peer
// can do something about the replies meanwhile.
const writesTime = 200 * time.Microsecond

// writeSoon writes the batch after r if that has gone on for long with changes.
func (s *session) writeSoon(r *request) error {
	if r.now && s.srv.counters.clock()-s.now > writesTime {
		return s.resume()
	}
	return nil
}

// serve runs a request and appends its reply, which tells the error that is returned: not
// for one that would have to wait, of which nothing is done.
// It is called by the loop and by workers.
func (s *session) serve(r *request, out []byte) ([]byte, error) {
	start := len(out)
	reply, err := s.call(r, wire.Begin(out, r.typ+1, r.tag))
	if err == nil && len(reply)-start > int(s.msize) {
		err = linux.EMSGSIZE
	}
	if err == ops.ErrWouldWait {
		return out[:start], err
	}
	if err != nil {
		if _, ok := errnoOf(err); !ok {
			s.log.Error("request failed", "message", r.msg.name, "err", err)
		}
		return s.dialect.appendError(out[:start], r.tag, err), err
	}
	return wire.End(reply, start), nil
}

// call keeps a panic of a File to the connection that caused it.
func (s *session) call(r *request, out []byte) (reply []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(r.msg.name, v)
			err = linux.EIO
		}
	}()
	return r.msg.serve(s, r, out)
}

func (s *session) panicked(message string, v any) {
	s.log.Error("panic", "message", message, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	s.end(errPanic)
}

func (s *session) batchBuffer() *buffer {
	if s.batch == nil {
		s.batch = getBuffer(s.usual)
	}
	return s.batch
}

// version agrees on a dialect and msize and makes the session new.
func (s *session) version(tag uint16, body *wire.Decoder) error {
	msize, asked := body.U32(), body.Str()
	if !body.Finish() {
		return errBadVersion
	}
	// Replies to what is outstanding go out before this one's.
	if err := s.writeBatch(); err != nil {
		return err
	}
	s.workers.Wait()
	s.dropAll()
	s.mu.Lock()
	s.serving = true
	s.mu.Unlock()

	d := dialectOf(asked)
	s.dialect = nil
	b := s.batchBuffer()
	s.batched++
	msize = min(msize, s.srv.cfg.MaxMsize)
	if d != nil && msize < MinMsize {
		b.b = d.appendError(b.b, tag, linux.EMSGSIZE)
		s.count(msgTversion, linux.EMSGSIZE)
		s.startVersionClock()
		return nil
	}
	agreed := "unknown"
	if d != nil {
		s.dialect, s.msize, agreed = d, msize, d.version
	} else {
		s.startVersionClock()
	}
	start := len(b.b)
	b.b = wire.Begin(b.b, msgTversion+1, tag)
	b.b = wire.LE.AppendUint32(b.b, msize)
	b.b = wire.End(wire.AppendString(b.b, agreed), start)
	s.count(msgTversion, nil)
	// Before the replies of workers to what came behind it.
	return s.resume()
}

// end stops the reading of requests. Those in hand are answered.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endErr == nil {
		s.endErr = why
	}
	s.ending = true
	s.cancel()
	s.conn.SetReadDeadline(time.Unix(1, 0))
}
