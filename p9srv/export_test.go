package p9srv

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseExport(t *testing.T) {
	const files = "cert=/c&key=/k&ca=/a"
	for _, tt := range []struct{ in, want string }{
		{"tcp://0.0.0.0:5640?as=batch&access=rw&allow=10.0.0.0/8&attach=/cpu/vm42", "tcp://0.0.0.0:5640?as=batch&attach=cpu/vm42&allow=10.0.0.0/8"},
		{"tcp!0.0.0.0!5640?access=ro&trust=uname", "tcp://0.0.0.0:5640?trust=uname&access=ro"},
		{"tcp://[::1]:1?allow=::1,10.1.2.3,fe80::/10", "tcp://[::1]:1?allow=::1/128,10.1.2.3/32,fe80::/10"},
		{"tcp://127.0.0.1:1?no_root_squash", "tcp://127.0.0.1:1?no_root_squash"},
		{"tcp://127.0.0.1:1?attach=a%26b/c=d", "tcp://127.0.0.1:1?attach=a%26b/c%3Dd"},
		{"unix:///x?access=ro&as=a", "unix:///x?as=a&access=ro"},
		{"unix:///x?as=azAZ09._-", "unix:///x?as=azAZ09._-"},
		{"unix:///x?as=" + strings.Repeat("a", 256), "unix:///x?as=" + strings.Repeat("a", 256)},
		{"unix:///x?as=" + strings.Repeat("a", 257), ""},
		{"unix:///x?as=-a", ""},
		{"unix:///x?as=a%7B", ""},
		{"unix:///x?as=a:b", ""},
		{"unix!/x?no_root_squash", "unix:///x?no_root_squash"},
		{"tls://:1?" + files + "&users=a,root", "tls://:1?" + files + "&users=a,root"},
		{"tls://:1?" + files + "&as=a&allow=10.0.0.1", "tls://:1?" + files + "&as=a&allow=10.0.0.1/32"},
		{"vsock://:1?as=a&allow=3,4", "vsock://*:1?as=a&allow=3,4"},
		{"vsock://*:1?cid.3.as=a&cid.3.attach=x/y&cid.4.as=b&cid.4.access=ro", "vsock://*:1?cid.3.as=a&cid.3.attach=x/y&cid.4.as=b&cid.4.access=ro"},
		{"vsock!2!1?as=a&access=ro&allow=3&cid.4.access=rw&cid.5.trust=uname", "vsock://2:1?as=a&access=ro&cid.4.access=rw&cid.5.trust=uname&allow=3"},
		{"vsock://:1?trust=uname&allow=3&cid.4.as=b", "vsock://*:1?trust=uname&cid.4.as=b&allow=3"},

		{"tcp://127.0.0.1:1?root_squash", ""},
		{"tcp://127.0.0.1:1?no_root_squash=1", ""},
		{"tcp://127.0.0.1:1?no_root_squash=", ""},
		{"tcp://127.0.0.1:1?access", ""},
		{"tcp://127.0.0.1:1?access=", ""},
		{"tcp://127.0.0.1:1?access=r", ""},
		{"tcp://127.0.0.1:1?access=ro&access=rw", ""},
		{"tcp://127.0.0.1:1?access=ro&&as=a", ""},
		{"tcp://127.0.0.1:1?as=", ""},
		{"tcp://127.0.0.1:1?as=a%00", ""},
		{"tcp://127.0.0.1:1?as=a%", ""},
		{"tcp://127.0.0.1:1?as=a&trust=uname", ""},
		{"tcp://127.0.0.1:1?trust=uid", ""},
		{"tcp://127.0.0.1:1?allow=", ""},
		{"tcp://127.0.0.1:1?allow=10.0.0.0/8,", ""},
		{"tcp://127.0.0.1:1?allow=10.0.0.1/8", ""},
		{"tcp://127.0.0.1:1?allow=10.0.0.0/33", ""},
		{"tcp://127.0.0.1:1?allow=::ffff:10.0.0.0/104", ""},
		{"tcp://127.0.0.1:1?allow=fe80::1%25eth0", ""},
		{"tcp://127.0.0.1:1?allow=host", ""},
		{"tcp://127.0.0.1:1?attach=", ""},
		{"tcp://127.0.0.1:1?attach=/", ""},
		{"tcp://127.0.0.1:1?attach=../x", ""},
		{"tcp://127.0.0.1:1?attach=x/../..", ""},
		{"tcp://127.0.0.1:1?attach=x/./y", ""},
		{"tcp://127.0.0.1:1?attach=x//y", ""},
		{"tcp://127.0.0.1:1?attach=x/", ""},
		{"tcp://127.0.0.1:1?users=a", ""},
		{"tcp://127.0.0.1:1?cert=/c", ""},
		{"tcp://127.0.0.1:1?cid.3.as=a", ""},
		{"tcp://127.0.0.1:1/x?as=a", ""},
		{"unix:///x?allow=10.0.0.0/8", ""},
		{"unix:///x?frob=1", ""},
		{"tls://:1", ""},
		{"tls://:1?cert=/c&key=/k", ""},
		{"tls://:1?" + files + "&name=x", ""},
		{"tls://:1?" + files + "&users=", ""},
		{"tls://:1?" + files + "&users=a,,b", ""},
		{"tls://:1?" + files + "&users=a&as=b", ""},
		{"tls://:1?" + files + "&users=a&trust=uname", ""},
		{"vsock://:1", ""},
		{"vsock://:1?as=a", ""}, // nobody could come in
		{"vsock://:1?allow=3", ""},
		{"vsock://:1?allow=*&as=a", ""},
		{"vsock://:1?allow=4294967295&as=a", ""},
		{"vsock://:1?cid.3=a", ""},
		{"vsock://:1?cid.x.as=a", ""},
		{"vsock://:1?cid.03.as=a", ""},
		{"vsock://:1?cid.3.allow=1", ""},
		{"vsock://:1?cid.3.access=ro", ""},
		{"vsock://:1?cid.3.as=a&cid.3.trust=uname", ""},
		{"vsock://:1?cid.3.as=a&cid.3.attach=..", ""},
		{"vsock://-1:1?as=a&allow=3", ""},
	} {
		e, err := ParseExport(tt.in)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "address ") {
				t.Errorf("%q: %v, %v: want an error that names it", tt.in, e, err)
			}
			continue
		}
		if err != nil || e.String() != tt.want {
			t.Errorf("%q: %v, %v: want %s", tt.in, e, err, tt.want)
			continue
		}
		if again, err := ParseExport(e.String()); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q: %v is parsed as %v, %v", tt.in, e, again, err)
		}
	}
}

