package tests

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// reload has a server read its configuration anew, and returns what it logged.
func (s *server) reload() string {
	s.t.Helper()
	before := len(s.log.String())
	s.cmd.Process.Signal(syscall.SIGHUP)
	log := ""
	waitFor(s.t, "the reload", func() bool {
		log = s.log.String()[before:]
		return strings.Contains(log, "msg=reloaded") || strings.Contains(log, "not reloaded, what was in force stays")
	})
	return log
}

// alive reports whether a connection is.
func (c *client) alive() bool {
	_, f, err := c.root.Walk(nil)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// dialClient attaches at an address of this host.
func dialClient(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	root, err := attach(conn, "")
	if err != nil {
		t.Fatal(err)
	}
	return &client{t, root}
}

// TestReload: what can be changed while the server runs is, what cannot is said, and
// connections go on where nothing changed for them.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	config := func(text string) { writeFile(t, file, text) }
	const first = `
hierarchy = ["cpu=cpuset"]
[[listen]]
addr = "tcp://127.0.0.2:0"
as = "daemon"
[[listen]]
addr = "tcp://127.0.0.3:0"
as = "daemon"
`
	config(first)
	s := startServer(t, "--config", file)
	second, third := s.at("127.0.0.2"), s.at("127.0.0.3")
	local, changed, kept := s.client(""), dialClient(t, second), dialClient(t, third)
	s.run("mkdir", "/cpu/one")

	log := s.reload() // of the same
	if strings.Contains(log, "listening on") || strings.Contains(log, "restart") || !local.alive() || !changed.alive() || !kept.alive() {
		t.Fatalf("a reload of the same changed something:\n%s", log)
	}

	config(`
hierarchy = ["cpu=cpuset", "x=debug"]
max-containers = 4
log-level = "debug"
mirror = "off"
[[listen]]
addr = "tcp://127.0.0.2:0"
as = "daemon"
access = "ro"
[[listen]]
addr = "tcp://127.0.0.3:0"
as = "daemon"
allow = ["127.0.0.0/8"]
[[listen]]
addr = "tcp://127.0.0.4:0"
no_root_squash = true
[[listen]]
addr = "tcp://127.0.0.5:0"
trust = "uname"
`)
	log = s.reload()
	if !local.alive() || !kept.alive() {
		t.Errorf("a reload that does not concern them ended connections:\n%s", log)
	}
	waitFor(t, "the connection on other terms to end", func() bool { return !changed.alive() })
	if code, out := commandAs(t, 0, second, "mkdir", "/cpu/two"); code != notPermitted || !strings.Contains(out, "read-only") {
		t.Errorf("mkdir at the listener to read: exit code %d\n%s", code, out)
	}
	fourth := s.at("127.0.0.4")
	for _, want := range []string{
		"level=INFO msg=listener at=" + fourth + ` lets_in="users of this host who own their socket, to read and write"`,
		`level=WARN msg="listener: no_root_squash" at=` + fourth,
		"level=INFO msg=listener at=" + s.at("127.0.0.5") + ` lets_in="peers from everywhere as whom they say, to read and write"`,
		`level=WARN msg="listener: trust=uname" at=` + s.at("127.0.0.5"),
	} {
		if strings.Count(log, want) != 1 {
			t.Errorf("of listeners that are new the log has not one line with %s:\n%s", want, log)
		}
	}
	gone := dialClient(t, fourth)
	if names := s.run("ls", "/"); !strings.Contains(names, "\nx\n") {
		t.Errorf("the hierarchy that is new is not mounted: %q", names)
	}
	// Two roots and one container are there.
	s.run("mkdir", "/cpu/two")
	if code, _, stderr := s.command("mkdir", "/cpu/three"); code != 1 || !strings.Contains(stderr, "temporarily unavailable") {
		t.Errorf("over the new limit: exit code %d\n%s", code, stderr)
	}
	if !strings.Contains(log, `msg="reload: this needs a restart" key=mirror`) || strings.Count(log, "restart") != 1 {
		t.Errorf("what is said of the restart:\n%s", log)
	}
	s.command("rmdir", "/cpu/nosuch")
	waitFor(t, "a line at level debug", func() bool { return strings.Contains(s.log.String(), "level=DEBUG") })

	// Back to the first: the listener is withdrawn, hierarchies stay.
	config(first)
	log = s.reload()
	waitFor(t, "the connection of a withdrawn listener to end", func() bool { return !gone.alive() })
	if c, err := net.Dial("tcp", strings.TrimPrefix(fourth, "tcp://")); err == nil {
		c.Close()
		t.Error("a withdrawn listener still listens")
	}
	if !strings.Contains(log, "write umount to ctl") || !strings.Contains(s.run("ls", "/"), "\nx\n") {
		t.Errorf("of a hierarchy that is not asked for any more:\n%s", log)
	}
	s.run("mkdir", "/cpu/three")
	if code, out := commandAs(t, 0, second, "ls", "/cpu"); code != ok {
		t.Errorf("ls: exit code %d\n%s", code, out)
	}
	if !local.alive() {
		t.Error("a connection of a listener that stays has ended")
	}
	config("") // what is there by default is not mounted over what is
	if log = s.reload(); !strings.Contains(log, "msg=reloaded") || strings.Contains(s.run("ls", "/"), "all\n") {
		t.Errorf("an empty file:\n%s", log)
	}
	s.run("rmdir", "/cpu/one", "/cpu/two", "/cpu/three")
}

