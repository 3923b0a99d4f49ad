package p9srv_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// raw makes a frame with a size that need not be right; 0 means that it is.
func raw(size uint32, typ uint8, tag uint16, body ...byte) []byte {
	if size == 0 {
		size = uint32(7 + len(body))
	}
	b := binary.LittleEndian.AppendUint32(nil, size)
	b = append(b, typ)
	b = binary.LittleEndian.AppendUint16(b, tag)
	return append(b, body...)
}

// malformed is what is sent and how it is taken. It can be in one dialect only.
type malformed struct {
	name    string
	dialect string // "" is all
	first   bool   // before a version
	send    []byte
	want    string // the field of tongue with the reply; "" is a closed connection
}

var malformedFrames = []malformed{
	{"size 0", "", false, []byte{0, 0, 0, 0, 120, 1, 0}, ""},
	{"size 6", "", false, raw(6, 120, 1), ""},
	{"size 2^32-1", "", false, raw(1<<32-1, 120, 1), ""},
	{"size past msize", "", false, raw(8193, 118, 1), ""},
	{"size of msize", "", false, raw(0, 118, 1, make([]byte, 8192-7)...), "invalid"},
	{"first frame over 8 KiB", "", true, raw(8193, 100, 1), ""},
	{"first frame of 8 KiB", "", true, raw(0, 100, 1, make([]byte, 8192-7)...), ""},
	{"request before version", "", true, raw(0, 120, 1, 0, 0, 0, 0), ""},
	{"HTTP", "", true, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
	{"TLS", "", true, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0}, ""},
	{"HTTP later", "", false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
	{"TLS later", "", false, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0}, ""},
	{"no body", "", false, raw(0, 120, 1), "invalid"},
	{"body one short", "", false, raw(0, 120, 1, make([]byte, 3)...), "invalid"},
	{"body one long", "", false, raw(0, 120, 1, make([]byte, 5)...), "invalid"},
	{"string one past the end", "", false, raw(0, 104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 1, 0), "invalid"},
	{"string far past the end", "", false, raw(0, 104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 255, 255, 'a'), "invalid"},
	{"walk of more names than there are", "", false, raw(0, 110, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 'd'), "invalid"},
	{"walk of 65535 names", "", false, raw(0, 110, 1, 0, 0, 0, 0, 1, 0, 0, 0, 255, 255), "invalid"},
	{"walk of 17 names", "", false, raw(0, 110, 1, append([]byte{0, 0, 0, 0, 1, 0, 0, 0, 17, 0}, make([]byte, 34)...)...), "invalid"},
	{"write of more than there is", "", false, raw(0, 118, 1, append(make([]byte, 12), 255, 255, 255, 255)...), "invalid"},
	{"write of one more than there is", "", false, raw(0, 118, 1, append(make([]byte, 12), 2, 0, 0, 0, 'x')...), "invalid"},
	{"write of less than there is", "", false, raw(0, 118, 1, append(make([]byte, 12), 0, 0, 0, 0, 'x')...), "invalid"},
	{"flush without a tag", "", false, raw(0, 108, 1), "invalid"},
	{"malformed Tversion", "", true, raw(0, 100, 1, 0, 32, 0, 0, 9, 0), ""},
	{"malformed Tversion later", "", false, raw(0, 100, 1, 0, 32, 0, 0, 9, 0), ""},
	{"Rlerror", "", false, raw(0, 7, 1, 0, 0, 0, 0), ""},
	{"Rerror", "", false, raw(0, 107, 1, 0, 0), ""},
	{"Rversion", "", true, raw(0, 101, 1, 0, 32, 0, 0), ""},
	{"Rread", "", false, raw(0, 117, 1, 0, 0, 0, 0), ""},
	{"Tlerror", "", false, raw(0, 6, 1, 0, 0, 0, 0), "unsupported"},
	{"Terror", "", false, raw(0, 106, 1, 0, 0), "unsupported"},
	{"type 0", "", false, raw(0, 0, 1), "unsupported"},
	{"type 254", "", false, raw(0, 254, 1), "unsupported"},

	{"getattr one short", "9P2000.L", false, raw(0, 24, 1, make([]byte, 11)...), "invalid"},
	{"mkdir string one past the end", "9P2000.L", false, raw(0, 72, 1, 0, 0, 0, 0, 12, 0, 'a', 0, 0, 0, 0, 0, 0, 0, 0), "invalid"},
	{"Topen in .L", "9P2000.L", false, raw(0, 112, 1, 0, 0, 0, 0, 0), "unsupported"},
	{"Tstat in .L", "9P2000.L", false, raw(0, 124, 1, 0, 0, 0, 0), "unsupported"},
	{"Tattach without n_uname in .L", "9P2000.L", false, raw(0, 104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0), "invalid"},

	{"Tgetattr in 9P2000", "9P2000", false, raw(0, 24, 1, make([]byte, 12)...), "unsupported"},
	{"Tattach with n_uname in 9P2000", "9P2000", false, raw(0, 104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), "invalid"},
	{"open without mode", "9P2000", false, raw(0, 112, 1, 0, 0, 0, 0), "invalid"},
	{"create string one past the end", "9P2000", false, raw(0, 114, 1, 0, 0, 0, 0, 7, 0, 'a', 0, 0, 0, 128, 0), "invalid"},
	{"wstat without a stat", "9P2000", false, raw(0, 126, 1, 0, 0, 0, 0), "invalid"},
	{"wstat of more than there is", "9P2000", false, raw(0, 126, 1, 0, 0, 0, 0, 255, 255), "invalid"},
	{"wstat of an empty stat", "9P2000", false, raw(0, 126, 1, 0, 0, 0, 0, 0, 0), "invalid"},
	{"wstat of less than there is", "9P2000", false, wstat(func(b []byte) []byte { return append(b, 0) }), "invalid"},
	{"stat that is longer than it says", "9P2000", false, wstat(func(b []byte) []byte { b[0]--; return b }), "invalid"},
	{"stat that is shorter than it says", "9P2000", false, wstat(func(b []byte) []byte { b[0]++; return b }), "invalid"},
	{"name of a stat one past the end", "9P2000", false, wstat(func(b []byte) []byte { b[len(b)-8]++; b[len(b)-9] = 8; return b }), "invalid"},
	{"muid of a stat one past the end", "9P2000", false, wstat(func(b []byte) []byte { b[len(b)-2] = 1; return b }), "invalid"},
}

