package p9srv_test

import (
	"bytes"
	"flag"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// seeds are sessions that do something, as the bytes of a client.
func seeds(t testing.TB) (out [][]byte) {
	for _, session := range [][]string{
		{`Twalk 2 0 1 f`, "Tlopen 3 1 2", "Tread 4 1 0 100", "Twrite 5 1 0 hello", "Tclunk 6 1"},
		{"Tmkdir 2 0 e 0755 0", "Twalk 3 0 2 e", "Tlopen 4 2 0", "Treaddir 5 2 0 1000", "Tremove 6 2", "Tflush 7 6"},
		{"Twalk 2 0 1", "Tlcreate 3 1 n 2 0644 0", "Twrite 4 1 0 x", "Tfsync 5 1 0", "Trename 6 1 0 m", "Tflush 7 4"},
		{"Twalk 2 0 1 d", "Twalk 3 1 2 .. f", "Trenameat 4 0 f 1 g", "Tunlinkat 5 1 g 0", "Tsetattr 6 1 1 0700 0 0 0 0 0 0 0"},
		{"Tgetattr 2 0 0x3fff", "Tstatfs 3 0", "Tlock 4 0 1 0 0 0 7 h", "Tgetlock 5 0 1 0 0 7 h", "Txattrwalk 6 0 1 x", "Treadlink 7 0"},
		{"Tsymlink 2 0 n t 0", "Tlink 3 0 0 n", "Tmknod 4 0 n 0 0 0 0", "Txattrcreate 5 0 n 1 0", `Tauth 6 9 "" "" ~`, "Tversion ~ 4096 9P2000.L"},
	} {
		var b []byte
		for _, m := range append([]string{"Tversion ~ 8192 9P2000.L", `Tattach 1 0 ~ "" "" ~`}, session...) {
			f, err := p9test.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, f...)
		}
		out = append(out, b)
	}
	return out
}

// play sends bytes as a client, hangs up, and reads what there is to read. Whatever it
// sent, replies are whole frames and the session comes to its end.
func play(t testing.TB, a p9srv.Addr, b []byte) {
	c, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		c.Write(b)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	in, err := io.ReadAll(c)
	if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
		t.Fatalf("the session does not end: %x", b)
	}
	for len(in) > 0 && err == nil {
		if len(in) < 7 {
			t.Fatalf("half a reply %x to %x", in, b)
		}
		size := int(in[0]) | int(in[1])<<8 | int(in[2])<<16 | int(in[3])<<24
		if size < 7 || size > len(in) || in[4]&1 == 0 {
			t.Fatalf("broken reply %x to %x", in, b)
		}
		in = in[size:]
	}
}

func FuzzSession(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	tree, a := start(f, p9srv.Config{FrameTimeout: time.Second, VersionTimeout: time.Second})
	f.Fuzz(func(t *testing.T, b []byte) {
		play(t, a, b)
		waitFor(t, "every file closed", func() bool { return tree.Open() == 0 })
		for _, fault := range tree.Faults() {
			t.Error(fault)
		}
	})
}

var mutations = flag.Int("mutations", 20000, "how many mutated messages to send")

// TestMutatedMessages sends sessions in which some bytes are wrong, and checks after
// each that nothing is left of it.
func TestMutatedMessages(t *testing.T) {
	tree, a := start(t, p9srv.Config{FrameTimeout: time.Second, VersionTimeout: time.Second})
	rnd := rand.New(rand.NewPCG(1, 2))
	good := seeds(t)
	for sent := 0; sent < *mutations; {
		var b []byte
		s := bytes.Clone(good[rnd.IntN(len(good))])
		b = append(b, s...)
		sent += 8
		for range 10 { // more messages without another connection
			more := good[rnd.IntN(len(good))]
			b = append(b, more[bytes.IndexByte(more, 104)-4:]...)
			sent += 6
		}
		for range 1 + rnd.IntN(6) {
			i := rnd.IntN(len(b))
			switch rnd.IntN(4) {
			case 0:
				b[i] = byte(rnd.Uint32())
			case 1:
				b[i] ^= 1 << rnd.IntN(8)
			case 2:
				b[i] = 0xff
			case 3:
				b[i] = 0
			}
		}
		play(t, a, b)
		if tree.Open() != 0 {
			waitFor(t, "every file closed", func() bool { return tree.Open() == 0 })
		}
	}
}
