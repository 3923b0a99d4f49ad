package p9srv

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sync/semaphore"

	"containerfs/ops"
)

// Attacher gives the trees that clients attach to. An error is what the client is told.
type Attacher interface {
	Attach(c *ops.Caller, aname string) (p9.File, error)
}

// MinMsize is the smallest message size that a client may ask for.
const MinMsize = 4 << 10

// Config is what a Server needs and what it allows. A zero limit is its default.
type Config struct {
	Attacher Attacher
	Logger   *slog.Logger // nil: nothing is logged
	Audit    *ops.Audit   // nil: one of its own, to Logger

	MaxMsize    uint32 // largest message: 1 MiB
	MaxFids     int    // of a connection: 65536, several times what Linux caches of a busy mount
	MaxRequests int    // outstanding on a connection: 64, enough that no client seen waits for it
	MaxConns    int    // of an address (see origin), or of a uid on unix sockets: 16384
	Descriptors int    // that the process may have, 0 for no bound: see mostOf
	MaxAllFids  int    // of all connections of such a one, an attach being 16 and more (newAttached): 1 Mi
	MaxUnsent   int64  // bytes of replies that such a one has not taken: 128 MiB
	MaxRunning  int    // requests of such a one that workers serve at once: 1024
	MaxWaiting  int64  // bytes of those and of others that wait for them, see waitCost: 64 MiB

	// MaxAllRunning bounds these of all together, but for the privileged on unix sockets: 4096.
	MaxAllRunning int

	VersionTimeout time.Duration // from connecting to an agreed version: 10 s
	FrameTimeout   time.Duration // from the first to the last byte of a frame: 30 s
	WriteTimeout   time.Duration // for the peer to take 64 KiB of what it is sent: 30 s
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxMsize, 1<<20)
	setDefault(&c.MaxFids, 1<<16)
	setDefault(&c.MaxRequests, 64)
	setDefault(&c.MaxConns, 1<<14)
	setDefault(&c.MaxAllFids, 1<<20)
	setDefault(&c.MaxUnsent, 128<<20)
	setDefault(&c.MaxRunning, 1<<10)
	setDefault(&c.MaxWaiting, 64<<20)
	setDefault(&c.MaxAllRunning, 1<<12)
	c.MaxUnsent = max(c.MaxUnsent, 4*int64(c.MaxMsize)) // one waits in turn, not for ever
	c.MaxWaiting = max(c.MaxWaiting, waitCost+maxKept)
	setDefault(&c.VersionTimeout, 10*time.Second)
	setDefault(&c.FrameTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Audit == nil {
		c.Audit = ops.NewAudit(c.Logger)
	}
}

func setDefault[T comparable](p *T, v T) {
	if *p == *new(T) {
		*p = v
	}
}

// Server serves the trees of an Attacher on any number of listeners. All methods may be
// called concurrently.
type Server struct {
	cfg Config
	log *slog.Logger

	running  sync.WaitGroup // sessions
	workers  *workers
	counters counters

	mu        sync.Mutex
	closed    bool
	listeners map[*Listener]struct{}
	sessions  map[*session]struct{}
	accounts  map[string]*account // by address or uid
}

// New makes a server.
func New(cfg Config) *Server {
	cfg.setDefaults()
	return &Server{
		counters:  counters{base: time.Now()},
		workers:   newWorkers(cfg.MaxAllRunning),
		cfg:       cfg,
		log:       cfg.Logger,
		listeners: make(map[*Listener]struct{}),
		sessions:  make(map[*session]struct{}),
		accounts:  make(map[string]*account),
	}
}