// wstat is a Twstat of fid 0 that touches nothing, with its stat changed.
func wstat(change func([]byte) []byte) []byte {
	var null plan9.Dir
	null.Null()
	b, _ := null.Bytes()
	n := len(b)
	b = change(b)
	if len(b) != n { // the outer size stays
		return raw(0, 126, 1, append([]byte{0, 0, 0, 0, byte(n), 0}, b...)...)
	}
	return raw(0, 126, 1, append([]byte{0, 0, 0, 0, byte(len(b)), 0}, b...)...)
}

func TestMalformedFrames(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		_, a := start(t, p9srv.Config{})
		other := d.dial(t, a)
		other.Script(d.hello)
		before := inventory(t, a)
		for _, tt := range malformedFrames {
			if tt.dialect != "" && tt.dialect != d.name {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				w := d.dial(t, a)
				var got []string
				if !tt.first {
					w.Script(d.hello)
					w.Write(append(d.frame(t, d.stat, 77, 0), tt.send...))
					got = append(got, w.Receive()) // what came before is answered, too
				} else {
					w.Write(tt.send)
				}
				want := map[string]string{"invalid": d.invalid, "unsupported": d.unsupported}[tt.want]
				if want == "" {
					w.WantClosed()
				} else {
					got = append(got, w.Receive())
				}
				answered := func(tag int, how string) bool {
					return slices.ContainsFunc(got, func(r string) bool {
						_, at := d.parse(t, r)
						return at == tag && (how == "" || r == fmt.Sprintf(how, tag))
					})
				}
				if !tt.first && !answered(77, "") || want != "" && !answered(1, want) {
					t.Errorf("got %q", got)
				}
				if want == "" {
					return
				}
				d.try(t, w, d.stat, 1, 0)
			})
		}
		d.try(t, other, d.stat, 1, 0)
		if after := inventory(t, a); after != before {
			t.Errorf("the tree is\n%s\nit was\n%s", after, before)
		}
	})
}

