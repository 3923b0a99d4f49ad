package persist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"containerfs/p9srv/wire"
)

// TestReadOn: who has opened a file, and reads it first after it was opened anew, may
// know its size from before.
func TestReadOn(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.walk(1, "events", file(101))
	w.call(msg(tLopen, 1, 1, 0), msg(tLopen+1, 1, file(101), 0))
	w.call(msg(tGetattr, 1, 1, uint64(1)), msg(tGetattr+1, 1, uint64(1))) // 4 bytes long
	w.client.send(msg(tRead, 1, 1, uint64(4), 4))
	w.server.next()
	w.lose()
	w.putBack(l,
		map[string][]byte{body(spare, 1, []string{"events"}): msg(tWalk+1, 0, walked(file(101))...)},
		map[string][]byte{body(1, 0): msg(tLopen+1, 0, file(101), 0)})
	w.client.gets(errorMsg(1, eStale))
}

// TestOneRefused: that one user is not let in any more is nothing to the others.
func TestOneRefused(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	other := func(fid uint32) []any { return []any{fid, noFid, "user", "all", 8} }
	w.call(msg(tAttach, 1, other(9)...), msg(tAttach+1, 1, qid(100)))
	reply := map[bool][]byte{false: errorMsg(0, 13), true: msg(tAttach+1, 0, qid(100))}
	for _, let := range []bool{false, true} {
		w.lose()
		w.next(l)
		fids := make(map[uint32]uint32) // by uid
		for range 2 {
			b := w.server.next()
			d := wire.Decode(b[wire.HeaderSize:])
			fid, _, _, _, uid := d.U32(), d.U32(), d.Str(), d.Str(), d.U32()
			fids[uid] = fid
			answer := append([]byte{}, reply[let || uid == 7]...)
			copy(answer[5:7], b[5:7])
			w.server.send(answer)
		}
		if len(fids) != 2 || fids[7] == fids[8] {
			t.Fatalf("attaches by uid: %v", fids)
		}
		walks := map[string][]byte{body(fids[7], 0, []string{}): msg(tWalk+1, 0, walked()...)}
		clunks := map[string][]byte{body(fids[7]): msg(tClunk+1, 0)}
		if let {
			walks[body(fids[8], 9, []string{})] = msg(tWalk+1, 0, walked()...)
			clunks[body(fids[8])] = msg(tClunk+1, 0)
		}
		w.server.answers(tWalk, walks)
		w.server.answers(tClunk, clunks)
		w.call(msg(tGetattr, 1, 0, uint64(1)), msg(tGetattr+1, 1))
		if let { // what was stale is what it was
			w.call(msg(tGetattr, 1, 9, uint64(1)), msg(tGetattr+1, 1))
			continue
		}
		w.client.send(msg(tGetattr, 1, 9, uint64(1)))
		w.client.gets(errorMsg(1, eStale))
	}
}

// TestRemoveOnClose: the clunk of what is removed by it is not answered before that is done.
func TestRemoveOnClose(t *testing.T) {
	w := newBench(t, enough)
	w.begin(classic)
	for fid := 1; fid <= 2; fid++ {
		w.walk(fid, string(rune('a'+fid)), file(uint64(100+fid)))
		w.call(msg(tOpen, 1, fid, uint8(0x40)), msg(tOpen+1, 1, file(uint64(100+fid)), 0))
	}
	w.lose()
	w.client.send(msg(tClunk, 1, 1), msg(tClunk, 2, 2))
	w.putBack(classic, map[string][]byte{
		body(spare, 1, []string{"b"}): msg(tWalk+1, 0, walked(file(101))...),
		body(spare, 2, []string{"c"}): msg(rError, 0, "No such file or directory"),
	}, map[string][]byte{body(1, uint8(0x40)): msg(tOpen+1, 0, file(101), 0)})
	w.server.gets(msg(tClunk, 1, 1))
	w.server.send(msg(tClunk+1, 1))
	w.client.gets(msg(rError, 2, "Stale file handle"), msg(tClunk+1, 1))
	w.walk(1, "d", file(103)) // both fids are free
	w.walk(2, "e", file(104))
}

