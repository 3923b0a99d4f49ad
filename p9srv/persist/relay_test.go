package persist

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv/wire"
)

func errorMsg(tag uint16, errno int) []byte { return msg(rLerror, tag, errno) }

// TestResume: what was attached, walked to and opened is so on the next connection.
func TestResume(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.walk(1, "a", file(101))
	w.call(msg(tLopen, 1, 1, 0o1000|2), msg(tLopen+1, 1, file(101), 0))
	read := func(tag uint16, offset uint64) []byte { return msg(tRead, tag, 1, offset, 4) }
	data := msg(tRead+1, 1, 4, []byte("1234"))
	w.call(read(1, 0), data)
	w.walk(2, "b", file(102))
	w.call(msg(tClunk, 1, 2), msg(tClunk+1, 1))
	w.walk(2, "c", file(103))
	w.call(msg(tRemove, 1, 2), errorMsg(1, 1)) // which is its end, too

	for range 2 {
		w.lose()
		w.putBack(l,
			map[string][]byte{body(spare, 1, []string{"a"}): msg(tWalk+1, 0, walked(file(101))...)},
			map[string][]byte{body(1, 2): msg(tLopen+1, 0, file(101), 0)}) // O_TRUNC was for the first time
		w.call(msg(tGetattr, 1, 1, uint64(1)), msg(tGetattr+1, 1, uint64(1)))

		// It was opened anew: a reader must not get the end of something else.
		w.client.send(read(1, 4))
		w.client.gets(errorMsg(1, eStale))
		w.call(read(1, 0), data)
		w.call(read(1, 4), msg(tRead+1, 1, 0))
	}
}

// TestInFlight: what was sent and not answered is done again if that does no harm, and else
// nobody knows.
func TestInFlight(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	for fid := 1; fid <= 6; fid++ {
		w.walk(fid, string(rune('a'+fid)), file(uint64(100+fid)))
	}
	sent := [][]byte{
		msg(tGetattr, 1, 1, uint64(1)),
		msg(118, 2, 2, uint64(0), 2, []byte("hi")), // Twrite
		msg(tRead, 3, 3, uint64(0), 4),
		msg(72, 4, 0, "new", 0o755, 0), // Tmkdir
		msg(tRemove, 5, 5),
		msg(tClunk, 6, 6),
		msg(tWalk, 7, 0, 7, []string{"z"}),
		msg(tGetattr, 8, 0, uint64(1)),
	}
	w.client.send(sent...)
	w.server.gets(sent...)
	w.lose()
	w.client.gets(errorMsg(2, eIO), errorMsg(4, eIO), errorMsg(5, eIO), msg(tClunk+1, 6))
	w.client.send(msg(tFlush, 9, uint16(8)))
	w.client.gets(msg(tFlush+1, 9))

	walks := make(map[string][]byte)
	for fid := 1; fid <= 4; fid++ { // the others are gone
		walks[body(spare, fid, []string{string(rune('a' + fid))})] = msg(tWalk+1, 0, walked(file(uint64(100+fid)))...)
	}
	w.putBack(l, walks, nil)
	w.server.gets(sent[0], sent[2], sent[6])
	w.server.send(msg(tGetattr+1, 1, uint64(1)), errorMsg(3, 9), msg(tWalk+1, 7, walked(file(107))...))
	w.client.gets(msg(tGetattr+1, 1, uint64(1)), errorMsg(3, 9), msg(tWalk+1, 7, walked(file(107))...))
	w.call(msg(tClunk, 7, 7), msg(tClunk+1, 7))
}

