package p9test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// Messages in text form are what the wire tests are written in:
//
//	Twalk 3 0 1 a b       name, tag, then the fields in the order of the wire
//	Rwalk 3 d5 f6         lists are their elements, qids a letter and the path
//	Rlerror 3 ENOENT
//	Rgetattr 3 ...        whatever the fields are
//
// ~ is a number with all bits set; strings and data are quoted where they must be.
//
// In a layout 1 2 4 8 are the sizes of numbers, s is a string, D is data with its size,
// S are strings and Q qids with their count, q is one qid and * is the rest.
type layout struct {
	typ    uint8
	fields string
}

var layouts = map[string]layout{
	"Rlerror": {7, "4"}, "Tstatfs": {8, "4"}, "Rstatfs": {9, "*"},
	"Tlopen": {12, "44"}, "Rlopen": {13, "q4"},
	"Tlcreate": {14, "4s444"}, "Rlcreate": {15, "q4"},
	"Tsymlink": {16, "4ss4"}, "Rsymlink": {17, "q"},
	"Tmknod": {18, "4s4444"}, "Rmknod": {19, "q"},
	"Trename": {20, "44s"}, "Rrename": {21, ""},
	"Treadlink": {22, "4"}, "Rreadlink": {23, "s"},
	"Tgetattr": {24, "48"}, "Rgetattr": {25, "8q*"},
	"Tsetattr": {26, "4444488888"}, "Rsetattr": {27, ""},
	"Txattrwalk": {30, "44s"}, "Txattrcreate": {32, "4s84"},
	"Treaddir": {40, "484"}, "Rreaddir": {41, "D"},
	"Tfsync": {50, "44"}, "Rfsync": {51, ""},
	"Tlock": {52, "414884s"}, "Rlock": {53, "1"},
	"Tgetlock": {54, "41884s"}, "Rgetlock": {55, "1884s"},
	"Tlink": {70, "44s"}, "Rlink": {71, ""},
	"Tmkdir": {72, "4s44"}, "Rmkdir": {73, "q"},
	"Trenameat": {74, "4s4s"}, "Rrenameat": {75, ""},
	"Tunlinkat": {76, "4s4"}, "Runlinkat": {77, ""},
	"Tversion": {100, "4s"}, "Rversion": {101, "4s"},
	"Tauth": {102, "4ss4"}, "Rauth": {103, "q"},
	"Tattach": {104, "44ss4"}, "Rattach": {105, "q"},
	"Tflush": {108, "2"}, "Rflush": {109, ""},
	"Twalk": {110, "44S"}, "Rwalk": {111, "Q"},
	"Tread": {116, "484"}, "Rread": {117, "D"},
	"Twrite": {118, "48D"}, "Rwrite": {119, "4"},
	"Tclunk": {120, "4"}, "Rclunk": {121, ""},
	"Tremove": {122, "4"}, "Rremove": {123, ""},
	"Tbogus": {126, ""},
}

var layoutNames = func() map[uint8]string {
	m := make(map[uint8]string)
	for name, l := range layouts {
		m[l.typ] = name
	}
	return m
}()

// errnoNames are the errors that scripts call by name.
var errnoNames = map[linux.Errno]string{
	linux.EPERM: "EPERM", linux.ENOENT: "ENOENT", linux.EIO: "EIO", linux.EBADF: "EBADF",
	linux.EACCES: "EACCES", linux.EBUSY: "EBUSY", linux.EEXIST: "EEXIST", linux.ENOTDIR: "ENOTDIR",
	linux.EISDIR: "EISDIR", linux.EINVAL: "EINVAL", linux.EMFILE: "EMFILE", linux.ENOTEMPTY: "ENOTEMPTY",
	linux.EMSGSIZE: "EMSGSIZE", linux.EOPNOTSUPP: "EOPNOTSUPP",
}

var le = binary.LittleEndian

// Encode makes a frame of a message in text form.
func Encode(text string) ([]byte, error) {
	words, err := split(text)
	if err != nil || len(words) < 2 {
		return nil, fmt.Errorf("%q: want a name and a tag: %v", text, err)
	}
	l, ok := layouts[words[0]]
	if !ok {
		return nil, fmt.Errorf("%q: no such message", text)
	}
	b := []byte{0, 0, 0, 0, l.typ}
	fields, words := "2"+l.fields, words[1:]
	for _, f := range fields {
		if f == 'S' {
			b = le.AppendUint16(b, uint16(len(words)))
			for _, w := range words {
				b = append(le.AppendUint16(b, uint16(len(w))), w...)
			}
			words = nil
			break
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("%q: too few fields", text)
		}
		w := words[0]
		words = words[1:]
		switch f {
		case 's':
			b = append(le.AppendUint16(b, uint16(len(w))), w...)
		case 'D':
			b = append(le.AppendUint32(b, uint32(len(w))), w...)
		default:
			size := int(f - '0')
			v := ^uint64(0)
			if w != "~" {
				if v, err = strconv.ParseUint(w, 0, 64); err != nil {
					return nil, fmt.Errorf("%q: %w", text, err)
				}
			}
			b = append(b, le.AppendUint64(nil, v)[:size]...)
		}
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("%q: too many fields", text)
	}
	le.PutUint32(b, uint32(len(b)))
	return b, nil
}

