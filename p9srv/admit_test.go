package p9srv_test

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestAllow: who comes from elsewhere is hung up on before a byte is read, and a line
// says so.
func TestAllow(t *testing.T) {
	for _, tt := range []struct {
		options string
		let     bool
	}{
		{"allow=127.0.0.0/8", true},
		{"allow=127.0.0.1", true},
		{"allow=10.0.0.0/8,127.0.0.1/32", true},
		{"allow=0.0.0.0/0", true},
		{"allow=127.0.0.2", false},
		{"allow=10.0.0.0/8", false},
		{"allow=::/0", false},
		{"allow=10.0.0.0/8&as=daemon", false},
		{"allow=10.0.0.0/8&trust=uname", false},
	} {
		t.Run(tt.options, func(t *testing.T) {
			e, err := p9srv.ParseExport("tcp://127.0.0.1:0?" + tt.options)
			if err != nil {
				t.Fatal(err)
			}
			tree := p9test.NewTree()
			log := new(syncBuffer)
			_, a := p9test.ServeExport(t, p9srv.Config{Attacher: tree, Logger: slog.New(slog.NewTextHandler(log, nil))}, e)
			c := p9test.Dial(t, a)
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if tt.let {
				p9test.NewWire(t, c).Script(hello)
				return
			}
			if b, err := io.ReadAll(c); len(b) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("got %q, %v", b, err)
			}
			waitFor(t, "a line about it", func() bool {
				return strings.Contains(log.String(), "level=WARN msg=\"connection refused\" peer=\"tcp 127.0.0.1:")
			})
		})
	}
}

// TestTerms: what the tree is told of the listener's terms.
func TestTerms(t *testing.T) {
	for _, tt := range []struct {
		options  string
		readOnly bool
		confined string
	}{
		{"", false, ""},
		{"?access=rw", false, ""},
		{"?access=ro", true, ""},
		{"?attach=/cpu/vm42&access=ro", true, "cpu/vm42"},
		{"?attach=cpu", false, "cpu"},
	} {
		for _, network := range []string{"unix:", "tcp://127.0.0.1:0"} {
			tree := p9test.NewTree()
			dial(t, listen(t, tree, network+tt.options)).Script(hello)
			if c := tree.Caller(); c.ReadOnly != tt.readOnly || c.Confined != tt.confined {
				t.Errorf("%s%s: %+v", network, tt.options, c)
			}
		}
	}
}

// TestNoForgedLines: what a peer says of itself does not make lines of its own.
func TestNoForgedLines(t *testing.T) {
	e, err := p9srv.ParseExport("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(syncBuffer)
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: p9test.NewTree(), Logger: slog.New(slog.NewTextHandler(log, nil))}, e)
	w := dial(t, a)
	w.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"
		Tattach 1 0 ~ "x\nlevel=INFO msg=change op=mkdir uid=0" "y\" z=\n\x1b[2J" ~
		Rlerror 1 EPERM`)
	waitFor(t, "a line about it", func() bool { return strings.Contains(log.String(), "attach refused") })
	for line := range strings.Lines(log.String()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "\x1b") || strings.Contains(line, " z=") && !strings.Contains(line, `\" z=`) {
			t.Errorf("line %q", line)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// TestLogIsBounded: a peer that comes again and again to be refused does not fill the
// disk.
func TestLogIsBounded(t *testing.T) {
	e, err := p9srv.ParseExport("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(syncBuffer)
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: p9test.NewTree(), Logger: slog.New(slog.NewTextHandler(log, nil))}, e)
	for range 600 {
		c, err := a.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		io.ReadAll(c)
		c.Close()
	}
	w := dial(t, a)
	w.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"`)
	for range 600 {
		w.Script("Tattach 1 0 ~ root \"\" ~\nRlerror 1 EPERM")
	}
	if n := strings.Count(log.String(), "\n"); n < 200 || n > 700 {
		t.Errorf("%d lines for 1200 refusals", n)
	}
}

// syncBuffer is a log that can be looked at while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
