package ops

import (
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// event is a parsed line.
type event struct {
	time   int64
	kind   string
	fields [][2]string
}

// parseEvents parses a log strictly, as who relies on the format would: a line is
// refused if there is anything that could be read in two ways.
func parseEvents(text string) (events []event, err error) {
	for line := range strings.Lines(text) {
		line, ok := strings.CutSuffix(line, "\n")
		if !ok {
			return nil, fmt.Errorf("unfinished line %q", line)
		}
		stamp, rest, _ := strings.Cut(line, " ")
		var e event
		if e.time, err = strconv.ParseInt(stamp, 10, 64); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		e.kind, rest, _ = strings.Cut(rest, " ")
		for rest != "" {
			key, value, ok := strings.Cut(rest, "=")
			if !ok || !regexp.MustCompile(`^[a-z]+$`).MatchString(key) {
				return nil, fmt.Errorf("line %q: field %q", line, rest)
			}
			if strings.HasPrefix(value, `"`) {
				quoted, err := strconv.QuotedPrefix(value)
				if err != nil {
					return nil, fmt.Errorf("line %q: %w", line, err)
				}
				rest = value[len(quoted):]
				value, _ = strconv.Unquote(quoted)
			} else {
				value, rest, _ = strings.Cut(value, " ")
				rest = " " + rest
				if value == "" || strings.ContainsAny(value, `"\=`) {
					return nil, fmt.Errorf("line %q: value %q", line, value)
				}
			}
			if rest = strings.TrimRight(rest, ""); rest == " " {
				rest = ""
			} else if rest != "" && rest[0] != ' ' {
				return nil, fmt.Errorf("line %q: after a quoted value: %q", line, rest)
			}
			rest = strings.TrimPrefix(rest, " ")
			e.fields = append(e.fields, [2]string{key, value})
		}
		events = append(events, e)
	}
	return events, nil
}

func (e event) String() string {
	s := e.kind
	for _, f := range e.fields {
		s += fmt.Sprintf(" %s=%q", f[0], f[1])
	}
	return s
}

func TestEvents(t *testing.T) {
	w, k := aWorld(t)
	skip, _ := k.read("events")
	p := w.fork(0)
	w.tree.Drain()
	w.tree.SetNote(p, &Program{UID: 1000, Exe: "/bin/a b"})
	c := w.host.Fork(p)
	w.host.Exec(c)
	k.must(k.write("m/a/tasks", fmt.Sprint(c)))
	k.must(k.mkdir("m/a/b"))
	k.must(k.rename("m/a/b", "m/a/c"))
	k.must(k.rmdir("m/a/c"))
	k.must(k.write("m/a/notify_on_release", "1"))
	k.must(k.write("m/tasks", fmt.Sprint(c)))
	w.host.Exit(c)
	w.tree.Drain()
	w.fs.recorder.ChangedID(5, p, p, false, 1, 2)
	w.fs.recorder.ChangedID(6, p, p, true, 3, 4)
	var active []*tree.Hierarchy
	w.tree.View(func() {
		for h := range w.tree.Hierarchies {
			active = append(active, h)
		}
	})
	w.fs.recorder.Lost(7, 12, active)
	k.must(k.rmdir("m/a"))
	k.must(k.write("ctl", "remount m alpha"))
	k.must(k.write("ctl", "umount m"))
	w.mount("mount n beta,noprefix")

	text, err := k.read("events")
	k.must(err)
	events, err := parseEvents(text[len(skip):])
	k.must(err)
	var got []string
	last := int64(0)
	for _, e := range events {
		if e.kind != "uid" && e.kind != "lost" { // the test stamped these
			if e.time < last {
				t.Errorf("%v at %d, after %d", e, e.time, last)
			}
			last = e.time
		}
		got = append(got, e.String())
	}
	want := fmt.Sprintf(`fork pid="%[1]d" tgid="%[1]d" parent="1"
fork pid="%[2]d" tgid="%[2]d" parent="%[1]d" uid="1000" exe="/bin/a b"
exec pid="%[2]d" tgid="%[2]d" parent="%[1]d" uid="1000" exe="/bin/a b"
attach pid="%[2]d" tgid="%[2]d" hierarchy="m" from="/" to="/a"
mkdir hierarchy="m" path="/a/b"
rename hierarchy="m" path="/a/c" from="b"
rmdir hierarchy="m" path="/a/c"
attach pid="%[2]d" tgid="%[2]d" hierarchy="m" from="/a" to="/"
release hierarchy="m" path="/a"
exit pid="%[2]d" tgid="%[2]d"
uid pid="%[1]d" tgid="%[1]d" ruid="1" uid="2"
uid pid="%[1]d" tgid="%[1]d" rgid="3" gid="4"
lost count="12"
rmdir hierarchy="m" path="/a"
remount hierarchy="m" options="alpha,name=m"
umount hierarchy="m" options="alpha,name=m"
mount hierarchy="n" options="beta,noprefix,name=n"`, p, c)
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("events\n%s\nwant\n%s", g, want)
	}
}