// Serve accepts connections until Shutdown or Withdraw, after which it returns nil. It
// closes the listener.
func (srv *Server) Serve(l *Listener) error {
	defer l.Close()
	srv.mu.Lock()
	if srv.closed || l.withdrawn {
		srv.mu.Unlock()
		return nil
	}
	srv.listeners[l] = struct{}{}
	srv.mu.Unlock()
	var pause time.Duration
	for {
		conn, err := l.net.Accept()
		if err == nil {
			pause = 0
			srv.start(conn, l)
			continue
		}
		srv.mu.Lock()
		closed := srv.closed || l.withdrawn
		srv.mu.Unlock()
		if closed {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of descriptors, most likely: it gets better when someone leaves.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		srv.log.Warn("accept failed", "listener", l.Addr().String(), "err", err, "pause", pause)
		time.Sleep(pause)
	}
}

// maxHanging bounds the connections of a uid that can hold a thread for good each: a Go
// program has 10,000 at most.
const maxHanging = 1024

// mostOf is how many connections one account of the peer's kind may have where the process
// may have so many descriptors, and at how many of all accounts the peer is not let in. The
// rest is for the privileged on unix sockets, and to look at the host.
func mostOf(descriptors int, p *peer) (each, all int) {
	switch {
	case p.stranger:
		return descriptors / 4, descriptors / 2
	case !p.local:
		return descriptors, descriptors / 4 * 3
	}
	return descriptors, descriptors
}

// start begins the session of a connection, if there may be one more from there.
func (srv *Server) start(raw net.Conn, l *Listener) {
	conn, p, err := l.admit(raw)
	if err != nil {
		srv.counters.refused.Add(1)
		srv.cfg.Audit.Denied(p.from, "connection refused", "peer", p.name, "listener", l.Addr().String(), "err", err)
		go raw.Close() // which can take long
		return
	}
	from := p.from
	s := newSession(srv, l, conn, p)
	srv.mu.Lock()
	if p.export != l.export.Load() { // which change does under mu
		srv.mu.Unlock()
		srv.start(raw, l)
		return
	}
	a := srv.accounts[from]
	most := srv.cfg.MaxConns
	if p.stranger && (s.in.sock == nil || s.in.sock.CanHang()) {
		most = min(most, maxHanging)
	}
	full := false
	if d := srv.cfg.Descriptors; d > 0 {
		each, all := mostOf(d, &p)
		most, full = min(most, each), len(srv.sessions) >= all
	}
	if closed := srv.closed || l.withdrawn; closed || full || a != nil && a.conns >= most {
		srv.mu.Unlock()
		go conn.Close()
		if !closed {
			srv.counters.refused.Add(1)
			srv.cfg.Audit.Denied(from, "too many connections", "peer", p.name)
		}
		return
	}
	if a == nil {
		a = &account{
			unsent:  semaphore.NewWeighted(srv.cfg.MaxUnsent),
			waiting: semaphore.NewWeighted(srv.cfg.MaxWaiting),
			running: semaphore.NewWeighted(int64(srv.cfg.MaxRunning)),
		}
		srv.accounts[from] = a
	}
	a.conns++
	s.account = a
	srv.sessions[s] = struct{}{}
	srv.running.Add(1)
	srv.mu.Unlock()
	srv.counters.accept(l.addr.Network)

	go func() {
		defer srv.running.Done()
		s.run()
		srv.mu.Lock()
		defer srv.mu.Unlock()
		delete(srv.sessions, s)
		if a.conns--; a.conns == 0 {
			delete(srv.accounts, from)
			if !a.unsent.TryAcquire(srv.cfg.MaxUnsent) || !a.waiting.TryAcquire(srv.cfg.MaxWaiting) {
				srv.log.Error("replies or requests are accounted for that nobody has", "peer", from)
			}
		}
	}()
}

// Shutdown stops listening, lets the requests in hand be answered, closes all
// connections and waits for everything that the server has started. When ctx
// ends first, connections are cut and its error is returned.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.mu.Lock()
	srv.closed = true
	listeners, sessions := srv.listeners, srv.sessionsLocked(func(*session) bool { return true })
	srv.listeners = nil
	srv.mu.Unlock()
	for l := range listeners {
		l.Close()
	}
	for _, s := range sessions {
		s.end(nil)
	}
	done := make(chan struct{})
	go func() {
		srv.running.Wait()
		srv.workers.end()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, s := range sessions {
		s.conn.Close()
	}
	return ctx.Err()
}

// sessionsLocked are the sessions that are wanted.
func (srv *Server) sessionsLocked(wanted func(*session) bool) (list []*session) {
	for s := range srv.sessions {
		if wanted(s) {
			list = append(list, s)
		}
	}
	return list
}
