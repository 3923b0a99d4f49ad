package p9srv

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"tcp://127.0.0.1:5640", "tcp://127.0.0.1:5640"},
		{"tcp://[::1]:0", "tcp://[::1]:0"},
		{"tcp://localhost:5640?", "tcp://localhost:5640"},
		{"tls://h:1?cert=/c&key=/k&ca=/a", "tls://h:1?cert=/c&key=/k&ca=/a"},
		{"tls!h!1?name=x&ca=/a%26b&key=/k&cert=/c", "tls://h:1?cert=/c&key=/k&ca=/a%26b&name=x"},
		{"vsock://2:5640", "vsock://2:5640"},
		{"vsock!2!4294967295", "vsock://2:4294967295"},
		{"vsock://:5640", ""},
		{"vsock://*:5640", ""},
		{"vsock://4294967295:5640", ""},
		{"vsock://host:5640", ""},
		{"vsock://2:4294967296", ""},
		{"vsock://2:1?as=x", ""},
		{"tls://h:1", ""},
		{"tls://h:1?cert=&key=/k&ca=/a", ""},
		{"tls://h:1?cert=/c&key=/k&ca=/a&users=x", ""},
		{"tcp://h:1?cert=/c", ""},
		{"tcp://h:1/x", ""},
		{"tcp://h:http", ""},
		{"tcp://h:+1", ""},
		{"tcp://h:-1", ""},
		{"tcp://h:1_0", ""},
		{"tcp://h:0x10", ""},
		{"vsock://+2:1", ""},
		{"tcp://h:65536", ""},
		{"tcp://a/b:1", ""},
		{"tcp://h:1?no_root_squash", ""}, // is a listener's
		{"unix:///a?access=ro", ""},
		{"tcp://:5640", "tcp://:5640"}, // refused by Listen
		{"tcp!127.0.0.1!5640", "tcp://127.0.0.1:5640"},
		{"tcp!::1!5640", "tcp://[::1]:5640"},
		{"tcp![::1]!5640", "tcp://[::1]:5640"},
		{"unix:///run/x/9p.sock", "unix:///run/x/9p.sock"},
		{"unix!/run/x/9p.sock", "unix:///run/x/9p.sock"},
		{"unix!/a!b/9p.sock", "unix:///a%21b/9p.sock"},
		{"unix:///a%20b", "unix:///a%20b"},
		{"unix:///a%2", ""},
		{"unix://relative/9p.sock", ""},
		{"unix!relative", ""},
		{"unix:///" + strings.Repeat("x", 107), ""},
		{"unix:///nul%00", ""},
		{"tcp://127.0.0.1", ""},
		{"tcp://127.0.0.1:", ""},
		{"tcp://127.0.0.1:1?root=squash", ""},
		{"tcp://127.0.0.1:1?no_root_squash&x", ""},
		{"tcp!127.0.0.1", ""},
		{"tcp!127.0.0.1!", ""},
		{"tcp!127.0.0.1!1!2", ""},
		{"udp!127.0.0.1!1", ""},
		{"ssh://host", "ssh://host"},
		{"ssh://alice@host:22/run/a%20b", "ssh://alice@host:22/run/a%20b"},
		{"ssh://host/", "ssh://host"},
		{"ssh://[::1]:22", "ssh://[::1]:22"},
		{"ssh://host?command=/opt/a%26b", "ssh://host?command=/opt/a%26b"},
		{"ssh://host/s?command=c", "ssh://host/s?command=c"},
		{"ssh://", ""},
		{"ssh://@host", ""},
		{"ssh://-oProxyCommand=x", ""},
		{"ssh://-l@host", ""},
		{"ssh://a@-b", ""},
		{"ssh://host:0", ""},
		{"ssh://host:ssh", ""},
		{"ssh://ho st", ""},
		{"ssh://h$(x)", ""},
		{"ssh://h;x", ""},
		{"ssh://a'b@host", ""},
		{"ssh://host/" + strings.Repeat("x", 107), ""},
		{"ssh://host?cert=/c", ""},
		{"ssh://host?command=", ""},
		{"ssh!host!22", ""},
		{"127.0.0.1:5640", ""},
		{"/run/x/9p.sock", ""},
		{"", ""},
	} {
		a, err := ParseAddr(tt.in)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "address ") {
				t.Errorf("%q: %v, %v: want an error that names it", tt.in, a, err)
			}
			continue
		}
		if err != nil || a.String() != tt.want {
			t.Errorf("%q: %v, %v: want %s", tt.in, a, err, tt.want)
			continue
		}
		if b, err := ParseAddr(a.String()); err != nil || b != a {
			t.Errorf("%q: %v is parsed as %v, %v", tt.in, a, b, err)
		}
	}
}