// inventory tells what is in the root.
func inventory(t testing.TB, a p9srv.Addr) string {
	t.Helper()
	conn, err := client.NewConn(p9test.Dial(t, a))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fsys, err := conn.Attach(nil, "", "")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	list := func(dir string) {
		f, err := fsys.Open(dir, plan9.OREAD)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, err := f.Dirreadall()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			fmt.Fprintln(&out, dir, e)
		}
	}
	list("/")
	list("d")
	f, err := fsys.Open("f", plan9.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	fmt.Fprintf(&out, "%q %v", b, err)
	return out.String()
}

// TestAnnounced announces more than it sends. Memory is for what has come.
func TestAnnounced(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		_, a := start(t, p9srv.Config{})
		const n = 200
		before := inuse()
		for range n {
			w := d.dial(t, a)
			w.Script(d.version1M)
			w.Write(raw(1<<20, 118, 1, make([]byte, 100)...))
		}
		time.Sleep(20 * time.Millisecond)
		each := (int64(inuse()) - int64(before)) / n
		t.Logf("%d bytes for each of %d connections in the middle of a message of 1 MiB, with both ends", each, n)
		if each > 64<<10 {
			t.Errorf("%d bytes for what has not come", each)
		}
	})
}

// TestMaxima has counts and offsets at their largest.
func TestMaxima(t *testing.T) {
	const most = "18446744073709551615"
	_, a := start(t, p9srv.Config{})
	before := inventory(t, a)
	dial(t, a).Script(hello + `
		Twalk 1 0 1 f
		Rwalk 1 f3
		Tlopen 1 1 2
		Rlopen 1 f3 0
		Tread 1 1 ` + most + ` 0xffffffff
		Rlerror 1 EINVAL
		Tread 1 1 0x7fffffffffffffff 0xffffffff
		Rlerror 1 EINVAL
		Tread 1 1 0x7fffffff00000000 0xffffffff
		Rread 1 ""
		Twrite 1 1 ` + most + ` x
		Rlerror 1 EINVAL
		Twalk 1 0 2
		Rwalk 1
		Tlopen 1 2 0
		Rlopen 1 d1 0
		Treaddir 1 2 ` + most + ` 0xffffffff
		Rreaddir 1 ""
		Tgetattr 1 1 ` + most + `
		Rgetattr 1...
		Tsetattr 1 1 0 ~ ~ ~ ~ ~ ~ ~ ~
		Rsetattr 1`)
	trace(t, a).Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1 wname f
		Rwalk tag 1 wqid [0x3.0]
		Topen tag 1 fid 1 mode ORDWR
		Ropen tag 1 qid 0x3.0 iounit 0
		Tread tag 1 fid 1 offset ` + most + ` count 0xffffffff
		Rerror tag 1 ename Invalid argument
		Tread tag 1 fid 1 offset 0x7fffffffffffffff count 0xffffffff
		Rerror tag 1 ename Invalid argument
		Twrite tag 1 fid 1 offset ` + most + ` data x
		Rerror tag 1 ename Invalid argument
		Twalk tag 1 fid 0 newfid 2
		Rwalk tag 1 wqid []
		Topen tag 1 fid 2 mode OREAD
		Ropen tag 1 qid 0x1.0.d iounit 0
		Tread tag 1 fid 2 offset ` + most + ` count 0xffffffff
		Rerror tag 1 ename Invalid argument
		Tread tag 1 fid 2 offset 0 count 0
		Rerror tag 1 ename Invalid argument
		Tread tag 1 fid 2 offset 0 count 0xffffffff
		Rread tag 1 count 124...
		Tread tag 1 fid 2 offset 124 count 0
		Rread tag 1 count 0 []
		Twstat tag 1 fid 1 stat (atime 0xffffffff mtime 0xffffffff mode ` + "d-rwxrwxrwx" + `)
		Rerror tag 1 ename Operation not permitted
		Tcreate tag 1 fid 0 name x perm daADSPlLrwxrwxrwx mode 255
		Rerror tag 1 ename Invalid argument
		Topen tag 1 fid 0 mode 255
		Rerror tag 1 ename Invalid argument`)
	if after := inventory(t, a); after != before {
		t.Errorf("the tree is\n%s\nit was\n%s", after, before)
	}
}

func TestOneBytePerPacket(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		_, a := start(t, p9srv.Config{})
		w := d.dial(t, a)
		var all []byte
		for line := range strings.Lines(d.hello) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "T") {
				all = append(all, d.frame(t, "%s", line)...)
			}
		}
		for _, b := range append(all, d.frame(t, d.stat, 2, 0)...) {
			w.Write([]byte{b})
			time.Sleep(100 * time.Microsecond)
		}
		for _, want := range []string{"Rversion", "Rattach", d.stat[:1]} {
			if got := w.Receive(); !strings.HasPrefix(got, "R") || strings.Contains(got, "error") || want[0] == 'R' && !strings.HasPrefix(got, want) {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

func TestHalfClosed(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		tree, a := start(t, p9srv.Config{})
		w := d.dial(t, a)
		w.Script(d.hello)
		g := hold(t, tree, "setattr")
		w.Send(fmt.Sprintf(d.stat, 1, 0), fmt.Sprintf(d.chmod, 2, 0), fmt.Sprintf(d.stat, 3, 0))
		w.Conn.(*net.UnixConn).CloseWrite()
		g.await(t, 1)
		g.release()
		for want := 1; want <= 3; want++ {
			if _, tag := d.parse(t, w.Receive()); tag != want {
				t.Errorf("reply to %d, want to %d", tag, want)
			}
		}
		w.WantClosed()
	})
}

// TestTimeLimits has limits that are longer than what a busy machine may keep who keeps to
// them from the CPU.
func TestTimeLimits(t *testing.T) {
	const limit = 2 * time.Second
	_, a := start(t, p9srv.Config{VersionTimeout: limit, FrameTimeout: limit})
	frame, _ := p9test.Encode("Tgetattr 1 0 1")
	version, _ := p9test.Encode("Tversion ~ 8192 9P2000.L")
	for name, test := range map[string]func(*testing.T){
		"says nothing":    func(t *testing.T) { closes(t, a, limit, func(*p9test.Wire) {}) },
		"half a Tversion": func(t *testing.T) { closes(t, a, limit, func(w *p9test.Wire) { w.Write(version[:8]) }) },
		"no version that there is": func(t *testing.T) {
			closes(t, a, limit, func(w *p9test.Wire) { w.Script("Tversion ~ 8192 9P1999\nRversion...") })
		},
		"a frame that does not end": func(t *testing.T) { closes(t, a, limit, func(w *p9test.Wire) { w.Script(hello); w.Write(frame[:10]) }) },
		"a byte now and then": func(t *testing.T) { // does not help
			closes(t, a, limit, func(w *p9test.Wire) {
				w.Script(hello)
				w.Write([]byte{0, 32, 0, 0, 118, 1, 0})
				for begin := time.Now(); time.Since(begin) < 10*limit; time.Sleep(limit / 20) {
					if _, err := w.Write([]byte{0}); err != nil {
						return
					}
				}
				t.Error("bytes are taken for ever")
			})
		},
		"frames that come one by one": func(t *testing.T) { // have no limit together
			w := dial(t, a)
			w.Script(hello)
			for range 5 {
				time.Sleep(limit / 4)
				w.Write(frame)
				w.Want("Rgetattr 1...")
			}
		},
		"idle": func(t *testing.T) { // is no crime
			w := dial(t, a)
			w.Script(hello)
			time.Sleep(limit * 3 / 2)
			w.Write(frame[:10])
			time.Sleep(limit / 4)
			w.Write(frame[10:])
			w.Want("Rgetattr 1...")
			time.Sleep(limit * 3 / 2) // the deadline of the frame is gone with it
			w.Script("Tgetattr 1 0 1\nRgetattr 1...")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// closes expects a connection to be closed after a limit, whatever is sent meanwhile.
func closes(t *testing.T, a p9srv.Addr, limit time.Duration, send func(*p9test.Wire)) {
	t.Helper()
	begin := time.Now()
	w := dial(t, a)
	send(w)
	w.WantClosed()
	if d := time.Since(begin); d < limit/2 || d > 10*limit {
		t.Errorf("closed after %v", d)
	}
}

// TestNeverReads has 1,000 large reads outstanding and takes no reply.
func TestNeverReads(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		tree, a := start(t, p9srv.Config{WriteTimeout: 300 * time.Millisecond})
		tree.Put("big", make([]byte, 1<<20))
		for i := range 3000 {
			tree.Put(fmt.Sprintf("d%04d", i), nil)
		}
		for _, slow := range []bool{false, true} {
			tree.SetSlow(func(string) bool { return slow })
			w := d.dial(t, a)
			w.Script(d.version1M)
			for i := range 64 {
				if i%8 == 7 && d.name == "9P2000" { // a directory is read, too
					d.try(t, w, d.clone, 1, 0, 10+i)
					d.try(t, w, "Topen tag %d fid %d mode OREAD", 1, 10+i)
					continue
				}
				d.try(t, w, d.walk, 1, 0, 10+i, "big")
				d.try(t, w, d.open, 1, 10+i)
			}
			before := inuse()
			go func() {
				for i := range 1000 {
					b, _ := d.encode(fmt.Sprintf(d.read, i, 10+i%64, uint32(1<<32-1)))
					if _, err := w.Write(b); err != nil {
						return
					}
				}
			}()
			grown := growth(before, 10)
			t.Logf("slow=%v: 1000 reads of 1 MiB that nobody takes: %d KiB", slow, grown>>10)
			// A window of 64 workers has 64 KiB each, and their replies together.
			if grown > 12<<20 {
				t.Errorf("slow=%v: memory grew by %d KiB", slow, grown>>10)
			}
			waitFor(t, "closed by the write deadline", func() bool { return tree.Open() == 0 })
			w.Close()
		}
	})
}

// TestHonestBesideHostile has an honest client go on beside others that never read, that
// send a byte at a time, and that do nothing but be many. How much slower it gets is
// measured by tests/load.
func TestHonestBesideHostile(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	honest := dial(t, a)
	honest.Script(hello)
	request, _ := p9test.Encode("Tgetattr 1 0 1")

	stop := make(chan struct{})
	var hostile sync.WaitGroup
	defer hostile.Wait()
	defer close(stop)
	for range 10 {
		w := dial(t, a)
		w.Script(hello)
		flood := bytes.Repeat(request, 1000)
		hostile.Go(func() { // until nobody takes its requests any more
			for {
				w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := w.Write(flood); err != nil {
					return
				}
			}
		})
	}
	var drips []*p9test.Wire
	for range 20 {
		w := dial(t, a)
		w.Script(hello)
		drips = append(drips, w)
	}
	hostile.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			for _, w := range drips {
				w.Write(request[n%len(request):][:1])
			}
		}
	})
	for range 300 {
		dial(t, a)
	}
	for range 1000 {
		honest.Write(request)
		honest.Want("Rgetattr 1...")
	}
}