// TestReloadHierarchies: what a reload says and does about hierarchies goes by those that there
// are, which clients have mounted, remounted and unmounted since.
func TestReloadHierarchies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	config := func(hierarchies string) {
		writeFile(t, file, "state = \"none\"\nhierarchy = ["+hierarchies+"]\n[[listen]]\naddr = \"tcp://127.0.0.2:0\"\nas = \"daemon\"\n")
	}
	config(`"cpu=cpuset", "x=debug"`)
	s := startServer(t, "--config", file)
	reload := func(want string) {
		t.Helper()
		log := s.reload()
		var said []string
		for _, line := range strings.Split(log, "\n") {
			if strings.Contains(line, "hierarchy") {
				said = append(said, line)
			}
		}
		if got := strings.Join(said, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("it says\n%s\nwant %q", got, want)
		}
	}
	const (
		unmount = `write umount to ctl" hierarchy=x`
		remount = `write remount to ctl" hierarchy=cpu asked_for=`
	)
	config(`"cpu=cpuset"`)
	reload(unmount)
	reload(unmount)
	s.run("write", "/ctl", "umount x")
	reload("")
	config(`"cpu=cpuset", "x=debug"`)
	reload("")
	if got := s.run("mounts"); !strings.Contains(got, "x\t") {
		t.Errorf("what is asked for again, and was unmounted, is not mounted: %q", got)
	}

	config(`"cpu=cpuset,cpuacct", "x=debug"`)
	reload(remount + "cpuset,cpuacct")
	s.run("write", "/ctl", "remount cpu cpuset,cpuacct")
	reload("")
	s.run("write", "/ctl", "remount cpu cpuset")
	reload(remount + "cpuset,cpuacct")

	// As at a start.
	s.run("write", "/ctl", "umount x")
	s.run("write", "/ctl", "mount other debug")
	reload(`msg="not reloaded, what was in force stays" err="hierarchy x=debug: debug is in the hierarchy other already: device or resource busy"`)
}