// TestHeld: what comes while there is no connection waits for one, in order, unless it is
// flushed. A clunk waits for nobody but those before it.
func TestHeld(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	for fid := 1; fid <= 3; fid++ {
		w.walk(fid, string(rune('a'+fid)), file(uint64(100+fid)))
	}
	w.lose()
	held := [][]byte{
		msg(118, 1, 1, uint64(0), 2, []byte("hi")),
		msg(118, 2, 1, uint64(0), 2, []byte("ho")),
		msg(tGetattr, 3, 2, uint64(1)),
		msg(tClunk, 4, 2),
	}
	w.client.send(held...)
	w.client.send(msg(tFlush, 5, uint16(1)), msg(tFlush, 6, uint16(77)), msg(tClunk, 7, 3))
	w.client.gets(msg(tFlush+1, 5), msg(tFlush+1, 6), msg(tClunk+1, 7))
	w.putBack(l, map[string][]byte{
		body(spare, 1, []string{"b"}): msg(tWalk+1, 0, walked(file(101))...),
		body(spare, 2, []string{"c"}): msg(tWalk+1, 0, walked(file(102))...),
	}, nil)
	w.server.gets(held[1:]...)
	w.server.send(msg(119, 2, 2), msg(tGetattr+1, 3), msg(tClunk+1, 4))
	w.client.gets(msg(119, 2, 2), msg(tGetattr+1, 3), msg(tClunk+1, 4))
}

// TestPatience: after a while those who wait are told, and the next connection is made all
// the same.
func TestPatience(t *testing.T) {
	w := newBench(t, 50*time.Millisecond)
	w.begin(l)
	w.walk(1, "a", file(101))
	w.walk(2, "b", file(102))
	w.client.send(msg(tGetattr, 4, 1, uint64(1)))
	w.server.gets(msg(tGetattr, 4, 1, uint64(1)))
	w.lose()
	w.client.send(msg(tGetattr, 1, 1, uint64(1)), msg(tRemove, 2, 2), msg(tClunk, 3, 2))
	for range 4 { // of equal patience, by different timers
		switch b := w.client.next(); string(b) {
		case string(errorMsg(4, eIO)), string(errorMsg(1, eIO)), string(errorMsg(2, eIO)), string(msg(tClunk+1, 3)):
		default:
			t.Errorf("%s", show(b))
		}
	}
	w.putBack(l, map[string][]byte{body(spare, 1, []string{"a"}): msg(tWalk+1, 0, walked(file(101))...)}, nil)
	w.call(msg(tGetattr, 1, 1, uint64(1)), msg(tGetattr+1, 1, uint64(1)))
}

// TestStale: what is not there any more, or is another by now, is told of, and is never
// taken for what it was.
func TestStale(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.walk(1, "other", file(101))
	w.walk(2, "gone", file(102))
	w.call(msg(tWalk, 1, 0, 3, []string{"d", "gone"}), msg(tWalk+1, 1, walked(qid(103), file(104))...))
	w.walk(4, "closed", file(105))
	w.call(msg(tLopen, 1, 4, 0), msg(tLopen+1, 1, file(105), 0))
	w.walk(5, "kept", file(106))
	w.call(msg(tAttach, 1, 8, noFid, "user", "gone", 7), msg(tAttach+1, 1, qid(200)))
	w.call(msg(tAttach, 1, 9, noFid, "user", "other", 7), msg(tAttach+1, 1, qid(300)))

	w.lose()
	w.next(l)
	attaches := make(map[string][]byte)
	roots := make(map[string]uint32)
	for range 3 { // in any order
		b := w.server.next()
		d := wire.Decode(b[wire.HeaderSize:])
		fid, _, _, aname := d.U32(), d.U32(), d.Str(), d.Str()
		roots[aname] = fid
		attaches[aname] = b[5:7]
	}
	answer := func(reply []byte, aname string) {
		copy(reply[5:7], attaches[aname])
		w.server.send(reply)
	}
	answer(msg(tAttach+1, 0, qid(100)), "all")
	answer(errorMsg(0, 2), "gone")
	answer(msg(tAttach+1, 0, qid(301)), "other")
	all := roots["all"]
	w.server.answers(tWalk, map[string][]byte{
		body(all, 0, []string{}):            msg(tWalk+1, 0, walked()...),
		body(all, 1, []string{"other"}):     msg(tWalk+1, 0, walked(file(999))...),
		body(all, 2, []string{"gone"}):      errorMsg(0, 2),
		body(all, 3, []string{"d", "gone"}): msg(tWalk+1, 0, walked(qid(103))...),
		body(all, 4, []string{"closed"}):    msg(tWalk+1, 0, walked(file(105))...),
		body(all, 5, []string{"kept"}):      msg(tWalk+1, 0, walked(file(106))...),
	})
	w.server.answers(tLopen, map[string][]byte{body(4, 0): errorMsg(0, 13)})
	w.server.answers(tClunk, map[string][]byte{
		body(1): msg(tClunk+1, 0), body(4): msg(tClunk+1, 0), body(all): msg(tClunk+1, 0), body(roots["other"]): msg(tClunk+1, 0),
	})
	if line := w.logged("connected again"); !strings.Contains(line, "of 8 files 6 are not to be had any more") {
		t.Error(line)
	}
	for i, request := range [][]byte{
		msg(tGetattr, 1, 1, uint64(1)),
		msg(tWalk, 1, 1, 7, []string{}),
		msg(tRead, 1, 4, uint64(0), 4),
		msg(tWalk, 1, 3, 7, []string{"x"}),
		msg(tRename, 1, 5, 8, "x"),
		msg(tRename, 1, 9, 5, "x"),
		msg(tRenameat, 1, 0, "kept", 8, "x"),
		msg(tRemove, 1, 2),
	} {
		w.client.send(request)
		if got := w.client.next(); string(got) != string(errorMsg(1, eStale)) {
			t.Errorf("request %d: %s", i, show(got))
		}
	}
	w.client.send(msg(tClunk, 1, 1))
	w.client.gets(msg(tClunk+1, 1))
	w.walk(1, "other", file(999)) // now it is that
	w.call(msg(tGetattr, 1, 1, uint64(1)), msg(tGetattr+1, 1))
	w.call(msg(tGetattr, 1, 5, uint64(1)), msg(tGetattr+1, 1))
}