func split(text string) (words []string, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if text[0] == '"' {
			q, err := strconv.QuotedPrefix(text)
			if err != nil {
				return nil, err
			}
			w, _ := strconv.Unquote(q)
			words, text = append(words, w), text[len(q):]
			continue
		}
		w, rest, _ := strings.Cut(text, " ")
		words, text = append(words, w), rest
	}
	return words, nil
}

// Decode gives the text form of a frame.
func Decode(b []byte) string {
	name, ok := layoutNames[b[4]]
	if !ok {
		return fmt.Sprintf("type-%d %x", b[4], b[5:])
	}
	var out strings.Builder
	out.WriteString(name)
	take := func(n int) []byte {
		if n > len(b) {
			n = len(b)
		}
		p := b[:n]
		b = b[n:]
		return p
	}
	number := func(size int) uint64 {
		var w [8]byte
		copy(w[:], take(size))
		return le.Uint64(w[:])
	}
	qid := func() {
		letter := 'f'
		if number(1)&0x80 != 0 {
			letter = 'd'
		}
		number(4)
		fmt.Fprintf(&out, " %c%d", letter, number(8))
	}
	b = b[5:]
	for _, f := range "2" + layouts[name].fields {
		switch f {
		case 's', 'D':
			size := 2
			if f == 'D' {
				size = 4
			}
			fmt.Fprintf(&out, " %q", take(int(number(size))))
		case 'q':
			qid()
		case 'Q':
			for range number(2) {
				qid()
			}
		case '*':
			fmt.Fprintf(&out, " %x", take(len(b)))
		default:
			size := int(f - '0')
			v := number(size)
			switch {
			case name == "Rlerror" && size == 4 && errnoNames[linux.Errno(v)] != "":
				out.WriteString(" " + errnoNames[linux.Errno(v)])
			case v == ^uint64(0)>>(64-8*size):
				out.WriteString(" ~")
			default:
				fmt.Fprintf(&out, " %d", v)
			}
		}
	}
	if len(b) > 0 {
		fmt.Fprintf(&out, " trailing %x", b)
	}
	return out.String()
}

// Wire is a client that sends and receives what a test says.
type Wire struct {
	t testing.TB
	net.Conn
	in     *bufio.Reader
	encode func(string) ([]byte, error)
	decode func([]byte) string
}

// NewWire wraps a connection. Nothing on it may take longer than a minute.
func NewWire(t testing.TB, c net.Conn) *Wire {
	c.SetDeadline(time.Now().Add(time.Minute))
	return &Wire{t, c, bufio.NewReader(c), Encode, Decode}
}

// Send sends messages in one write.
func (w *Wire) Send(messages ...string) {
	w.t.Helper()
	var out []byte
	for _, m := range messages {
		b, err := w.encode(m)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, b...)
	}
	if _, err := w.Write(out); err != nil {
		w.t.Fatal(err)
	}
}

// Receive returns the next message in text form, or the error.
func (w *Wire) Receive() string {
	var head [4]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return err.Error()
	}
	b := make([]byte, max(7, le.Uint32(head[:])))
	copy(b, head[:])
	if _, err := io.ReadFull(w.in, b[4:]); err != nil {
		return err.Error()
	}
	return w.decode(b)
}

// Want receives messages and compares. A message that ends in ... may go on in any way.
func (w *Wire) Want(messages ...string) {
	w.t.Helper()
	for _, want := range messages {
		got := w.Receive()
		prefix, open := strings.CutSuffix(want, "...")
		if got != want && !(open && strings.HasPrefix(got, prefix)) {
			w.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// WantClosed expects the server to hang up without another word.
func (w *Wire) WantClosed() {
	w.t.Helper()
	if got := w.Receive(); got != io.EOF.Error() && !strings.Contains(got, "reset by peer") {
		w.t.Fatalf("got %s, want the connection closed", got)
	}
}

// Script runs lines of text: requests are sent, those that follow each other in
// one write; replies are expected in the order given. "closed" expects the end.
func (w *Wire) Script(script string) {
	w.t.Helper()
	var batch []string
	flush := func() {
		if len(batch) > 0 {
			w.Send(batch...)
			batch = nil
		}
	}
	for line := range strings.Lines(script) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case line == "closed":
			flush()
			w.WantClosed()
		case line[0] == 'T':
			batch = append(batch, line)
		default:
			flush()
			w.Want(line)
		}
	}
	flush()
}