// TestReloadRefused: of a configuration that is bad in one place, nothing comes into
// force, and the line is told.
func TestReloadRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	const good = `
hierarchy = ["cpu=cpuset"]
max-containers = 50
[[listen]]
addr = "tcp://127.0.0.2:0"
as = "daemon"
`
	writeFile(t, file, good)
	s := startServer(t, "--config", file)
	at := s.at("127.0.0.2")
	c, local := dialClient(t, at), s.client("")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	ctl, err := local.read("/ctl")
	if err != nil {
		t.Fatal(err)
	}

	// All of them would have a listener more, another hierarchy, a limit of 1, and the
	// terms of the listener changed, but for one fault.
	whole := func(extra, hierarchy string) string {
		return fmt.Sprintf(`hierarchy = ["cpu=cpuset", "y=debug"%s]
max-containers = 1
[[listen]]
addr = "tcp://127.0.0.2:0"
access = "ro"
[[listen]]
addr = "tcp://%s"
%s`, hierarchy, free.Addr(), extra)
	}
	for _, tt := range []struct{ name, text, says string }{
		{"no TOML", whole("what", ""), "c.toml:8: "},
		{"an unknown key", whole("nosuch = 1\n", ""), `c.toml:8: unknown key \"listen.nosuch\"`},
		{"a wrong value", whole("access = \"r\"\n", ""), "c.toml:8: listen.1.access"},
		{"a wrong hierarchy", whole("", `, "z"`), "c.toml:1: hierarchy"},
		{"no such subsystem", whole("", `, "z=nosuch"`), "hierarchy z=nosuch: "},
		{"a subsystem that is taken", whole("", `, "z=debug"`), "hierarchy z=debug: "},
		{"an address in use", whole("[[listen]]\naddr = \"tcp://"+taken.Addr().String()+"\"\n", ""), "address already in use"},
		{"open to everybody", whole("[[listen]]\naddr = \"tcp://0.0.0.0:0\"\n", ""), "not a loopback address"},
		{"no such user", whole("[[listen]]\naddr = \"tcp://127.0.0.5:0\"\nas = \"nosuchuser\"\n", ""), "unknown user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writeFile(t, file, tt.text)
			log := s.reload()
			if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, tt.says) || strings.Contains(log, "listening on") {
				t.Errorf("the log has no %q:\n%s", tt.says, log)
			}
			if now, err := local.read("/ctl"); err != nil || now != ctl {
				t.Errorf("ctl was\n%s\nis\n%s, %v", ctl, now, err)
			}
			if !c.alive() {
				t.Error("a connection was ended")
			}
			if conn, err := net.Dial("tcp", free.Addr().String()); err == nil {
				conn.Close()
				t.Error("it listens at the new address")
			}
			s.run("mkdir", "/cpu/a") // neither the limit
			s.run("rmdir", "/cpu/a")
		})
	}
	// The old one still is one.
	writeFile(t, file, good)
	if log := s.reload(); !strings.Contains(log, "msg=reloaded") {
		t.Errorf("the good one again:\n%s", log)
	}
	if !c.alive() {
		t.Error("a connection was ended")
	}
}

// TestLogJSON: every line is an object, those that programs wait for among them.
func TestLogJSON(t *testing.T) {
	needHost(t)
	dir, err := os.MkdirTemp("", "cfs")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c := exec.Command("containerfs", "serve", "--log-format", "json", "--log-level", "warn", "--listen", "unix://"+dir+"/sock")
	var log lockedBuffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	waitFor(t, "the server to be ready", func() bool { return strings.Contains(log.String(), `"msg":"ready"`) || len(ended) > 0 })
	c.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("%v:\n%s", err, log.String())
	}
	listening := ""
	for line := range strings.Lines(log.String()) {
		var m struct{ Time, Level, Msg, On string }
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Time == "" || m.Msg == "" || (m.Level == "INFO" || m.Level == "DEBUG") == (m.Msg != "ready" && m.Msg != "listening") {
			t.Errorf("%q: %v", line, err)
		}
		if m.Msg == "listening" {
			listening = m.On
		}
	}
	if listening != "unix://"+dir+"/sock" {
		t.Errorf("listening on %q:\n%s", listening, log.String())
	}
}