// TestRefused: a server that does not let in, speaks something else or does not make sense
// may do better the next time.
func TestRefused(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.lose()
	attach := string(attachMsg(l, 0, spare)[wire.HeaderSize:])

	w.next(l)
	w.server.answers(tAttach, map[string][]byte{attach: errorMsg(0, 1)})
	w.server.ended()
	w.logged("no connection: attach all: operation not permitted")

	for _, version := range [][]byte{
		msg(tVersion+1, wire.NoTag, msize, "unknown"),
		msg(tVersion+1, wire.NoTag, msize/2, l),
		{3, 0, 0, 0},
	} {
		ours, theirs := pair(t)
		w.dialed <- theirs
		w.server = newPeer(t, "server", ours)
		w.server.next()
		w.server.send(version)
		w.server.ended()
	}
	w.logged("no connection: it does not agree")
	w.logged("no connection: frame size")

	for _, reply := range [][]byte{
		msg(tAttach+1, 9, qid(100)), // a tag that was not asked with
		msg(tWalk+1, 0, walked()...),
	} {
		w.next(l)
		w.server.next()
		w.server.send(reply)
		w.server.ended()
	}
	w.logged("no connection: reply to no request")

	w.putBack(l, nil, nil)
	w.call(msg(tGetattr, 1, 0, uint64(1)), msg(tGetattr+1, 1))
	w.server.send(msg(tGetattr+1, 1)) // once more, which nobody asked for
	w.logged("connection lost (reply to no request)")
	w.putBack(l, nil, nil)
	w.call(msg(tGetattr, 1, 0, uint64(1)), msg(tGetattr+1, 1))
}