// TestClassicRename: 9P2000 renames by Twstat.
func TestClassicRename(t *testing.T) {
	w := newBench(t, enough)
	w.begin(classic)
	w.walk(1, "a", qid(101))
	w.call(msg(tWalk, 1, 1, 2, []string{"b"}), msg(tWalk+1, 1, walked(qid(102))...))
	wstat := func(name string) []byte {
		return msg(tWstat, 1, 1, uint16(49+len(name)), make([]byte, 41), name, "", "", "")
	}
	w.call(wstat("new"), msg(tWstat+1, 1))
	w.call(wstat(""), msg(tWstat+1, 1)) // of something else
	w.call(wstat("not"), msg(rError, 1, "Permission denied"))
	w.lose()
	w.putBack(classic, map[string][]byte{
		body(spare, 1, []string{"new"}):      msg(tWalk+1, 0, walked(qid(101))...),
		body(spare, 2, []string{"new", "b"}): msg(tWalk+1, 0, walked(qid(101), qid(102))...),
	}, nil)
}

// TestLongNames: a walk is put back in messages that are no longer than was agreed on.
func TestLongNames(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	long := strings.Repeat("x", msize-100)
	w.walk(1, long, qid(101))
	w.call(msg(tWalk, 1, 1, 1, []string{long}), msg(tWalk+1, 1, walked(qid(102))...))
	w.lose()
	w.next(l)
	w.server.answers(tAttach, map[string][]byte{string(attachMsg(l, 0, spare)[wire.HeaderSize:]): msg(tAttach+1, 0, qid(100))})
	w.server.answers(tWalk, map[string][]byte{
		body(spare, 0, []string{}):     msg(tWalk+1, 0, walked()...),
		body(spare, 1, []string{long}): msg(tWalk+1, 0, walked(qid(101))...),
	})
	w.server.answers(tWalk, map[string][]byte{body(1, 1, []string{long}): msg(tWalk+1, 0, walked(qid(102))...)})
}

// TestPace: a server that hangs up as soon as it is there is not asked without a pause.
func TestPace(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	begin := time.Now()
	for range 2 {
		w.lose()
		w.putBack(l, nil, nil)
	}
	w.call(msg(tGetattr, 1, 0, uint64(1)), msg(tGetattr+1, 1))
	if took := time.Since(begin); took < minAge {
		t.Errorf("the second connection was made after %v", took)
	}
}

// TestApart: relays that lose their server in the same moment do not come back in the same, nor
// try again in the same where it is not there yet.
func TestApart(t *testing.T) {
	t.Parallel()
	const relays = 20
	var mu sync.Mutex
	var tries [relays][]time.Time
	var servers []*peer
	for i := range relays {
		ours, client := pair(t)
		theirs, server := pair(t)
		go Serve(t.Context(), client, server, Config{Patience: enough, Dial: func(context.Context) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			tries[i] = append(tries[i], time.Now())
			return nil, net.ErrClosed
		}})
		w := &bench{T: t, client: newPeer(t, "client", ours), server: newPeer(t, "server", theirs)}
		w.begin(l)
		servers = append(servers, w.server)
	}
	time.Sleep(minAge) // so that none of them has to wait for that
	for _, s := range servers {
		s.conn.Close()
	}
	for i := range tries {
		for end := time.Now().Add(enough); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			n := len(tries[i])
			mu.Unlock()
			if n >= 2 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("relay %d has tried %d times", i, n)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var firsts, pauses []time.Duration
	for _, at := range tries {
		firsts = append(firsts, at[0].Sub(tries[0][0]))
		pauses = append(pauses, at[1].Sub(at[0]))
	}
	for what, all := range map[string][]time.Duration{"the first tries": firsts, "the pauses to the second": pauses} {
		if slices.Max(all)-slices.Min(all) < minWait/4 {
			t.Errorf("%s: %v", what, all)
		}
	}
}

// fill sends what request makes until the Relay does not read any more.
func (w *bench) fill(request func(tag uint16) []byte) {
	w.Helper()
	var tag uint16
	for range 2048 {
		var some []byte
		for ; len(some) < 16<<10; tag++ {
			some = append(some, request(tag%wire.NoTag)...)
		}
		w.client.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := w.client.conn.Write(some); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			w.Fatal(err)
		}
	}
	w.Fatal("32 MiB of requests were taken")
}

// TestSaidOnce: why there is no connection is logged once, whatever its addresses are.
func TestSaidOnce(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.lose()
	for range 2 {
		ours, theirs := pair(t)
		w.dialed <- theirs
		newPeer(t, "server", ours)
		if _, err := ours.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		ours.Close() // with something unread, which is a reset
	}
	w.putBack(l, nil, nil)
	w.logged("connected again")
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.log) != "[no connection: read: connection reset by peer]" {
		t.Errorf("%q", w.log)
	}
}

