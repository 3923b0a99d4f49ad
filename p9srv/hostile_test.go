package p9srv_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

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

func TestMalformedFrames(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	other := dial(t, a)
	other.Script(hello)
	for _, tt := range []struct {
		name  string
		first bool // before a version
		send  []byte
		want  []string // then the connection is closed, unless the last is "open"
	}{
		{"size 0", false, []byte{0, 0, 0, 0, 24, 1, 0}, nil},
		{"size 6", false, raw(6, 24, 1), nil},
		{"size 2^32-1", false, raw(1<<32-1, 24, 1), nil},
		{"size past msize", false, raw(8193, 118, 1), nil},
		{"size of msize", false, raw(0, 118, 1, make([]byte, 8192-7)...), []string{"Rlerror 1 EINVAL", "open"}},
		{"first frame over 8 KiB", true, raw(8193, 100, 1), nil},
		{"first frame of 8 KiB", true, raw(0, 100, 1, make([]byte, 8192-7)...), nil},
		{"HTTP", true, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil},
		{"TLS", true, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0}, nil},
		{"HTTP later", false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), nil},
		{"no body", false, raw(0, 24, 1), []string{"Rlerror 1 EINVAL", "open"}},
		{"body one short", false, raw(0, 24, 1, make([]byte, 11)...), []string{"Rlerror 1 EINVAL", "open"}},
		{"body one long", false, raw(0, 24, 1, make([]byte, 13)...), []string{"Rlerror 1 EINVAL", "open"}},
		{"string one past the end", false, raw(0, 72, 9, 0, 0, 0, 0, 12, 0, 'a', 0, 0, 0, 0, 0, 0, 0, 0), []string{"Rlerror 9 EINVAL", "open"}},
		{"string far past the end", false, raw(0, 72, 9, 0, 0, 0, 0, 255, 255, 'a'), []string{"Rlerror 9 EINVAL", "open"}},
		{"walk of more names than there are", false, raw(0, 110, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 'd'), []string{"Rlerror 1 EINVAL", "open"}},
		{"walk of 65535 names", false, raw(0, 110, 1, 0, 0, 0, 0, 1, 0, 0, 0, 255, 255), []string{"Rlerror 1 EINVAL", "open"}},
		{"write of more than there is", false, raw(0, 118, 1, append(make([]byte, 12), 255, 255, 255, 255)...), []string{"Rlerror 1 EINVAL", "open"}},
		{"write of less than there is", false, raw(0, 118, 1, append(make([]byte, 12), 0, 0, 0, 0, 'x')...), []string{"Rlerror 1 EINVAL", "open"}},
		{"flush without a tag", false, raw(0, 108, 1), []string{"Rlerror 1 EINVAL", "open"}},
		{"malformed Tversion", true, raw(0, 100, 1, 0, 32, 0, 0, 9, 0), nil},
		{"malformed Tversion later", false, raw(0, 100, 1, 0, 32, 0, 0, 9, 0), nil},
		{"Rlerror", false, raw(0, 7, 1, 0, 0, 0, 0), nil},
		{"Rversion", true, raw(0, 101, 1, 0, 32, 0, 0), nil},
		{"Tlerror", false, raw(0, 6, 1, 0, 0, 0, 0), []string{"Rlerror 1 EOPNOTSUPP", "open"}},
		{"type 0", false, raw(0, 0, 1), []string{"Rlerror 1 EOPNOTSUPP", "open"}},
		{"type 254", false, raw(0, 254, 1), []string{"Rlerror 1 EOPNOTSUPP", "open"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := dial(t, a)
			if !tt.first {
				w.Script(hello)
			}
			// What came before is answered.
			if !tt.first {
				before, _ := p9test.Encode("Tgetattr 77 0 1")
				tt.send = append(before, tt.send...)
				tt.want = append([]string{"Rgetattr 77..."}, tt.want...)
			}
			w.Write(tt.send)
			if n := len(tt.want); n > 0 && tt.want[n-1] == "open" {
				w.Want(tt.want[:n-1]...)
				w.Script(`
					Tgetattr 1 0 1
					Rgetattr 1...`)
				return
			}
			w.Want(tt.want...)
			w.WantClosed()
		})
	}
	other.Script(`
		Tgetattr 1 0 1
		Rgetattr 1...`)
}

