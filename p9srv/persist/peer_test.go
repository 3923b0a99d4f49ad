package persist

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// enough is for what must happen; who waits for it in vain has failed.
const enough = 30 * time.Second

// msg makes a frame of fields: numbers of any size, strings, names of a walk, qids.
func msg(typ uint8, tag uint16, fields ...any) []byte {
	b := wire.Begin(nil, typ, tag)
	for _, f := range fields {
		switch f := f.(type) {
		case uint8:
			b = append(b, f)
		case uint16:
			b = wire.LE.AppendUint16(b, f)
		case int: // most are
			b = wire.LE.AppendUint32(b, uint32(f))
		case uint32:
			b = wire.LE.AppendUint32(b, f)
		case uint64:
			b = wire.LE.AppendUint64(b, f)
		case string:
			b = wire.AppendString(b, f)
		case []string:
			b = wire.LE.AppendUint16(b, uint16(len(f)))
			for _, s := range f {
				b = wire.AppendString(b, s)
			}
		case p9.QID:
			b = wire.AppendQID(b, f)
		case []byte:
			b = append(b, f...)
		default:
			panic(fmt.Sprintf("%T", f))
		}
	}
	return wire.End(b, 0)
}

// qid is a directory's, file is a file's.
func qid(n uint64) p9.QID  { return p9.QID{Type: p9.TypeDir, Path: n} }
func file(n uint64) p9.QID { return p9.QID{Path: n} }

// walked is the body of an Rwalk.
func walked(qids ...p9.QID) []any {
	out := []any{uint16(len(qids))}
	for _, q := range qids {
		out = append(out, q)
	}
	return out
}

// peer is an end that does as the test says.
type peer struct {
	t    *testing.T
	name string
	conn net.Conn
	in   *bufio.Reader
}

func newPeer(t *testing.T, name string, conn net.Conn) *peer {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(enough))
	return &peer{t, name, conn, bufio.NewReader(conn)}
}

func (p *peer) send(frames ...[]byte) {
	p.t.Helper()
	if _, err := p.conn.Write(bytes.Join(frames, nil)); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

func (p *peer) next() []byte {
	p.t.Helper()
	b, err := readFrame(p.in, 1<<20, nil)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return b
}

// gets wants exactly these frames, in this order.
func (p *peer) gets(frames ...[]byte) {
	p.t.Helper()
	for i, want := range frames {
		if got := p.next(); !bytes.Equal(got, want) {
			p.t.Fatalf("%s: message %d is %s, want %s", p.name, i, show(got), show(want))
		}
	}
}

// answers wants requests of a type and a body, in any order, with whatever tags, and answers
// each with what stands beside it: the reply's type and fields.
func (p *peer) answers(typ uint8, each map[string][]byte) {
	p.t.Helper()
	for range len(each) {
		b := p.next()
		reply, ok := each[string(b[wire.HeaderSize:])]
		if b[4] != typ || !ok {
			p.t.Fatalf("%s: %s is not wanted", p.name, show(b))
		}
		reply = bytes.Clone(reply)
		copy(reply[5:7], b[5:7])
		p.send(reply)
	}
}

// body is what stands in a frame behind its tag, as a key of answers.
func body(fields ...any) string { return string(msg(0, 0, fields...)[wire.HeaderSize:]) }

func show(b []byte) string {
	return fmt.Sprintf("type %d tag %d %q", b[4], wire.LE.Uint16(b[5:]), b[wire.HeaderSize:])
}

// ended wants the peer's connection to have ended.
func (p *peer) ended() {
	p.t.Helper()
	if b, err := io.ReadAll(p.in); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") || len(b) > 0 {
		p.t.Fatalf("%s: %q, %v; want the end", p.name, b, err)
	}
}

// bench is a Relay between peers.
type bench struct {
	*testing.T
	client *peer
	server *peer
	dialed chan net.Conn // what the Relay's next Dial gives it
	cancel context.CancelFunc
	done   chan error

	mu  sync.Mutex
	log []string
}