// TestUnreadReplies: a client that does not read is not read from either.
func TestUnreadReplies(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.fill(func(tag uint16) []byte { return msg(tFlush, tag, wire.NoTag) }) // which the relay answers
}

// TestEndsStuck: the session ends with its context, whatever it waits for, and goes on when
// it has what it waits for.
func TestEndsStuck(t *testing.T) {
	t.Run("full of what waits", func(t *testing.T) {
		w := newBench(t, time.Hour)
		w.begin(l)
		w.lose()
		w.fill(func(tag uint16) []byte { return msg(tGetattr, tag, 0, uint64(1)) })
		w.cancel()
		w.ended()
	})
	t.Run("full of bytes", func(t *testing.T) {
		w := newBench(t, time.Hour)
		w.begin(l)
		w.lose()
		data := make([]byte, msize-100)
		w.fill(func(tag uint16) []byte { return msg(118, tag, 0, uint64(0), len(data), data) })
		w.cancel()
		w.ended()
	})
	t.Run("full until there is a server", func(t *testing.T) {
		w := newBench(t, time.Hour)
		w.begin(l)
		w.lose()
		w.fill(func(tag uint16) []byte { return msg(tGetattr, tag, 0, uint64(1)) })
		w.putBack(l, nil, nil)
		for tag := range uint16(maxOutstanding + 1000) {
			w.server.gets(msg(tGetattr, tag, 0, uint64(1)))
			w.server.send(msg(tGetattr+1, tag))
			w.client.gets(msg(tGetattr+1, tag))
		}
	})
	t.Run("server does not read", func(t *testing.T) {
		w := newBench(t, time.Hour)
		w.begin(l)
		data := make([]byte, msize-100)
		w.fill(func(tag uint16) []byte { return msg(118, tag, 0, uint64(0), len(data), data) })
		w.cancel()
		w.ended()
	})
	t.Run("client is gone", func(t *testing.T) {
		w := newBench(t, time.Hour)
		w.begin(l)
		data := make([]byte, msize-100)
		w.fill(func(tag uint16) []byte { return msg(118, tag, 0, uint64(0), len(data), data) })
		w.client.conn.Close()
		w.server.send(msg(119, 0, len(data)))
		w.ended()
	})
}

// TestSlowServer: requests wait until a server reads them.
func TestSlowServer(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	data := make([]byte, msize-100)
	write := func(i int) []byte { return msg(118, uint16(i), 0, uint64(0), len(data), data) }
	const many = 8 * maxQueue / msize
	go func() {
		for i := range many {
			w.client.conn.Write(write(i))
		}
	}()
	time.Sleep(100 * time.Millisecond) // by then the relay most likely waits
	for i := range many {
		w.server.gets(write(i))
	}
}

// TestHeldBytes: what waits no more makes room for others.
func TestHeldBytes(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	data := make([]byte, msize-100)
	many := maxHeld/msize - 1
	write := func(i int) []byte { return msg(118, uint16(i), 0, uint64(0), len(data), data) }
	w.lose()
	for range 2 {
		for i := range many {
			w.client.send(write(i))
		}
		for i := range many {
			w.client.send(msg(tFlush, uint16(many), uint16(i)))
			w.client.gets(msg(tFlush+1, uint16(many)))
		}
	}
	for range 2 {
		for i := range many {
			w.client.send(write(i))
		}
		w.putBack(l, nil, nil)
		for i := range many {
			w.server.gets(write(i))
			w.server.send(msg(119, uint16(i), len(data)))
			w.client.gets(msg(119, uint16(i), len(data)))
		}
		w.lose()
	}
}

// TestVersions: what can be put back is 9P2000 and 9P2000.L, and before one of them is agreed
// on nobody knows what a message means.
func TestVersions(t *testing.T) {
	t.Run("9P2000.u", func(t *testing.T) {
		w := newBench(t, enough)
		w.client.send(msg(tVersion, wire.NoTag, msize, "9P2000.u"))
		w.server.next()
		w.server.send(msg(tVersion+1, wire.NoTag, msize, "9P2000.u"))
		if err := w.ended(); err == nil || !strings.Contains(err.Error(), "9P2000.u") {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("early", func(t *testing.T) {
		w := newBench(t, enough)
		w.client.send(msg(tVersion, wire.NoTag, msize, l), attachMsg(l, 0, 0))
		if err := w.ended(); err != errVersion {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		w := newBench(t, enough)
		w.call(msg(tVersion, wire.NoTag, msize, "8P"), msg(tVersion+1, wire.NoTag, msize, "unknown"))
		w.begin(l)
	})
}
