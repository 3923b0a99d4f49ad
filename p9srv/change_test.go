package p9srv_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// serveChangeable serves an export until the test ends and can change what it is.
func serveChangeable(t testing.TB, export string) (srv *p9srv.Server, l *p9srv.Listener, served chan error) {
	t.Helper()
	tree := p9test.NewTree()
	tree.Put("f", []byte("0-3\n"))
	l, err := p9srv.Listen(parseExport(t, export))
	if err != nil {
		t.Fatal(err)
	}
	srv = p9srv.New(p9srv.Config{Attacher: tree})
	served = make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return srv, l, served
}

func parseExport(t testing.TB, s string) p9srv.Export {
	t.Helper()
	e, err := p9srv.ParseExport(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// from connects from an address of this host and is greeted.
func from(t testing.TB, local string, a p9srv.Addr) *p9test.Wire {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	c, err := d.Dial("tcp", a.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	w := p9test.NewWire(t, c)
	w.Script(hello)
	return w
}

func alive(w *p9test.Wire) {
	w.Send("Twalk 9 0 0")
	w.Want("Rwalk...")
}

// TestChange: of the connections of a listener, those go on that would be let in
// on the same terms.
func TestChange(t *testing.T) {
	for _, tt := range []struct {
		name, was, now string
		first, second  bool // whether those from 127.0.0.1 and 127.0.0.2 go on
	}{
		{"the same", "as=daemon", "as=daemon", true, true},
		{"more are allowed", "allow=127.0.0.1,127.0.0.2", "allow=127.0.0.0/8", true, true},
		{"all are allowed", "allow=127.0.0.1,127.0.0.2", "", true, true},
		{"fewer are allowed", "", "allow=127.0.0.2", false, true},
		{"another user", "as=daemon", "as=nobody", false, false},
		{"nobody's user", "as=daemon", "", false, false},
		{"read only", "", "access=ro", false, false},
		{"confined", "attach=a", "attach=b", false, false},
		{"squashed", "no_root_squash", "", false, false},
		{"trusted", "", "trust=uname", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, l, _ := serveChangeable(t, "tcp://127.0.0.1:0?"+tt.was)
			clients := []*p9test.Wire{from(t, "127.0.0.1", l.Addr()), from(t, "127.0.0.2", l.Addr())}
			apply, err := srv.Prepare(l, parseExport(t, "tcp://127.0.0.1:0?"+tt.now))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				alive(c) // nothing has changed yet
			}
			apply()
			for i, goesOn := range []bool{tt.first, tt.second} {
				if goesOn {
					alive(clients[i])
				} else {
					clients[i].WantClosed()
				}
			}
			if tt.second { // who is let in now
				alive(from(t, "127.0.0.2", l.Addr()))
			}
		})
	}
}

// TestPrepareRefuses: what Listen would refuse is refused, and the old terms hold.
func TestPrepareRefuses(t *testing.T) {
	srv, l, _ := serveChangeable(t, "tcp://0.0.0.0:0?as=daemon")
	a := l.Addr()
	a.Address = strings.Replace(a.Address, "[::]", "127.0.0.1", 1)
	c := from(t, "127.0.0.1", a)
	for _, tt := range []struct{ export, err string }{
		{"tcp://0.0.0.0:0", "not a loopback address"},
		{"tcp://127.0.0.1:0", "not a loopback address"}, // where it listens is what counts
		{"tcp://0.0.0.0:0?as=nosuchuser", "unknown user"},
		{"unix:///x", "the listener is on tcp"},
		{"tls://0.0.0.0:0?cert=/nosuch&key=/nosuch&ca=/nosuch", "the listener is on tcp"},
	} {
		if apply, err := srv.Prepare(l, parseExport(t, tt.export)); apply != nil || err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.export, err)
		}
	}
	alive(c)
}

// TestWithdraw: a listener and its connections end, others' do not, and requests in
// hand are answered.
func TestWithdraw(t *testing.T) {
	srv, l, served := serveChangeable(t, "tcp://127.0.0.1:0")
	other, err := p9srv.Listen(parseExport(t, "tcp://127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(other)
	gone, stays := from(t, "127.0.0.1", l.Addr()), from(t, "127.0.0.1", other.Addr())
	srv.Withdraw(l)
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	gone.WantClosed()
	alive(stays)
	if c, err := net.Dial("tcp", l.Addr().Address); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	if err := srv.Serve(l); err != nil {
		t.Errorf("Serve after Withdraw: %v", err)
	}
}

// TestChangeTLS: a certificate that is renewed is shown from then on and disturbs
// nobody; another CA ends those whom the former one let in.
func TestChangeTLS(t *testing.T) {
	ours, others := p9test.NewAuthority(t), p9test.NewAuthority(t)
	export := func(s p9srv.TLS) p9srv.Export {
		return p9srv.Export{Addr: p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: s}, Terms: p9srv.Terms{As: "daemon"}}
	}
	l, err := p9srv.Listen(export(ours.Server()))
	if err != nil {
		t.Fatal(err)
	}
	srv := p9srv.New(p9srv.Config{Attacher: p9test.NewTree()})
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())
	dialAs := func(c p9srv.TLS) *p9test.Wire {
		a := l.Addr()
		a.TLS = c
		w := p9test.NewWire(t, p9test.Dial(t, a))
		w.Script(hello)
		return w
	}
	first := dialAs(ours.Client("containerfs:user:daemon"))
	for _, s := range []p9srv.TLS{ours.Server(), others.Server()} {
		alive(first)
		apply, err := srv.Prepare(l, export(s))
		if err != nil {
			t.Fatal(err)
		}
		apply()
	}
	first.WantClosed()
	second := dialAs(others.Client("containerfs:user:daemon"))
	alive(second)

	// Whose certificates are let in counts, too.
	e := export(others.Server())
	e.Terms = p9srv.Terms{}
	for _, users := range [][]string{{"daemon", "root"}, {"daemon"}} {
		e.Users = users
		apply, err := srv.Prepare(l, e)
		if err != nil {
			t.Fatal(err)
		}
		apply()
		second.WantClosed()
		second = dialAs(others.Client("containerfs:user:daemon"))
		alive(second)
	}
}