func TestOneBytePerPacket(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	w := dial(t, a)
	for _, m := range []string{"Tversion ~ 8192 9P2000.L", `Tattach 1 0 ~ "" "" ~`, "Tgetattr 2 0 1"} {
		b, _ := p9test.Encode(m)
		for i := range b {
			w.Write(b[i : i+1])
			time.Sleep(100 * time.Microsecond)
		}
	}
	w.Want("Rversion...", "Rattach 1 d1", "Rgetattr 2...")
}

func TestHalfClosed(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w := dial(t, a)
	w.Script(hello)
	g := hold(t, tree, "mkdir")
	w.Send("Tgetattr 1 0 1", "Tmkdir 2 0 a 0755 0", "Tgetattr 3 0 1")
	w.Conn.(*net.UnixConn).CloseWrite()
	g.await(t, 1)
	g.release()
	w.Want("Rgetattr 1...", "Rmkdir 2 d4", "Rgetattr 3...")
	w.WantClosed()
}

func TestTimeLimits(t *testing.T) {
	const short = 50 * time.Millisecond
	_, a := start(t, p9srv.Config{VersionTimeout: short, FrameTimeout: short})
	closes := func(name string, w *p9test.Wire, least time.Duration) {
		t.Helper()
		begin := time.Now()
		w.WantClosed()
		if d := time.Since(begin); d < least || d > 100*least {
			t.Errorf("%s: closed after %v", name, d)
		}
	}
	silent := dial(t, a)
	closes("says nothing", silent, short/2)

	b, _ := p9test.Encode("Tversion ~ 8192 9P2000.L")
	half := dial(t, a)
	half.Write(b[:8])
	closes("half a Tversion", half, short/2)

	unknown := dial(t, a)
	unknown.Script("Tversion ~ 8192 9P1999\nRversion...")
	closes("no version that there is", unknown, short/2)

	idle := dial(t, a)
	idle.Script(hello)
	frame, _ := p9test.Encode("Tgetattr 1 0 1")
	for range 3 { // frames that come one by one have no time limit together
		time.Sleep(short * 2 / 3)
		idle.Write(frame)
		idle.Want("Rgetattr 1...")
	}
	time.Sleep(3 * short) // idle is no crime
	idle.Write(frame[:10])
	time.Sleep(short / 3)
	idle.Write(frame[10:])
	idle.Want("Rgetattr 1...")
	time.Sleep(2 * short) // the deadline of the frame is gone with it
	idle.Script("Tgetattr 1 0 1\nRgetattr 1...")

	drip := dial(t, a)
	drip.Script(hello)
	drip.Write([]byte{0, 32, 0, 0, 118, 1, 0})
	begin := time.Now()
	for time.Since(begin) < 20*short { // a byte now and then does not help
		time.Sleep(short / 5)
		if _, err := drip.Write([]byte{0}); err != nil {
			break
		}
	}
	if d := time.Since(begin); d > 10*short {
		t.Errorf("a frame that does not end: closed after %v", d)
	}
}

// TestNeverReads sends large reads and takes no reply.
func TestNeverReads(t *testing.T) {
	tree, a := start(t, p9srv.Config{WriteTimeout: 300 * time.Millisecond})
	tree.Put("big", make([]byte, 1<<20))
	for _, slow := range []bool{false, true} {
		tree.SetSlow(func(string) bool { return slow })
		w := dial(t, a)
		w.Script(`
			Tversion ~ 1048576 9P2000.L
			Rversion ~ 1048576 "9P2000.L"
			Tattach 1 0 ~ "" "" ~
			Rattach 1 d1`)
		for i := range 64 {
			w.Script(fmt.Sprintf("Twalk 1 0 %d big\nRwalk 1 f4\nTlopen 1 %d 0\nRlopen 1 f4 0", 10+i, 10+i))
		}
		before := inuse()
		go func() {
			for i := range 1000 {
				b, _ := p9test.Encode(fmt.Sprintf("Tread %d %d 0 0xffffffff", i, 10+i%64))
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}()
		peak := uint64(0)
		for range 10 {
			time.Sleep(10 * time.Millisecond)
			peak = max(peak, inuse())
		}
		grown := int64(peak) - int64(before)
		t.Logf("slow=%v: 1000 reads of 1 MiB that nobody takes: %d KiB", slow, grown>>10)
		if grown > 8<<20 {
			t.Errorf("slow=%v: memory grew by %d KiB", slow, grown>>10)
		}
		waitFor(t, "closed by the write deadline", func() bool { return tree.Open() == 0 })
		w.Close()
	}
}