// TestPaths: who renames finds his files under their new names, and long paths are walked
// in steps.
func TestPaths(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.walk(1, "a", qid(101))
	w.call(msg(tWalk, 1, 1, 2, []string{"b", "..", ".", "c"}), msg(tWalk+1, 1, walked(qid(102), qid(101), qid(101), qid(103))...))
	w.walk(3, "z", qid(104))
	w.call(msg(tWalk, 1, 3, 4, []string{"..", "..", "a2"}), msg(tWalk+1, 1, walked(qid(100), qid(100), qid(105))...))
	w.call(msg(tRenameat, 1, 0, "a", 3, "new"), msg(tRenameat+1, 1))
	w.call(msg(tRename, 1, 2, 0, "top"), msg(tRename+1, 1))
	w.call(msg(tRenameat, 1, 0, "a2", 0, "not"), errorMsg(1, 1))

	long := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}
	var reply []any
	for i := range long {
		q := walked(qid(uint64(1001 + i)))
		reply = append(reply, q[1])
	}
	whole := append([]any{uint16(16)}, reply...)
	w.call(msg(tWalk, 1, 0, 5, long), msg(tWalk+1, 1, whole...))
	w.call(msg(tWalk, 1, 5, 5, []string{"17"}), msg(tWalk+1, 1, walked(qid(1017))...))
	w.call(msg(tWalk, 1, 5, 6, []string{"18", "19"}), msg(tWalk+1, 1, walked(qid(1018))...)) // not made

	w.lose()
	w.next(l)
	w.server.answers(tAttach, map[string][]byte{string(attachMsg(l, 0, spare)[wire.HeaderSize:]): msg(tAttach+1, 0, qid(100))})
	w.server.answers(tWalk, map[string][]byte{
		body(spare, 0, []string{}):           msg(tWalk+1, 0, walked()...),
		body(spare, 1, []string{"z", "new"}): msg(tWalk+1, 0, walked(qid(104), qid(101))...),
		body(spare, 2, []string{"top"}):      msg(tWalk+1, 0, walked(qid(103))...),
		body(spare, 3, []string{"z"}):        msg(tWalk+1, 0, walked(qid(104))...),
		body(spare, 4, []string{"a2"}):       msg(tWalk+1, 0, walked(qid(105))...),
		body(spare, 5, long):                 msg(tWalk+1, 0, whole...),
	})
	w.server.answers(tWalk, map[string][]byte{body(5, 5, []string{"17"}): msg(tWalk+1, 0, walked(qid(1017))...)})
	w.server.answers(tClunk, map[string][]byte{body(spare): msg(tClunk+1, 0)})
	for fid := range 6 {
		w.call(msg(tGetattr, 1, fid, uint64(1)), msg(tGetattr+1, 1))
	}
}

// TestClassic is 9P2000, where errors are words.
func TestClassic(t *testing.T) {
	w := newBench(t, enough)
	w.begin(classic)
	w.walk(1, "a", file(101))
	w.call(msg(tOpen, 1, 1, uint8(0x10|1)), msg(tOpen+1, 1, file(101), 0))
	w.walk(2, "gone", file(102))
	w.call(msg(tWalk, 1, 0, 3, []string{}), msg(tWalk+1, 1, walked()...))
	w.call(msg(tCreate, 1, 3, "made", uint32(1<<31|0o755), uint8(0)), msg(tCreate+1, 1, qid(103), 0))
	write := msg(118, 1, 1, uint64(0), 2, []byte("hi"))
	w.client.send(write)
	w.server.gets(write)
	w.lose()
	w.client.gets(msg(rError, 1, "Input/output error"))
	w.putBack(classic, map[string][]byte{
		body(spare, 1, []string{"a"}):    msg(tWalk+1, 0, walked(file(101))...),
		body(spare, 2, []string{"gone"}): msg(rError, 0, "No such file or directory"),
		body(spare, 3, []string{"made"}): msg(tWalk+1, 0, walked(qid(103))...),
	}, map[string][]byte{
		body(1, uint8(1)): msg(tOpen+1, 0, file(101), 0),
		body(3, uint8(0)): msg(tOpen+1, 0, qid(103), 0),
	})
	w.client.send(msg(tStat, 1, 2))
	w.client.gets(msg(rError, 1, "Stale file handle"))
	w.call(msg(tStat, 1, 3), msg(tStat+1, 1))

	w.lose() // words can be any, or none
	for _, words := range []string{"", "a\n<0>b"} {
		w.next(classic)
		w.server.answers(tAttach, map[string][]byte{string(attachMsg(classic, 0, spare)[wire.HeaderSize:]): msg(rError, 0, words)})
		w.logged(fmt.Sprintf("no connection: attach all: %q", words))
	}
}