// pair is two ends of one connection.
func pair(t *testing.T) (a, b net.Conn) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// newBench has the test run beside others: most of its time is a Relay's pauses.
func newBench(t *testing.T, patience time.Duration) *bench {
	t.Parallel()
	w := &bench{T: t, dialed: make(chan net.Conn), done: make(chan error, 1)}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(t.Context())
	ours, client := pair(t)
	w.client = newPeer(t, "client", ours)
	theirs, server := pair(t)
	w.server = newPeer(t, "server", theirs)
	go func() {
		w.done <- Serve(ctx, client, server, Config{
			Patience: patience,
			Dial: func(ctx context.Context) (net.Conn, error) {
				select {
				case c := <-w.dialed:
					return c, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
			Log: func(format string, args ...any) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.log = append(w.log, fmt.Sprintf(format, args...))
			},
		})
	}()
	t.Cleanup(func() {
		w.client.conn.Close()
		select {
		case <-w.done:
		case <-time.After(enough):
			t.Error("the relay does not end with its client")
		}
	})
	return w
}

// ended is what the Relay has ended with.
func (w *bench) ended() error {
	w.Helper()
	select {
	case err := <-w.done:
		w.done <- err
		return err
	case <-time.After(enough):
		w.Fatal("it does not end")
	}
	return nil
}

// logged waits until a line of the log begins so, and takes it away.
func (w *bench) logged(begin string) string {
	w.Helper()
	for end := time.Now().Add(enough); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		for i, line := range w.log {
			if strings.HasPrefix(line, begin) {
				w.log = slices.Delete(w.log, i, i+1)
				w.mu.Unlock()
				return line
			}
		}
		w.mu.Unlock()
	}
	w.Fatalf("no line %q; there are %q", begin, w.log)
	return ""
}

const (
	l       = "9P2000.L"
	classic = "9P2000"
	msize   = 8192
	noFid   = wire.NoFid
	spare   = noFid - 1
)

// call has a request pass to the server, and its reply back.
func (w *bench) call(request, reply []byte) {
	w.Helper()
	w.client.send(request)
	w.server.gets(request)
	w.server.send(reply)
	w.client.gets(reply)
}

// begin agrees on a version and attaches fid 0 to all.
func (w *bench) begin(version string) {
	w.Helper()
	w.call(msg(tVersion, wire.NoTag, msize, version), msg(tVersion+1, wire.NoTag, msize, version))
	w.call(attachMsg(version, 0, 0), msg(tAttach+1, 0, qid(100)))
}

func attachMsg(version string, tag uint16, fid uint32) []byte {
	if version == l {
		return msg(tAttach, tag, fid, noFid, "user", "all", 7)
	}
	return msg(tAttach, tag, fid, noFid, "user", "all")
}

// walk walks from fid 0.
func (w *bench) walk(newfid int, name string, q p9.QID) {
	w.Helper()
	w.call(msg(tWalk, 1, 0, newfid, []string{name}), msg(tWalk+1, 1, walked(q)...))
}

// lose ends the connection to the server.
func (w *bench) lose() {
	w.Helper()
	w.server.conn.Close()
	w.logged("connection lost")
}

// next has the Relay connect, and agrees on the version that there was.
func (w *bench) next(version string) {
	w.Helper()
	ours, theirs := pair(w.T)
	select {
	case w.dialed <- theirs:
	case <-time.After(enough):
		w.Fatal("no connection is made")
	}
	w.server = newPeer(w.T, "next server", ours)
	w.server.gets(msg(tVersion, wire.NoTag, msize, version))
	w.server.send(msg(tVersion+1, wire.NoTag, msize, version))
}

// putBack answers what puts fid 0 back and those in walks.
func (w *bench) putBack(version string, walks, opens map[string][]byte) {
	w.Helper()
	w.next(version)
	w.server.answers(tAttach, map[string][]byte{string(attachMsg(version, 0, spare)[wire.HeaderSize:]): msg(tAttach+1, 0, qid(100))})
	if walks == nil {
		walks = make(map[string][]byte)
	}
	walks[body(spare, 0, []string{})] = msg(tWalk+1, 0, walked()...)
	w.server.answers(tWalk, walks)
	open := uint8(tOpen)
	if version == l {
		open = tLopen
	}
	w.server.answers(open, opens)
	w.server.answers(tClunk, map[string][]byte{body(spare): msg(tClunk+1, 0)})
}