// TestAHierarchysEventsAreItsShare has two hierarchies.
func TestAHierarchysEventsAreItsShare(t *testing.T) {
	w, k := aWorld(t)
	w.mount("mount n beta")
	k.must(k.mkdir("n/x"))
	k.must(k.write("n/x/tasks", fmt.Sprint(w.fork(0))))
	for path, want := range map[string]string{"m/events": "mount mkdir", "n/events": "mount mkdir attach"} {
		text, err := k.read(path)
		k.must(err)
		events, err := parseEvents(text)
		k.must(err)
		var kinds []string
		for _, e := range events {
			kinds = append(kinds, e.kind)
		}
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("%s has %s, want %s", path, got, want)
		}
	}
}

func TestWhoMayReadEvents(t *testing.T) {
	w, k := aWorld(t)
	for _, path := range []string{"events", "m/events"} {
		al := w.as(alice)
		w.refused(linux.EACCES, path, func() error { _, err := al.read(path); return err })
		w.refused(linux.EPERM, "chmod "+path, func() error { return al.chmod(path, 0o444) })
		k.must(k.chmod(path, 0o444))
		if text, err := al.read(path); err != nil || text == "" {
			t.Errorf("%s after chmod: %q, %v", path, text, err)
		}
		k.must(k.chmod(path, 0o400))
		k.must(k.chown(path, 1000, 100))
		if text, err := al.read(path); err != nil || text == "" {
			t.Errorf("%s after chown: %q, %v", path, text, err)
		}
		if a, _ := k.attr(path); a.UID != 1000 || a.GID != 100 || a.Mode.Permissions() != 0o400 {
			t.Errorf("%s: %v", path, a)
		}
	}
}