// TestClunkMeanwhile: what is clunked while fids are put back is clunked there as well.
func TestClunkMeanwhile(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.walk(1, "a", file(101))
	w.lose()
	w.next(l)
	w.server.answers(tAttach, map[string][]byte{string(attachMsg(l, 0, spare)[wire.HeaderSize:]): msg(tAttach+1, 0, qid(100))})
	w.client.send(msg(tClunk, 1, 1))
	w.client.gets(msg(tClunk+1, 1))
	w.server.answers(tWalk, map[string][]byte{
		body(spare, 0, []string{}):    msg(tWalk+1, 0, walked()...),
		body(spare, 1, []string{"a"}): msg(tWalk+1, 0, walked(file(101))...),
	})
	w.server.answers(tClunk, map[string][]byte{body(spare): msg(tClunk+1, 0)})
	w.server.answers(tClunk, map[string][]byte{body(1): msg(tClunk+1, 0)})
	w.walk(1, "b", file(102))
}

// TestFlush: an Rflush is behind the reply to what it flushes, and when the connection is
// lost nothing more is heard of that.
func TestFlush(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	read, write := msg(tRead, 1, 0, uint64(0), 4), msg(118, 2, 0, uint64(0), 0)
	w.client.send(read, write)
	w.client.send(msg(tFlush, 3, uint16(1)))
	w.server.gets(read, write, msg(tFlush, 3, uint16(1)))
	w.server.send(msg(tFlush+1, 3)) // it need not answer what was flushed
	w.client.gets(msg(tFlush+1, 3))
	w.client.send(read, msg(tFlush, 3, uint16(1)), msg(tFlush, 4, uint16(2))) // tag 1 is free again
	w.server.gets(read, msg(tFlush, 3, uint16(1)), msg(tFlush, 4, uint16(2)))
	w.lose()
	w.client.gets(errorMsg(2, eIO), msg(tFlush+1, 3), msg(tFlush+1, 4))
	w.putBack(l, nil, nil)
	w.call(msg(tGetattr, 1, 0, uint64(1)), msg(tGetattr+1, 1))
}

// TestEnds: the session ends with its client, and when there never was one.
func TestEnds(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		w := newBench(t, enough)
		w.begin(l)
		w.client.conn.Close()
		if err := w.ended(); err != nil {
			t.Error(err)
		}
		w.server.ended()
	})
	t.Run("client that has not read all", func(t *testing.T) {
		w := newBench(t, enough)
		w.begin(l)
		w.client.send(msg(tFlush, 1, uint16(7)), msg(tFlush, 2, uint16(7)))
		if _, err := w.client.conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		w.client.conn.Close()
		if err := w.ended(); err != nil {
			t.Error(err)
		}
		w.server.ended()
		if len(w.log) > 0 {
			t.Errorf("it says %q", w.log)
		}
	})
	t.Run("client without a server", func(t *testing.T) {
		w := newBench(t, enough)
		w.begin(l)
		w.lose()
		w.client.send(msg(tGetattr, 1, 0, uint64(1)))
		w.client.conn.Close()
		if err := w.ended(); err != nil {
			t.Error(err)
		}
	})
	t.Run("context", func(t *testing.T) {
		w := newBench(t, enough)
		w.begin(l)
		w.cancel()
		if err := w.ended(); err != nil {
			t.Error(err)
		}
		w.client.ended()
		w.server.ended()
	})
	t.Run("server before a version", func(t *testing.T) {
		w := newBench(t, enough)
		w.client.send(msg(tVersion, wire.NoTag, msize, l))
		w.server.next()
		w.server.conn.Close()
		if w.ended() == nil {
			t.Error("no error")
		}
		w.client.ended()
	})
	for name, size := range map[string]int{"more than was asked for": msize + 1, "nothing": 0} {
		t.Run(name, func(t *testing.T) {
			w := newBench(t, enough)
			w.client.send(msg(tVersion, wire.NoTag, msize, l))
			w.server.next()
			w.server.send(msg(tVersion+1, wire.NoTag, size, l))
			if w.ended() == nil {
				t.Error("no error")
			}
		})
	}
	for name, frames := range map[string][][]byte{
		"no version":       {msg(tGetattr, 1, 0, uint64(1))},
		"size":             {{6, 0, 0, 0, 100, 0}},
		"large":            {msg(tVersion, wire.NoTag, msize, l, make([]byte, maxFirstFrame))},
		"fields":           {msg(tVersion, wire.NoTag, msize, l), msg(tWalk, 1, 0)},
		"outstanding":      {msg(tVersion, wire.NoTag, msize, l), msg(tGetattr, 1, 0), msg(tGetattr, 1, 0)},
		"too many to walk": {msg(tVersion, wire.NoTag, msize, l), msg(tWalk, 1, 0, 1, make([]string, wire.MaxWalk+1))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBench(t, enough)
			for i, f := range frames {
				w.client.send(f)
				if i == 0 && len(frames) > 1 {
					w.server.gets(f)
					w.server.send(msg(tVersion+1, wire.NoTag, msize, l))
					w.client.next()
				}
			}
			if w.ended() == nil {
				t.Error("no error")
			}
		})
	}
}

