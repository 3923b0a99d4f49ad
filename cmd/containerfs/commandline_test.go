package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

func TestFlagsFirst(t *testing.T) {
	for line, want := range map[string]string{
		"c apply f --dry-run":                    "c apply --dry-run -- f",
		"c --server unix:///s apply f --dry-run": "c --server unix:///s apply --dry-run -- f",
		"c --server=unix:///s apply f":           "c --server=unix:///s apply -- f",
		"c top /a -n 3 --sort=cpu -b":            "c top -n 3 --sort=cpu -b -- /a",
		"c attach /a -r 7 --unit x":              "c attach -r --unit x -- /a 7",
		"c attach /a -- -7":                      "c attach -- /a -7",
		"c write /a -1":                          "c write /a -1",
		"c run -c /a sh -c x":                    "c run -c /a sh -c x",
		"c set /a x=-1":                          "c set /a x=-1",
		"c nothing /a -l":                        "c nothing /a -l",
		"c --server":                             "c --server",
		"c ls":                                   "c ls --",
		"c top -bn1 /a":                          "c top -b -n 1 -- /a",
		"c top /a -n1 -d0.5":                     "c top -n 1 -d 0.5 -- /a",
		"c top -bn 1":                            "c top -b -n 1 --",
		"c top -bx":                              "c top -bx --",
		"c top -sort cpu -br":                    "c top -sort cpu -b -r --",
		"c top -n=1":                             "c top -n=1 --",
		"c get /a -v":                            "c get -v -- /a",
		"c rules test 1 -v":                      "c rules test -v -- 1",
		"c rules test --user=x --exe /y":         "c rules test --user=x --exe /y --",
		"c rules check f":                        "c rules check -- f",
		"c rules":                                "c rules",
		"c rules tset -v 1":                      "c rules tset -v 1",
	} {
		got := flagsFirst(app(nil, nil, nil), strings.Fields(line))
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"tree", "tree", 0}, {"tree", "tre", 1},
		{"tree", "teer", 2}, {"attach", "atatch", 1}, {"freeze", "frezee", 1}, {"top", "stop", 1}, {"run", "rnu", 1},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%q and %q: got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestParseEvent(t *testing.T) {
	e, err := parseEvent(`12 rename hierarchy=all path="/a b=\"c\"" from="\u00fc x" pid=7`)
	want := map[string]string{"hierarchy": "all", "path": `/a b="c"`, "from": "ü x", "pid": "7"}
	if err != nil || e.Time != 12 || e.Kind != "rename" || len(e.Fields) != len(want) {
		t.Fatalf("got %+v, %v", e, err)
	}
	for k, v := range want {
		if e.Fields[k] != v {
			t.Errorf("%s: got %q, want %q", k, e.Fields[k], v)
		}
	}
	for _, line := range []string{"", "x fork pid=1", "12", "12 fork pid", `12 fork exe="x`, "12 fork pid=1 tgid"} {
		if e, err := parseEvent(line); err == nil {
			t.Errorf("%q: got %+v", line, e)
		}
	}
}

// TestEventJoin: the paths are those that other commands take.
func TestEventJoin(t *testing.T) {
	for _, test := range []struct {
		line            string
		confined        bool
		container, from string
	}{
		{"1 fork pid=7", false, "", ""},
		{"1 umount hierarchy=h options=debug", false, "", ""},
		{"1 mkdir hierarchy=h path=/a/b", false, "/h/a/b", ""},
		{"1 mkdir hierarchy=h path=/a/b", true, "/a/b", ""},
		{"1 limit hierarchy=h path=/ over=x", false, "/h", ""},
		{"1 attach pid=7 hierarchy=h from=/ to=/a", false, "/h/a", "/h"},
		{"1 attach pid=7 hierarchy=h from=/ to=/a", true, "/a", "/"},
		{"1 rename hierarchy=h path=/a/b from=c", false, "/h/a/b", "/h/a/c"},
	} {
		e, err := parseEvent(test.line)
		if e.join(test.confined); err != nil || e.Container != test.container || e.FromContainer != test.from {
			t.Errorf("%s: got %q from %q, %v", test.line, e.Container, e.FromContainer, err)
		}
	}
}

func TestWatcherWants(t *testing.T) {
	for _, test := range []struct {
		w    watcher
		line string
		want bool
	}{
		{watcher{}, "1 fork pid=7 tgid=7 parent=6", true},
		{watcher{kinds: []string{"exit", "fork"}}, "1 fork pid=7", true},
		{watcher{kinds: []string{"exit"}}, "1 fork pid=7", false},
		{watcher{pids: []string{"6"}}, "1 fork pid=7 tgid=7 parent=6", true},
		{watcher{pids: []string{"8"}}, "1 fork pid=7 tgid=7 parent=6", false},
		{watcher{container: "/a"}, "1 mkdir path=/a/b", true},
		{watcher{container: "/a"}, "1 mkdir path=/ab", false},
		{watcher{container: "/a"}, "1 attach from=/ to=/a", true},
		{watcher{container: "/a"}, "1 attach from=/a to=/", true},
		{watcher{container: "/a"}, "1 fork pid=7", false},
		{watcher{container: "/a"}, "1 rename path=/b from=a", true},
		{watcher{container: "/a/b"}, "1 rename path=/a/c from=b", true},
		{watcher{container: "/a"}, "1 rename path=/b from=c", false},
		{watcher{container: "/a"}, "1 rename path=/a/b from=c", true},
	} {
		e, err := parseEvent(test.line)
		if err != nil || test.w.wants(e) != test.want {
			t.Errorf("%+v of %s: not %v; %v", test.w, test.line, test.want, err)
		}
	}
}

func TestSortUsage(t *testing.T) {
	known := func(cpu float64, tasks int) usage { return usage{CPU: &cpu, Tasks: &tasks} }
	a, b, c, d := known(1, 9), known(5, 2), known(5, 3), usage{}
	a.Path, b.Path, c.Path, d.Path = "/a", "/b", "/c", "/d"
	for _, test := range []struct {
		by      string
		reverse bool
		want    string
	}{
		{"cpu", false, "/b/c/a/d"}, {"cpu", true, "/d/a/b/c"}, {"tasks", false, "/a/c/b/d"},
		{"path", false, "/a/b/c/d"}, {"path", true, "/d/c/b/a"}, {"memory", false, "/a/b/c/d"},
	} {
		rows := []usage{d, c, a, b}
		sortUsage(rows, sortOrders[test.by], test.reverse)
		got := ""
		for _, r := range rows {
			got += r.Path
		}
		if got != test.want {
			t.Errorf("by %s, reversed %v: got %s, want %s", test.by, test.reverse, got, test.want)
		}
	}
}

func TestBytesShort(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1024: "1.0K", 1536: "1.5K", 1 << 20: "1.0M", 1<<20 - 1: "1.0M", 5 << 40: "5.0T"} {
		if got := bytesShort(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// TestProgress: after a second, not again at once, and taken away at the end.
func TestProgress(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := progress{out: w, what: "attach", from: time.Now()}
	p.step(1, 9)
	p.from = time.Now().Add(-2 * progressAfter)
	p.step(2, 9)
	p.step(3, 9)
	p.end()
	p.end()
	w.Close()
	got, err := io.ReadAll(r)
	if want := "\r\x1b[Kattach: 2 of 9\r\x1b[K"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	// Who is no terminal is told nothing.
	var pipe bytes.Buffer
	q := newProgress(&pipe, "attach")
	q.from = time.Now().Add(-2 * progressAfter)
	q.step(1, 9)
	q.end()
	if pipe.Len() > 0 {
		t.Errorf("got %q", pipe.String())
	}
}

// TestUndoAfter takes back what was done, last first, and says what it could not.
func TestUndoAfter(t *testing.T) {
	var order []string
	var l undoList
	step := func(name string, err error) {
		l.add(name, func() error { order = append(order, name); return err })
	}
	failure := &pathError{"set", "/x", io.ErrShortWrite}
	step("one", nil)
	step("two", nil)
	if err := l.after(failure); err != failure || !slices.Equal(order, []string{"two", "one"}) {
		t.Errorf("got %v, %v", err, order)
	}
	order = nil
	step("one", nil)
	step("two", io.ErrClosedPipe)
	err := l.after(failure)
	if exitCode(err) != exitPartly || !slices.Equal(order, []string{"two", "one"}) || !strings.Contains(err.Error(), "set /x: short write; and could not be put back: two: ") {
		t.Errorf("got %v, %v", err, order)
	}
}

// TestWaitAtOnce: a timeout of 0 is one look.
func TestWaitAtOnce(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/populated", p9.ModeRegular|0o444, "1\n")
	m.add("/all/Abe/populated", p9.ModeRegular|0o444, "0\n")
	m.mu.Unlock()
	for path, want := range map[string]result{
		"/all/Zoe": {exitBusy, "", "containerfs: wait /all/Zoe: still populated: device or resource busy\n"},
		"/all/Abe": {},
	} {
		for _, timeout := range []string{"0", "0s"} {
			answered := make(chan result, 1)
			go func() { answered <- command(nil, "--server", addr, "wait", "--timeout", timeout, path) }()
			select {
			case got := <-answered:
				if got != want {
					t.Errorf("%s: got %+v", path, got)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s is waited for", path)
			}
		}
	}
}

// TestWaitToTheEnd: the time is waited for as a whole, and looked at its end.
func TestWaitToTheEnd(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/populated", p9.ModeRegular|0o444, "1\n")
	m.mu.Unlock()
	began := time.Now()
	got := command(nil, "--server", addr, "wait", "--timeout", "1", "/all/Zoe")
	if took := time.Since(began); got.code != exitBusy || took < time.Second {
		t.Errorf("after %v of 1s got %+v", took, got)
	}
}

// TestWaitRemoved: a container that is removed while it is waited for is empty.
func TestWaitRemoved(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/populated", p9.ModeRegular|0o444, "1\n")
	m.mu.Unlock()
	waited := make(chan result, 1)
	go func() { waited <- command(nil, "--server", addr, "wait", "/all/Zoe") }()
	for looked := 0; looked < 2; time.Sleep(time.Millisecond) {
		m.mu.Lock()
		looked = m.reads
		m.mu.Unlock()
	}
	m.failWith("walk /all/Zoe", linux.ENOENT)
	if got := <-waited; got.code != 0 || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
	if got := command(nil, "--server", addr, "wait", "/all/Zoe"); got.code != exitNotFound {
		t.Errorf("got %+v", got)
	}
}

// TestAttachLost: the server goes away, and who was not tried is named.
func TestAttachLost(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/procs", p9.ModeRegular|0o644, "")
	m.mu.Unlock()
	near := cutAfter(t, addr, "8\n")
	got := command(nil, "--server", "unix://"+near, "attach", "/all", "7", "8", "9", "10")
	if got.code != exitPartly || !strings.Contains(got.stderr, "attach 8: move to /all: ") || !strings.Contains(got.stderr, "attach 9 10: not tried any more\n") {
		t.Errorf("got %+v", got)
	}
	if wrote := m.takeWrites(); !slices.Equal(wrote, []string{"/all/procs 7\n"}) {
		t.Errorf("wrote %q", wrote)
	}
}

// cutAfter relays one connection to a server, until the client sends a text.
func cutAfter(t *testing.T, addr, text string) string {
	return between(t, addr, func(c, far net.Conn, pass func(to, from net.Conn)) {
		pass(c, far)
		for buf := make([]byte, 64<<10); ; {
			n, err := c.Read(buf)
			if err != nil || bytes.HasSuffix(buf[:n], []byte(text)) {
				break
			}
			far.Write(buf[:n])
		}
	})
}
