package p9srv_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv"
)

// seedSessions are sessions that do something, by the name of the dialect.
var seedSessions = map[string][][]string{
	"9P2000.L": {
		{`Twalk 2 0 1 f`, "Tlopen 3 1 2", "Tread 4 1 0 100", "Twrite 5 1 0 hello", "Tclunk 6 1"},
		{"Tmkdir 2 0 e 0755 0", "Twalk 3 0 2 e", "Tlopen 4 2 0", "Treaddir 5 2 0 1000", "Tremove 6 2", "Tflush 7 6"},
		{"Twalk 2 0 1", "Tlcreate 3 1 n 2 0644 0", "Twrite 4 1 0 x", "Tfsync 5 1 0", "Trename 6 1 0 m", "Tflush 7 4"},
		{"Twalk 2 0 1 d", "Twalk 3 1 2 .. f", "Trenameat 4 0 f 1 g", "Tunlinkat 5 1 g 0", "Tsetattr 6 1 1 0700 0 0 0 0 0 0 0"},
		{"Tgetattr 2 0 0x3fff", "Tstatfs 3 0", "Tlock 4 0 1 0 0 0 7 h", "Tgetlock 5 0 1 0 0 7 h", "Txattrwalk 6 0 1 x", "Treadlink 7 0"},
		{"Tsymlink 2 0 n t 0", "Tlink 3 0 0 n", "Tmknod 4 0 n 0 0 0 0", "Txattrcreate 5 0 n 1 0", `Tauth 6 9 "" "" ~`, "Tversion ~ 4096 9P2000.L"},
	},
	"9P2000": {
		{"Twalk tag 2 fid 0 newfid 1 wname f", "Topen tag 3 fid 1 mode ORDWR|OTRUNC", "Tread tag 4 fid 1 count 100", "Twrite tag 5 fid 1 data zz", "Tclunk tag 6 fid 1"},
		{"Twalk tag 2 fid 0 newfid 1", "Tcreate tag 3 fid 1 name e perm d-rwxr-xr-x", "Tread tag 4 fid 1 count 1000", "Tstat tag 5 fid 1", "Tremove tag 6 fid 1", "Tflush tag 7 oldtag 6"},
		{"Twalk tag 2 fid 0 newfid 1", "Tcreate tag 3 fid 1 name n perm --rw-r--r-- mode ORDWR|ORCLOSE", "Twrite tag 4 fid 1 data x", "Twstat tag 5 fid 1 stat ()", "Twstat tag 6 fid 1 stat (name m length 0)", "Tflush tag 7 oldtag 4"},
		{"Twalk tag 2 fid 0 newfid 1 wname d", "Twalk tag 3 fid 1 newfid 2 wname [.. f]", "Twstat tag 4 fid 1 stat (name g mode d-rwx------ uid daemon gid daemon mtime 7 atime 7)", "Tstat tag 5 fid 1", "Twstat tag 6 fid 1 stat (name d)"},
		{"Twalk tag 2 fid 0 newfid 1", "Topen tag 3 fid 1 mode OREAD", "Tread tag 4 fid 1 offset 0 count 62", "Tread tag 5 fid 1 offset 62 count 62", "Tread tag 6 fid 1 offset 0 count 62", "Tclunk tag 7 fid 1"},
		{"Tauth tag 2 afid 9 uname root", "Tattach tag 3 fid 5 afid NOFID uname root", "Tstat tag 4 fid 0", "Tclunk tag 5 fid 5", "Tversion tag 65535 msize 4096 version 9P2000.u"},
	},
}

// seeds are the sessions of a dialect as the bytes of a client.
func seeds(t testing.TB, d tongue) (out [][]byte) {
	for _, session := range seedSessions[d.name] {
		var b []byte
		for line := range strings.Lines(d.hello) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "T") {
				b = append(b, d.frame(t, "%s", line)...)
			}
		}
		for _, m := range session {
			b = append(b, d.frame(t, "%s", m)...)
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
	for _, d := range tongues {
		for _, b := range seeds(f, d) {
			f.Add(b)
		}
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

// FuzzMessage sends one message of any type to a session that has a directory as
// fid 0, an open file as fid 1 and an open directory as fid 2. The next one is answered,
// if that one left the session alive.
func FuzzMessage(f *testing.F) {
	for i, d := range tongues {
		for _, session := range seeds(f, d) {
			for b := session; len(b) > 7; b = b[binary.LittleEndian.Uint32(b):] {
				f.Add(byte(i), b[4], b[7:binary.LittleEndian.Uint32(b)])
			}
		}
	}
	tree, a := start(f, p9srv.Config{FrameTimeout: time.Second, VersionTimeout: time.Second})
	f.Fuzz(func(t *testing.T, i, typ byte, body []byte) {
		if len(body) > 8000 {
			return
		}
		d := tongues[int(i)%len(tongues)]
		b := seeds(t, d)[0]
		b = b[:len(b)-len(d.frame(t, d.clunk, 1, 1))] // f is open
		b = append(b, d.frame(t, d.clone, 1, 0, 2)...)
		b = append(b, raw(0, typ, 9, body...)...)
		b = append(b, d.frame(t, d.stat, 10, 0)...)
		play(t, a, b)
		waitFor(t, "every file closed", func() bool { return tree.Open() == 0 })
		for _, fault := range tree.Faults() {
			t.Error(fault)
		}
	})
}

var mutations = flag.Int("mutations", 1_000_000, "how many mutated messages to send")

// TestMutatedMessages sends sessions in which some bytes are wrong, and checks after
// each that nothing is left of it.
func TestMutatedMessages(t *testing.T) {
	const some = 25_000 // before there is a new tree: this one's files get lost
	inEach(t, func(t *testing.T, d tongue) {
		for seed := range uint64((*mutations/len(tongues) + some - 1) / some) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { mutate(t, d, seed, some) })
		}
	})
}

func mutate(t *testing.T, d tongue, seed uint64, messages int) {
	tree, a := start(t, p9srv.Config{FrameTimeout: time.Second, VersionTimeout: time.Second})
	rnd := rand.New(rand.NewPCG(1, seed))
	good := seeds(t, d)
	for sent := 0; sent < messages; {
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
