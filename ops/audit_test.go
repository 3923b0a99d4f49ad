package ops

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
)

// lines are the audit's lines of the world since the last call, without times.
func (w *world) lines() (out []string) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	for line := range strings.Lines(w.log.b.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " level=")
		if !strings.HasPrefix(line, "DEBUG") && (strings.Contains(line, "msg=change") || strings.Contains(line, "msg=denied")) {
			out = append(out, line)
		}
	}
	w.log.b.Reset()
	return out
}

// TestAuditLines: each change and each denial has its line, and nothing else has.
func TestAuditLines(t *testing.T) {
	w := newWorld(t)
	a := &Caller{UID: 1000, GIDs: []uint32{100}, Local: true, Peer: "unix uid 1000", Origin: "unix uid 1000"}
	ro := &Caller{UID: 0, ReadOnly: true, Peer: "tcp 10.0.0.1:7", Origin: "tcp 10.0.0.1"}
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/open"))
	k.must(k.chmod("m/open", 0o777))
	pid := w.fork(1000)
	w.lines()
	const who = ` uid=1000 peer="unix uid 1000"`
	errText := func(name, text string) string { return " errno=" + name + ` err="` + text + `"` }
	denied := func(mode string) string {
		return errText("EACCES", mode+", owner 0, group 0: permission denied")
	}
	prohibited := func(why string) string { return errText("EPERM", why+"operation not permitted") }
	const privileged = "only root and the server's user may: "
	for _, tt := range []struct {
		what string
		do   func(*client) error
		want string
	}{
		{"mkdir", func(c *client) error { return c.mkdir("m/open/x") }, "INFO msg=change op=mkdir path=/m/open/x" + who},
		{"mkdir denied", func(c *client) error { return c.mkdir("m/x") }, "WARN msg=denied op=mkdir path=/m/x" + who + denied("its directory has mode 0755")},
		{"mkdir twice", func(c *client) error { c.mkdir("m/open/x"); return nil }, ""},
		{"chmod", func(c *client) error { return c.chmod("m/open/x", 0o750) }, "INFO msg=change op=setattr path=/m/open/x" + who + " set=\"mode=0750\""},
		{"chmod denied", func(c *client) error { return c.chmod("m", 0o777) }, "WARN msg=denied op=setattr path=/m" + who + ` set="mode=0777"` + prohibited("only its owner may: ")},
		{"chown denied", func(c *client) error { return c.chown("m/open/x", 0, 100) }, "WARN msg=denied op=setattr path=/m/open/x" + who + ` set="uid=0 gid=100"` + prohibited(privileged)},
		{"attach of a task", func(c *client) error { return c.write("m/open/x/tasks", fmt.Sprint(pid, "\n")) }, "INFO msg=change op=write path=/m/open/x/tasks" + who + fmt.Sprintf(` data="%d\n"`, pid)},
		{"write", func(c *client) error { return c.write("m/open/x/notify_on_release", "1") }, "INFO msg=change op=write path=/m/open/x/notify_on_release" + who + " data=1"},
		{"long write", func(c *client) error { c.write("m/open/x/notify_on_release", strings.Repeat("0", 70)); return nil }, "INFO msg=change op=write path=/m/open/x/notify_on_release" + who + " data=" + strings.Repeat("0", 64) + "..."},
		{"bad write", func(c *client) error { c.write("m/open/x/notify_on_release", "x"); return nil }, ""},
		{"open denied", func(c *client) error { return c.write("m/tasks", "1") }, "WARN msg=denied op=open path=/m/tasks" + who + denied("mode 0644")},
		{"ctl denied", func(c *client) error { return c.write("ctl", "mount x beta") }, "WARN msg=denied op=write path=/ctl" + who + ` data="mount x beta"` + prohibited(privileged)},
		{"kill denied", func(c *client) error { return c.write("m/open/kill", "1") }, "WARN msg=denied op=open path=/m/open/kill" + who + denied("mode 0200")},
		{"rename", func(c *client) error { return c.rename("m/open/x", "m/open/y") }, "INFO msg=change op=rename path=/m/open/x" + who + " to=y"},
		{"rename denied", func(c *client) error { return c.rename("m/open", "m/shut") }, "WARN msg=denied op=rename path=/m/open" + who + " to=shut" + denied("its directory has mode 0755")},
		{"rename by fid", func(c *client) error {
			f, _ := c.walk("m/open/y")
			d, _ := c.walk("m/open")
			defer f.Close()
			defer d.Close()
			return f.Rename(d, "z")
		}, "INFO msg=change op=rename path=/m/open/y" + who + " to=z"},
		{"rmdir busy", func(c *client) error { c.rmdir("m/open/z"); return nil }, ""},
		{"walk denied", func(c *client) error { _, err := c.walk("m/open/z/shut/x"); return err }, "WARN msg=denied op=walk path=/m/open/z/shut/x" + who + denied("its directory has mode 0700")},
		{"read", func(c *client) error { _, err := c.read("m/open/z/tasks"); return err }, ""},
		{"truncation", func(c *client) error {
			return c.setattr("m/open/z/tasks", p9.SetAttrMask{Size: true}, p9.SetAttr{})
		}, ""},
		{"unlink", func(c *client) error { return c.unlink("m/open/z/tasks") }, "WARN msg=denied op=rmdir path=/m/open/z/tasks" + who + prohibited("not a container: ")},
		{"symlink", func(c *client) error { _, err := c.root.Symlink("x", "y", 0, 0); return err }, "WARN msg=denied op=symlink path=/" + who + prohibited("")},
		{"forgery", func(c *client) error { return c.mkdir("m/x\nlevel=INFO msg=change uid=0") }, ""}, // EINVAL
		{"forged element", func(c *client) error {
			_, err := c.walk("m/open/z/shut/a\nmsg=change\" uid=0")
			return err
		}, `WARN msg=denied op=walk path="/m/open/z/shut/a\nmsg=change\" uid=0"` + who + denied("its directory has mode 0700")},
		{"mount by attach denied", func(c *client) error { _, err := w.fs.Attach(a, "beta"); return err }, "WARN msg=denied op=attach path=/beta" + who + prohibited(privileged)},
		{"read-only", func(*client) error { return w.as(ro).mkdir("m/x") }, `WARN msg=denied op=mkdir path=/m/x uid=0 peer="tcp 10.0.0.1:7"` + errText("EROFS", "read-only file system")},
	} {
		if tt.what == "walk denied" {
			k.must(k.write("m/tasks", fmt.Sprint(pid)))
			k.must(k.mkdirMode("m/open/z/shut", 0o700))
			w.lines()
		}
		err := tt.do(w.as(a))
		if isDenied := strings.HasPrefix(tt.want, "WARN"); isDenied != (err != nil) && tt.what != "forgery" {
			t.Errorf("%s: %v", tt.what, err)
		}
		got := w.lines()
		if tt.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.what, strings.Join(got, "\n"), tt.want)
		}
	}
	k.must(k.rmdir("m/open/z/shut"))
	w.mount("mount x beta")
	w.mount("umount x")
	w.attach(root, "beta")
	want := []string{
		`INFO msg=change op=rmdir path=/m/open/z/shut uid=0 peer=""`,
		`INFO msg=change op=write path=/ctl uid=0 peer="" data="mount x beta"`,
		`INFO msg=change op=write path=/ctl uid=0 peer="" data="umount x"`,
		`INFO msg=change op=attach path=/beta uid=0 peer=""`,
	}
	if got := w.lines(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("root's:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAuditRate: of one peer's flood so many lines are written, and how many were left
// out; another's line is not among those that are.
func TestAuditRate(t *testing.T) {
	var b bytes.Buffer
	a := NewAudit(slog.New(slog.NewTextHandler(&b, nil)))
	now := time.Unix(1000, 0)
	a.said.now = func() time.Time { return now }
	count := func(what string) int {
		n := strings.Count(b.String(), what)
		b.Reset()
		return n
	}
	flood := func(origin string, n int) {
		for range n {
			a.Denied(origin, "refused")
		}
	}
	flood("x", 1000)
	if n := count("msg=refused"); n != logBurst {
		t.Errorf("%d lines of a flood, want %d", n, logBurst)
	}
	a.Ended("x") // no denial: counted apart
	if n := a.Denials(); n != 1000 {
		t.Errorf("%d denials are counted of 1000", n)
	}
	flood("y", 1)
	if n := count("\n"); n != 2 {
		t.Errorf("%d lines of others, want 2", n)
	}
	now = now.Add(time.Second)
	flood("x", 1)
	if n := count("msg=refused left_out=800"); n != 1 {
		t.Error("what was left out is not said by the next line")
	}
	flood("x", 1000)
	if n := count("msg=refused"); n != logRate-1 {
		t.Errorf("%d lines after a second, want %d", n, logRate-1)
	}
	a.Flush()
	if n := count("left out\" lines=981 denials=true origin=x"); n != 1 {
		t.Error("what was left out is not said by Flush")
	}
	a.Flush()
	if n := count("\n"); n != 0 {
		t.Error("it is said twice")
	}
	now = now.Add(time.Hour)
	a.Flush()
	if len(a.said.of) != 0 {
		t.Errorf("%d that are quiet are remembered", len(a.said.of))
	}

	// Any number of origins is bounded, in memory and in lines.
	for i := range 10 * logKeys {
		flood(fmt.Sprint(i), 1)
	}
	if n := count("msg=refused"); n != logKeys+logBurst || len(a.said.of) > logKeys+1 {
		t.Errorf("%d lines, %d remembered", n, len(a.said.of))
	}
}

// TestLogLimit: of each message so many lines are written, and it is said how many were not.
func TestLogLimit(t *testing.T) {
	var b bytes.Buffer
	l := NewLogLimit(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	now := time.Unix(1000, 0)
	l.said.now = func() time.Time { return now }
	log := slog.New(l)
	count := func(what string) int {
		n := strings.Count(b.String(), what)
		b.Reset()
		return n
	}
	for i := range 1000 {
		log.With("n", i).Error("again")
		log.WithGroup("g").Warn("again", "n", i)
	}
	if n := count("msg=again"); n != logBurst {
		t.Errorf("%d lines of one message, want %d", n, logBurst)
	}
	log.Info("another")
	if n := count("msg=another"); n != 1 {
		t.Errorf("%d lines of another", n)
	}
	for range 1000 {
		log.Debug("again")
	}
	if n := count("msg=again"); n != 1000 {
		t.Errorf("%d lines of 1000 that were asked for", n)
	}
	now = now.Add(time.Second)
	log.Error("again", "k", "v")
	if n := count("msg=again k=v left_out=1800\n"); n != 1 {
		t.Error("what was left out is not said by the next line")
	}
	for range 1000 {
		log.Error("again")
	}
	b.Reset()
	l.Flush()
	if n := count("level=WARN msg=\"lines left out\" lines=981 message=again\n"); n != 1 {
		t.Error("what was left out is not said by Flush")
	}
	now = now.Add(time.Hour)
	l.Flush()
	if n := count("\n"); n != 0 || len(l.said.of) != 0 {
		t.Errorf("%d lines of what was said, %d that are quiet are remembered", n, len(l.said.of))
	}
	for i := range 10 * logKeys {
		log.Error(fmt.Sprint(i))
	}
	if n := count("\n"); n != logKeys+logBurst || len(l.said.of) > logKeys+1 {
		t.Errorf("%d lines, %d remembered", n, len(l.said.of))
	}
}

// TestAuditHidesNothing: a change has its line after any number of denials, and what
// another user does has his.
func TestAuditHidesNothing(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/open"))
	k.must(k.chmod("m/open", 0o777))
	a, b := w.as(alice), w.as(bob)
	for range 3 * logBurst {
		a.mkdir("m/x")
	}
	if n := len(w.lines()); n > 2*logBurst {
		t.Errorf("%d lines of a flood", n)
	}
	a.must(a.mkdir("m/open/a"))
	b.must(b.mkdir("m/open/b"))
	b.mkdir("m/x")
	if got := w.lines(); len(got) != 3 {
		t.Errorf("lines %q", got)
	}
}

// BenchmarkAudit is what a line costs a hot path: one that is left out.
func BenchmarkAudit(b *testing.B) {
	a := NewAudit(slog.New(slog.DiscardHandler))
	key := auditKey{"unix uid 1000", 1000, false}
	for b.Loop() {
		a.take(key)
	}
}

// TestAuditLinesAreBounded has a peer ask for names that are as long as a message.
func TestAuditLinesAreBounded(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdirMode("m/shut", 0o700))
	long := strings.Repeat("\n", 60<<10)
	ro := *root
	ro.ReadOnly = true
	w.lines()
	for what, do := range map[string]func() error{
		"walk":     func() error { _, err := w.as(alice).walk("m/shut/" + long); return err },
		"mkdir":    func() error { return w.as(&ro).mkdir("m/" + long) },
		"rename":   func() error { return w.as(&ro).rename("m/shut", "m/"+long) },
		"symlink":  func() error { _, err := w.as(alice).root.Symlink("x", long, 0, 0); return err },
		"attach":   func() error { _, err := w.fs.Attach(alice, "alpha,release_agent=/x,"+long); return err },
		"an error": func() error { w.fs.audit.Denied("x", "denied", "err", fmt.Errorf("no user %q", long)); return nil },
	} {
		do()
		switch lines := w.lines(); {
		case len(lines) != 1:
			t.Errorf("%s: %d lines", what, len(lines))
		case len(lines[0]) > 10<<10:
			t.Errorf("%s: a line of %d bytes", what, len(lines[0]))
		}
	}
}

// TestRefusedLines: what is refused and is no denial has a line at level debug, which says
// what of, and with which number.
func TestRefusedLines(t *testing.T) {
	w := newWorld(t)
	a := &Caller{UID: 0, Local: true, Peer: "unix uid 0", Origin: "unix uid 0"}
	w.mount("mount m alpha")
	c := w.as(a)
	c.must(c.mkdir("m/a"))
	w.lines()
	if err := c.write("m/a/notify_on_release", "x"); err == nil {
		t.Fatal("no error")
	}
	if err := c.mkdir("m/a"); err == nil {
		t.Fatal("no error")
	}
	w.log.mu.Lock()
	log := w.log.b.String()
	w.log.mu.Unlock()
	for _, want := range []string{
		`level=DEBUG msg=refused op=write path=/m/a/notify_on_release uid=0 peer="unix uid 0" errno=EINVAL err="`,
		`level=DEBUG msg=refused op=mkdir path=/m/a uid=0 peer="unix uid 0" errno=EEXIST err="`,
	} {
		if strings.Count(log, want) != 1 {
			t.Errorf("not one line with %s:\n%s", want, log)
		}
	}
}