// TestNewVersion: a client may begin anew.
func TestNewVersion(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	old := msg(tGetattr, 1, 0, uint64(1))
	w.client.send(old)
	w.server.gets(old)
	version := msg(tVersion, wire.NoTag, msize, classic)
	w.client.send(version)
	w.server.gets(version)
	w.server.send(msg(tGetattr+1, 1), msg(tVersion+1, wire.NoTag, msize, classic))
	w.client.gets(msg(tVersion+1, wire.NoTag, msize, classic))
	w.lose()
	w.next(classic) // and no fid is left
	w.call(attachMsg(classic, 1, 0), msg(tAttach+1, 1, qid(100)))
}

// TestHeed has the kernel find out about a server that is gone without a word.
func TestHeed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"tcp": func(c net.Conn) net.Conn { return c },
		"tls": func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{ServerName: "server"}) },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			server, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			ours, client := pair(t)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				Serve(t.Context(), client, wrap(conn), Config{})
			}()
			w := newPeer(t, "client", ours)
			w.send(msg(tVersion, wire.NoTag, msize, l))
			newPeer(t, "server", server).in.Peek(1) // by then it is the connection
			checkHeeded(t, conn.(*net.TCPConn))
			ours.Close()
			server.Close()
			<-ended
		})
	}
}

// TestDeaf: a server that does not take requests any more is lost, though it does not hang up.
func TestDeaf(t *testing.T) {
	w := newBench(t, enough)
	w.begin(l)
	w.server.conn.(*net.UnixConn).CloseRead()
	w.client.send(msg(tGetattr, 1, 0, uint64(1)))
	w.logged("connection lost")
	w.putBack(l, nil, nil)
	w.server.gets(msg(tGetattr, 1, 0, uint64(1)))
}

// FuzzServe: whatever the two ends say, a relay does not panic, and ends with its client.
func FuzzServe(f *testing.F) {
	join := func(frames ...[]byte) (b []byte) {
		for _, f := range frames {
			b = append(b, f...)
		}
		return b
	}
	version := msg(tVersion, wire.NoTag, msize, l)
	agreed := msg(tVersion+1, wire.NoTag, msize, l)
	f.Add(join(version, attachMsg(l, 0, 0), msg(tWalk, 1, 0, 1, []string{"a"})),
		join(agreed, msg(tAttach+1, 0, qid(100)), msg(tWalk+1, 1, walked(qid(101))...)),
		join(agreed, msg(tAttach+1, 0, qid(100)), msg(tWalk+1, 0, walked()...)))
	defer func(d time.Duration) { minAge = d }(minAge)
	minAge = 0
	f.Fuzz(func(t *testing.T, client, server, again []byte) {
		says := func(what []byte) net.Conn {
			ours, theirs := pair(t)
			ours.SetDeadline(time.Now().Add(enough))
			ours.Write(what)
			ours.(*net.UnixConn).CloseWrite()
			t.Cleanup(func() { ours.Close() })
			return theirs
		}
		ours, theirs := pair(t)
		ours.Write(client)
		dials := 0
		Serve(t.Context(), theirs, says(server), Config{
			Patience: time.Millisecond,
			Dial: func(context.Context) (net.Conn, error) {
				if dials++; dials == 3 {
					ours.Close()
				}
				return says(again), nil
			},
		})
		ours.Close()
	})
}