// TestTailOfEvents reads as tail -f does: on from where it was, again and again.
func TestTailOfEvents(t *testing.T) {
	_, k := aWorld(t)
	f, err := k.open("m/events", p9.ReadOnly)
	k.must(err)
	defer f.Close()
	var got strings.Builder
	follow := func() {
		for b := make([]byte, 37); ; {
			n, err := f.ReadAt(b, int64(got.Len()))
			got.Write(b[:n])
			if err == io.EOF || n == 0 {
				return
			}
			k.must(err)
		}
	}
	for i := range 30 {
		follow()
		n := got.Len()
		follow()
		if got.Len() != n {
			t.Fatal("a read at the end returned something")
		}
		k.must(k.mkdir(fmt.Sprint("m/a/", i)))
		if a, _ := k.attr("m/events"); int(a.Size) <= n {
			t.Fatalf("size %d when %d bytes were read: tail takes it for truncated", a.Size, n)
		}
	}
	follow()
	events, err := parseEvents(got.String())
	if err != nil || len(events) != 32 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 1<<62); err != io.EOF {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestDroppedEvents has the ring drop lines under readers.
func TestDroppedEvents(t *testing.T) {
	w, k := aWorld(t)
	slow, err := k.open("m/events", p9.ReadOnly)
	k.must(err)
	defer slow.Close()
	b := make([]byte, 100)
	at := int64(0)
	read := func(f p9.File, offset int64) string {
		t.Helper()
		n, err := f.ReadAt(b, offset)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	at += int64(len(read(slow, 0)))
	for i := 0; ; i++ {
		k.must(k.mkdir(fmt.Sprint("m/a/", i)))
		if a, _ := k.attr("m/events"); a.Size > 3*64<<10 {
			break
		}
	}
	l := w.container("m").Hierarchy()
	log := rootOf(l).log
	if log.end-log.start > 64<<10 || log.end-log.start < 60<<10 {
		t.Errorf("the log keeps %d bytes", log.end-log.start)
	}
	// Who reads on gets the oldest line first, and then every line once.
	var rest strings.Builder
	for {
		s := read(slow, at)
		if s == "" {
			break
		}
		rest.WriteString(s)
		at += int64(len(s))
	}
	events, err := parseEvents(rest.String())
	if err != nil || int64(rest.Len()) != log.end-log.start || len(events) == 0 {
		t.Errorf("read %d bytes of %d, %v", rest.Len(), log.end-log.start, err)
	}
	k.must(k.mkdir("m/z"))
	if s := read(slow, at); !strings.Contains(s, "path=/z\n") {
		t.Errorf("after the end: %q", s)
	}

	// Who seeks is where the size says, also after a read of what was dropped.
	a, _ := k.attr("m/events")
	for range 2 {
		if s := read(slow, int64(a.Size)-20); len(s) != 20 || !strings.HasSuffix(s, "path=/z\n") {
			t.Errorf("the last 20 bytes: %q", s)
		}
		if s := read(slow, int64(a.Size)); s != "" {
			t.Errorf("at the end: %q", s)
		}
		oldest := make([]byte, 100)
		log.readAt(oldest, 0)
		if s := read(slow, 1); s != string(oldest) {
			t.Errorf("a dropped offset reads %q, the oldest line is %q", s, oldest)
		}
	}
}

func TestRingOfLines(t *testing.T) {
	for _, limit := range []int{16, 100, 5000} {
		l := newEventLog(limit)
		r := rand.New(rand.NewPCG(uint64(limit), 1))
		var all strings.Builder
		for i := range 2000 {
			line := strings.Repeat(string(rune('a'+i%26)), r.IntN(30)) + "\n"
			l.append([]byte(line))
			if len(line) > limit {
				line = line[:limit-1] + "\n"
			}
			all.WriteString(line)
			kept := all.String()[l.start:]
			if l.end != int64(all.Len()) || len(kept) > limit || (l.start > 0 && all.String()[l.start-1] != '\n') {
				t.Fatalf("limit %d, line %d: start %d, end %d of %d", limit, i, l.start, l.end, all.Len())
			}
			// No line was dropped that there was room for.
			if l.start > 0 {
				dropped := all.String()[:l.start-1]
				if oldest := len(dropped) - strings.LastIndexByte(dropped, '\n'); oldest+len(kept) <= limit {
					t.Fatalf("limit %d: a line of %d was dropped, %d are kept", limit, oldest, len(kept))
				}
			}
			offset := r.Int64N(l.end + 10)
			b := make([]byte, r.IntN(limit+10))
			n, from := l.readAt(b, offset)
			want := max(offset, l.start)
			if from != want || string(b[:n]) != all.String()[min(want, l.end):min(want+int64(len(b)), l.end)] {
				t.Fatalf("limit %d: read %d at %d: %d at %d", limit, len(b), offset, n, from)
			}
		}
	}
}
