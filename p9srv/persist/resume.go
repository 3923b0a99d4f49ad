package persist

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// How long a try to make a connection takes at most, and around how long it is to the next.
const (
	tryTime = 30 * time.Second
	minWait = 50 * time.Millisecond
	maxWait = 5 * time.Second
)

// goneTime is for how long nothing has to be heard of a server for it to be gone. It is less
// than for others, since another connection can be made.
const goneTime = 30 * time.Second

// minAge is how long it is at least from one connection to the next, whatever becomes of it.
var minAge = time.Second

// Around is a time of half of d to one and a half: another for each of those that have lost
// their connections at the same moment, so that they do not come back at the same.
func Around(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

// reconnect makes another connection when one was lost, but not before next.
func (r *Relay) reconnect(lost error, next time.Time) {
	r.cfg.Log("connection lost (%v), trying again", bare(lost))
	if now := time.Now(); next.Before(now) {
		next = now
	}
	next = next.Add(Around(minAge / 8))
	said := ""
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		err := r.resume()
		if err == nil || r.ctx.Err() != nil {
			return
		}
		if why := bare(err).Error(); why != said {
			r.cfg.Log("no connection: %s", why)
			said = why
		}
		next = time.Now().Add(Around(wait))
	}
}

// bare is an error without the addresses, of which one is another each time.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// resume makes a connection and puts all fids back on it.
func (r *Relay) resume() error {
	ctx, cancel := context.WithTimeout(r.ctx, tryTime)
	defer cancel()
	conn, err := r.cfg.Dial(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = r.resumeOn(conn, stop)
	if err != nil {
		conn.Close()
	}
	return err
}

func (r *Relay) resumeOn(conn net.Conn, stop func() bool) error {
	r.mu.Lock()
	d := &dialogue{conn: conn, in: bufio.NewReader(conn), l: r.l, msize: r.msize}
	fids := maps.Clone(r.fids) // none is changed while there is no connection, but clunked
	r.mu.Unlock()
	if err := d.begin(r.version, r.agreed); err != nil {
		return err
	}
	stale, err := d.putBack(fids)
	if err != nil {
		return err
	}
	for {
		r.mu.Lock()
		var clunked []uint32
		for n, f := range fids {
			if r.fids[n] != f {
				if stale[n] == nil {
					clunked = append(clunked, n)
				}
				delete(fids, n)
			}
		}
		if len(clunked) == 0 {
			break
		}
		r.mu.Unlock()
		if err := d.clunk(clunked); err != nil {
			return err
		}
	}
	if !stop() {
		r.mu.Unlock()
		return errors.New("the server takes too long")
	}
	said := "connected again"
	for n, f := range fids {
		why := stale[n]
		if f.stale, f.anew = why != nil, f.open; f.stale {
			said = fmt.Sprintf("connected again; of %d files %d are not to be had any more, as %s of %q: %v",
				len(fids), len(stale), join(f.path), f.at.aname, why)
		}
	}
	r.connectLocked(newStream(&r.mu, conn, d.in))
	r.mu.Unlock()
	r.cfg.Log("%s", said)
	return nil
}

// dialogue is the talk that puts fids back: no request of the client's is on the
// connection yet.
type dialogue struct {
	conn  net.Conn
	in    *bufio.Reader
	l     bool
	msize uint32
}

// begin agrees on what was agreed on before.
func (d *dialogue) begin(version, agreed []byte) error {
	if _, err := d.conn.Write(version); err != nil {
		return err
	}
	got, err := readFrame(d.in, maxFirstFrame, nil)
	if err == nil && !bytes.Equal(got, agreed) {
		err = errors.New("it does not agree to the version and message size that there were")
	}
	return err
}

// window is how many requests are sent before their replies are read.
const window = 64

// reply is what a server has answered.
type reply struct {
	typ  uint8
	body wire.Decoder
}

// err is what a reply that tells of an error says.
func (a *reply) err() error {
	switch d := a.body; a.typ {
	case rLerror:
		return syscall.Errno(d.U32())
	case rError:
		return errors.New(strconv.Quote(d.Str())) // for the log
	}
	return nil
}

// ask sends as many requests as there are things, each of which is made by build, and
// hands the replies on.
func ask[T any](d *dialogue, things []T, typ uint8, build func(b []byte, t T) []byte, take func(t T, a *reply)) error {
	for some := range slices.Chunk(things, window) {
		var b []byte
		for i, t := range some {
			start := len(b)
			b = wire.End(build(wire.Begin(b, typ, uint16(i)), t), start)
		}
		if _, err := d.conn.Write(b); err != nil {
			return err
		}
		waits := make([]bool, len(some))
		for range some {
			frame, err := readFrame(d.in, d.msize, nil)
			if err != nil {
				return err
			}
			i := int(wire.LE.Uint16(frame[5:]))
			if i >= len(some) || waits[i] || frame[4] != typ+1 && !isError(frame[4]) {
				return errReply
			}
			waits[i] = true
			take(some[i], &reply{frame[4], wire.Decode(frame[wire.HeaderSize:])})
		}
	}
	return nil
}

// place is a fid that is put back.
type place struct {
	n    uint32
	f    *fid
	from uint32   // the fid to walk from
	rest []string // what is to be walked yet
	why  error    // why it is stale
	made bool     // on the server
}

// putBack attaches, walks and opens. What could not be had is told for each fid.
func (d *dialogue) putBack(fids map[uint32]*fid) (stale map[uint32]error, err error) {
	type root struct {
		attach
		path uint64 // of its qid
	}
	var places []*place
	roots := make(map[root]*place)
	rootOf := func(f *fid) root { return root{f.at, f.root.Path} }
	spare := wire.NoFid - 1
	for n, f := range fids {
		p := &place{n: n, f: f, rest: f.path}
		places = append(places, p)
		at := rootOf(f)
		if roots[at] == nil {
			for fids[spare] != nil {
				spare--
			}
			roots[at] = &place{n: spare, f: f}
			spare--
		}
		p.from = roots[at].n
	}
	if err := d.attach(slices.Collect(maps.Values(roots))); err != nil {
		return nil, err
	}
	stale = make(map[uint32]error)
	walks := places[:0:0]
	for _, p := range places {
		if p.why = roots[rootOf(p.f)].why; p.why == nil {
			walks = append(walks, p)
		}
	}
	if err := d.walk(walks); err != nil {
		return nil, err
	}
	if err := d.open(walks); err != nil {
		return nil, err
	}
	var spares []uint32
	for p := range maps.Values(roots) {
		if p.made {
			spares = append(spares, p.n)
		}
	}
	for _, p := range places {
		if p.why == nil {
			continue
		}
		stale[p.n] = p.why
		if p.made {
			spares = append(spares, p.n)
		}
	}
	return stale, d.clunk(spares)
}

var errOther = errors.New("another has its name")

// attach attaches to what fids were walked from. Where nothing can be attached to, it is
// tried again: a server may be there before its hierarchies, or its users.
func (d *dialogue) attach(roots []*place) error {
	var refused error
	made := len(roots) == 0
	err := ask(d, roots, tAttach, func(b []byte, p *place) []byte {
		b = wire.LE.AppendUint32(wire.LE.AppendUint32(b, p.n), wire.NoFid)
		b = wire.AppendString(wire.AppendString(b, p.f.at.uname), p.f.at.aname)
		if d.l {
			b = wire.LE.AppendUint32(b, p.f.at.uid)
		}
		return b
	}, func(p *place, a *reply) {
		if p.why = a.err(); p.why != nil {
			refused = fmt.Errorf("attach %s: %w", p.f.at.aname, p.why)
			return
		}
		p.made, made = true, true
		if !same(a.body.QID(), p.f.root) {
			p.why = errOther
		}
	})
	if err == nil && !made {
		err = refused
	}
	return err
}

// step are the names of the next walk: as many as a message may have.
func (d *dialogue) step(p *place) []string {
	size := wire.HeaderSize + 4 + 4 + 2
	for i, name := range p.rest {
		if size += 2 + len(name); i == wire.MaxWalk || i > 0 && size > int(d.msize) {
			return p.rest[:i]
		}
	}
	return p.rest
}

// walk walks to where fids were: in as many steps as the longest path takes.
func (d *dialogue) walk(places []*place) error {
	for len(places) > 0 {
		var further []*place
		err := ask(d, places, tWalk, func(b []byte, p *place) []byte {
			step := d.step(p)
			b = wire.LE.AppendUint32(wire.LE.AppendUint32(b, p.from), p.n)
			b = wire.LE.AppendUint16(b, uint16(len(step)))
			for _, name := range step {
				b = wire.AppendString(b, name)
			}
			return b
		}, func(p *place, a *reply) {
			step := len(d.step(p))
			if p.why = a.err(); p.why != nil {
				return
			}
			if int(a.body.U16()) < step {
				p.why = syscall.ENOENT
				return
			}
			p.made = true
			qid := p.f.root
			for range step {
				qid = a.body.QID()
			}
			p.from, p.rest = p.n, p.rest[step:]
			switch {
			case len(p.rest) > 0:
				further = append(further, p)
			case !same(qid, p.f.qid):
				p.why = errOther
			}
		})
		if err != nil {
			return err
		}
		places = further
	}
	return nil
}

// same reports whether two qids are one file's.
func same(a, b p9.QID) bool { return a.Path == b.Path && a.Type == b.Type }

// open opens what was open.
func (d *dialogue) open(places []*place) error {
	places = slices.DeleteFunc(slices.Clone(places), func(p *place) bool { return p.why != nil || !p.f.open })
	typ := uint8(tOpen)
	if d.l {
		typ = tLopen
	}
	return ask(d, places, typ, func(b []byte, p *place) []byte {
		b = wire.LE.AppendUint32(b, p.n)
		if d.l {
			return wire.LE.AppendUint32(b, p.f.again(true))
		}
		return append(b, byte(p.f.again(false)))
	}, func(p *place, a *reply) { p.why = a.err() })
}

func (d *dialogue) clunk(fids []uint32) error {
	return ask(d, fids, tClunk, wire.LE.AppendUint32, func(uint32, *reply) {})
}

// join is a path for people.
func join(path []string) string { return strconv.Quote("/" + strings.Join(path, "/")) }