func TestListenTCP(t *testing.T) {
	for _, bad := range []string{"tcp://0.0.0.0:0", "tcp://:0", "tcp://[::]:0", "tcp://192.0.2.1:0", "tcp://[::ffff:192.0.2.1]:0", "tcp://0.0.0.0:0?allow=127.0.0.1&no_root_squash"} {
		e, err := ParseExport(bad)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := Listen(e); err == nil || !strings.Contains(err.Error(), "not a loopback address") {
			t.Errorf("%s: %v, %v", bad, l, err)
		}
	}
	l, err := Listen(Export{Addr: Addr{Network: "tcp", Address: "localhost:0"}, NoRootSquash: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := l.Addr()
	if _, port, _ := net.SplitHostPort(a.Address); port == "0" {
		t.Errorf("listens on %v", a)
	}
	if _, err := Listen(Export{Addr: a}); err == nil {
		t.Error("listens twice on one port")
	}
}

// TestListenUnixInLockedDirectory has somebody lock the directory and keep it so.
func TestListenUnixInLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	listening := make(chan error, 1)
	go func() {
		l, err := Listen(Export{Addr: Addr{Network: "unix", Address: filepath.Join(dir, "sock")}})
		if err == nil {
			l.Close()
		}
		listening <- err
	}()
	select {
	case err := <-listening:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("waits for ever for a lock that anybody can have")
	}
}

// TestListenUnixWaits has another server be about to listen.
func TestListenUnixWaits(t *testing.T) {
	for !listenUnixWaits(t) {
	}
}

// listenUnixWaits is false where the other one took longer than it is waited for.
func listenUnixWaits(t *testing.T) bool {
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	listening := make(chan error, 1)
	go func() {
		l, err := Listen(Export{Addr: Addr{Network: "unix", Address: path}})
		if err == nil {
			l.Close()
		}
		listening <- err
	}()
	time.Sleep(100 * time.Millisecond)
	other, err := net.Listen("unix", path)
	if time.Since(begun) >= lockTime {
		if err == nil {
			other.Close()
		}
		<-listening
		return false
	}
	if err != nil {
		t.Fatalf("the second one is there first: %v", err)
	}
	defer other.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-listening; err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second one: %v", err)
	}
	return true
}

func TestListenUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "p9")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := Addr{Network: "unix", Address: filepath.Join(dir, "sub", "dir", "sock")}
	l, err := Listen(Export{Addr: a}) // makes the directory
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(a.Address); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v", st, err)
	}
	if st, err := os.Stat(filepath.Dir(a.Address)); err != nil || st.Mode().Perm()&^0o755 != 0 {
		t.Errorf("directory: %v, %v", st, err)
	}
	if _, err := Listen(Export{Addr: a}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(a.Address); !os.IsNotExist(err) {
		t.Errorf("socket after close: %v", err)
	}

	// What a killed server leaves is taken over.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.Address, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = Listen(Export{Addr: a}); err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	l.Close()

	// What is not a socket is not.
	if err := os.WriteFile(a.Address, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Export{Addr: a}); err == nil {
		t.Error("listens in place of a file")
	}
	if b, _ := os.ReadFile(a.Address); string(b) != "precious" {
		t.Error("file is gone")
	}
}

// TestFamily: an IPv4 address is no IPv6 one, also where it is all of them; [::] and no host
// are both.
func TestFamily(t *testing.T) {
	for _, tt := range []struct {
		listen string
		dial   map[string]bool // whether somebody is there
	}{
		{"tcp://0.0.0.0:0?as=daemon", map[string]bool{"127.0.0.1": true, "::1": false}},
		{"tcp://127.0.0.1:0", map[string]bool{"127.0.0.1": true, "::1": false}},
		{"tcp://[::]:0?as=daemon", map[string]bool{"127.0.0.1": true, "::1": true}},
		{"tcp://:0?as=daemon", map[string]bool{"127.0.0.1": true, "::1": true}},
		{"tcp://[::1]:0", map[string]bool{"127.0.0.1": false, "::1": true}},
	} {
		e, err := ParseExport(tt.listen)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Listen(e)
		if err != nil && strings.Contains(tt.listen, "::") {
			t.Logf("%v: is there IPv6?", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(l.Addr().Address)
		if asked, _, _ := net.SplitHostPort(e.Address); host != asked && asked != "" {
			t.Errorf("%s listens on %s", tt.listen, l.Addr())
		}
		for host, want := range tt.dial {
			c, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err == nil {
				c.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s, from %s: %v", tt.listen, host, err)
			}
		}
		l.Close()
	}
}