// TestOptionErrors: who reads a config file can say where it is wrong.
func TestOptionErrors(t *testing.T) {
	for _, tt := range []struct {
		addr string
		opts []Option
		key  string
	}{
		{"tcp://h", nil, "addr"},
		{"tcp://h:1?as=x", nil, "addr"},
		{"tcp://h:1", []Option{{"as", "a"}, {"allow", "x"}}, "allow"},
		{"tcp://h:1", []Option{{"frob", ""}}, "frob"},
		{"tcp://h:1", []Option{{"as", "a"}, {"trust", "uname"}}, ""},
		{"vsock://:1", []Option{{"cid.3.as", ""}}, "cid.3.as"},
	} {
		_, err := NewExport(tt.addr, tt.opts)
		var opt *OptionError
		if !errors.As(err, &opt) || opt.Key != tt.key {
			t.Errorf("%s %v: %v: want one of %q", tt.addr, tt.opts, err, tt.key)
		}
	}
}

// TestListenUsers: an export to a user that there is not would let nobody in.
func TestListenUsers(t *testing.T) {
	for _, s := range []string{"tcp://127.0.0.1:0?as=no-such-user", "vsock://:1?cid.3.as=no-such-user"} {
		e, err := ParseExport(s)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := Listen(e); err == nil || !strings.Contains(err.Error(), "no-such-user") {
			t.Errorf("%s: %v, %v", s, l, err)
		}
	}
}

// TestCheck: what Listen would refuse is told in its words, and nothing is listened on.
func TestCheck(t *testing.T) {
	file, none := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "none", "sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"tcp://127.0.0.1:0?as=no-such-user": "unknown user no-such-user",
		"tcp://0.0.0.0:0":                   "not a loopback address",
		"tls://127.0.0.1:0?cert=" + file + "&key=" + none + "&ca=/ca": "no such file",
		"tls://127.0.0.1:0?users=no-such-user&cert=/c&key=/k&ca=/ca":  "unknown user no-such-user",
		"unix://" + file:    "exists and is not a socket",
		"unix://" + none:    "",
		"tcp://127.0.0.1:1": "",
	} {
		e, err := ParseExport(s)
		if err != nil {
			t.Fatal(err)
		}
		err = e.Check()
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", s, err)
			}
			continue
		}
		if _, errListen := Listen(e); err == nil || errListen == nil || err.Error() != errListen.Error() || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, and Listen says %v", s, err, errListen)
		}
	}
	if _, err := os.Stat(filepath.Dir(none)); err == nil {
		t.Error("a directory was made")
	}
	for _, a := range []Addr{{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "tcp", Address: "localhost:0"}} {
		if err := CheckLocal(a); err != nil {
			t.Error(err)
		}
		l, err := ListenLocal(a)
		if err != nil {
			t.Error(err)
			continue
		}
		if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("%s listens on %s", a, l.Addr())
		}
		l.Close()
	}
	for _, a := range []Addr{
		{Network: "tcp", Address: "0.0.0.0:0"}, {Network: "tcp", Address: "127.0.0.1"}, {Network: "tcp", Address: ":0"}, {Network: "tcp", Address: "10.0.0.1:0"},
		{Network: "tls", Address: "127.0.0.1:0"}, {Network: "vsock", Address: ":1"}, {Network: "unix", Address: file},
	} {
		_, err := ListenLocal(a)
		if got := CheckLocal(a); err == nil || got == nil || got.Error() != err.Error() {
			t.Errorf("%s: %v, and ListenLocal says %v", a, got, err)
		}
	}
}

// TestAnnounce: a listener says what it lets in, and warns of what makes peers
// privileged.
func TestAnnounce(t *testing.T) {
	for _, tt := range []struct {
		export string
		lines  []string
	}{
		{"tcp://127.0.0.1:0", []string{`INFO listener "users of this host who own their socket, root as nobody, to read and write"`}},
		{"tcp://127.0.0.1:0?no_root_squash&access=ro", []string{`INFO listener "users of this host who own their socket, to read"`, "WARN no_root_squash"}},
		{"tcp://127.0.0.1:0?allow=127.0.0.1", []string{`INFO listener "users of this host who own their socket, root as nobody, from 127.0.0.1/32, to read and write"`}},
		{"tcp://127.0.0.1:0?no_root_squash&allow=10.0.0.0/8,::1", []string{`INFO listener "users of this host who own their socket, from 10.0.0.0/8 ::1/128, to read and write"`, "WARN no_root_squash"}},
		{"tcp://127.0.0.1:0?as=daemon&attach=/cpu/vm42&allow=10.0.0.0/8,::1", []string{`INFO listener "peers from 10.0.0.0/8 ::1/128 as daemon, to read and write, in /cpu/vm42"`}},
		{"tcp://127.0.0.1:0?as=root", []string{`INFO listener "peers from everywhere as root, to read and write"`, "WARN as=root"}},
		{"tcp://127.0.0.1:0?trust=uname", []string{`INFO listener "peers from everywhere as whom they say, to read and write"`, "WARN trust=uname"}},
		{"tls://:1?cert=/c&key=/k&ca=/a&allow=10.0.0.0/8", []string{`INFO listener "unprivileged users by certificate, from 10.0.0.0/8, to read and write"`}},
		{"tls://:1?cert=/c&key=/k&ca=/a&users=daemon,root", []string{
			`INFO listener "users daemon root by certificate, from everywhere, to read and write"`, "WARN users=root"}},
		{"tls://:1?cert=/c&key=/k&ca=/a&as=daemon&access=ro", []string{`INFO listener "who has a certificate, from everywhere as daemon, to read"`}},
		{"unix:///x", []string{`INFO listener "users of this host by their credentials, to read and write"`}},
		{"unix:///x?as=daemon", []string{`INFO listener "users of this host as daemon, to read and write"`}},
		{"vsock://:1?cid.3.as=root&cid.4.as=daemon&cid.4.attach=a&cid.5.trust=uname", []string{
			`INFO listener "CID 3 as root, to read and write; CID 4 as daemon, to read and write, in /a; CID 5 as whom they say, to read and write"`, "WARN as=root", "WARN trust=uname"}},
	} {
		e, err := ParseExport(tt.export)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		newListener(nil, e, nil).Announce(slog.New(slog.NewTextHandler(&b, nil)))
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != len(tt.lines) {
			t.Errorf("%s:\n%s", tt.export, b.String())
			continue
		}
		for _, want := range tt.lines {
			level, rest, _ := strings.Cut(want, " ")
			rest = strings.TrimPrefix(rest, "listener ")
			found := false
			for _, line := range lines {
				found = found || strings.Contains(line, "level="+level) && strings.Contains(line, rest)
			}
			if !found {
				t.Errorf("%s: no line %s in\n%s", tt.export, want, b.String())
			}
		}
	}
}

func FuzzParseExport(f *testing.F) {
	for _, s := range []string{
		"tcp://0.0.0.0:5640?as=batch&access=rw&allow=10.0.0.0/8&attach=/cpu/vm42", "tcp!::1!1?no_root_squash",
		"tls://h:1?cert=/c&key=/k&ca=/a&users=a,root", "unix:///a%20b?trust=uname", "vsock://:1?as=a&allow=3&cid.4.access=ro&cid.5.trust=uname",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseExport(s)
		if err != nil {
			return
		}
		again, err := ParseExport(e.String())
		if err != nil || again.String() != e.String() {
			t.Errorf("%q: %v is parsed as %v, %v", s, e, again, err)
		}
		// What keeps strangers out is not lost on the way.
		if !reflect.DeepEqual(again, e) {
			t.Errorf("%q: %#v is parsed as %#v", s, e, again)
		}
	})
}
