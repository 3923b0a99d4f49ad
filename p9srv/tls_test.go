package p9srv_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

func listenTLS(t testing.TB, tree *p9test.Tree, server p9srv.TLS, options string) p9srv.Addr {
	e, err := p9srv.ParseExport(p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: server}.String() + options)
	if err != nil {
		t.Fatal(err)
	}
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: tree, VersionTimeout: 5 * time.Second}, e)
	return a
}

func TestTLS(t *testing.T) {
	ca := p9test.NewAuthority(t)
	server := ca.Server()
	const closed = "closed"
	for _, tt := range []struct {
		name    string
		options string
		client  p9srv.TLS
		want    string // uid, or why not
	}{
		{"user", "", ca.Client("containerfs:user:daemon"), "1"},
		{"user of the list", "&users=daemon,root", ca.Client("containerfs:user:daemon"), "1"},
		{"user not of the list", "&users=root,sys", ca.Client("containerfs:user:daemon"), "EACCES"},
		{"root not listed", "", ca.Client("containerfs:user:root"), "EACCES"},
		{"root listed", "&users=root", ca.Client("containerfs:user:root"), "0"},
		{"root by no_root_squash", "&no_root_squash", ca.Client("containerfs:user:root"), "EACCES"},
		{"other URIs beside", "", ca.Client("https://host/", "containerfs:user:daemon"), "1"},
		{"no URI", "", ca.Client(), "EACCES"},
		{"two users", "", ca.Client("containerfs:user:daemon", "containerfs:user:sys"), "EACCES"},
		{"no name", "", ca.Client("containerfs:user:"), "EACCES"},
		{"escaped name", "", ca.Client("containerfs:user:d%61emon"), "EACCES"},
		{"query", "", ca.Client("containerfs:user:daemon?x"), "EACCES"},
		{"path", "", ca.Client("containerfs:/user:daemon"), "EACCES"},
		{"other kind", "", ca.Client("containerfs:group:daemon"), "EACCES"},
		{"unknown user", "", ca.Client("containerfs:user:no-such-user"), "EACCES"},
		{"as", "&as=daemon", ca.Client("containerfs:user:root"), "1"},
		{"as, no URI", "&as=daemon", ca.Client(), "1"},
		{"trust", "&trust=uname", ca.Client(), "65534"},
		{"expired", "", func() p9srv.TLS {
			c := p9test.Certificate(-time.Hour)
			c.URIs = p9test.URIs(t, []string{"containerfs:user:daemon"})
			return ca.Issue("expired", c)
		}(), closed},
		{"not yet valid", "", func() p9srv.TLS {
			c := p9test.Certificate(2 * time.Hour)
			c.NotBefore = time.Now().Add(time.Hour)
			c.URIs = p9test.URIs(t, []string{"containerfs:user:daemon"})
			return ca.Issue("early", c)
		}(), closed},
		{"server's certificate", "", func() p9srv.TLS {
			c := p9test.Certificate(time.Hour)
			c.URIs = p9test.URIs(t, []string{"containerfs:user:daemon"})
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			return ca.Issue("wrong use", c)
		}(), closed},
		{"signed below the CA", "", ca.Below("https://lab/").Client("containerfs:user:daemon"), "1"},
		{"signed by a user", "", ca.Below("containerfs:user:sys").Client("containerfs:user:daemon"), closed},
		{"signed by who is below a user", "", ca.Below("containerfs:user:sys").Below().Client("containerfs:user:daemon"), closed},
		{"wrong CA", "", func() p9srv.TLS {
			other := p9test.NewAuthority(t).Client("containerfs:user:daemon")
			other.CA = ca.CA
			return other
		}(), closed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := p9test.NewTree()
			a := listenTLS(t, tree, server, tt.options)
			a.TLS = tt.client
			c, err := a.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			got := attachOver(t, c)
			if caller := tree.Caller(); got == "Rattach 1 d1" && caller != nil && !caller.Local {
				got = itoa(caller.UID)
			}
			if got = strings.TrimPrefix(got, "Rlerror 1 "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if tt.want == closed || tt.want[0] == 'E' {
				if c := tree.Caller(); c != nil {
					t.Errorf("the tree was attached to by %+v", c)
				}
			}
		})
	}
}

func itoa(n uint32) string { return new(big.Int).SetUint64(uint64(n)).String() }

// attachOver attaches with no name and returns the answer, or "closed".
func attachOver(t testing.TB, c net.Conn) string {
	w := p9test.NewWire(t, c)
	for i, m := range []string{"Tversion ~ 8192 9P2000.L", `Tattach 1 0 ~ "" "" ~`} {
		b, err := p9test.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			return "closed"
		}
		if i == 0 {
			head := make([]byte, 21) // Rversion
			if _, err := io.ReadFull(c, head); err != nil {
				return "closed"
			}
		}
	}
	return w.Receive()
}

// TestTLSNames: who a TLS peer is cannot be more than its certificate says.
func TestTLSNames(t *testing.T) {
	ca := p9test.NewAuthority(t)
	tree := p9test.NewTree()
	a := listenTLS(t, tree, ca.Server(), "&users=daemon,root")
	a.TLS = ca.Client("containerfs:user:daemon")
	w := dial(t, a)
	w.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"
		Tattach 1 0 ~ root "" ~
		Rlerror 1 EPERM
		Tattach 1 0 ~ "" "" 0
		Rlerror 1 EPERM
		Tattach 1 0 ~ daemon "" ~
		Rattach 1 d1`)
	a.TLS = ca.Client("containerfs:user:root")
	w = dial(t, a)
	w.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"
		Tattach 1 0 ~ daemon "" ~
		Rattach 1 d1`)
	if c := tree.Caller(); c.UID != 1 || c.Local {
		t.Errorf("caller is %+v", c)
	}
}

// TestTLSExpires: a connection that outlives its certificate attaches no more.
func TestTLSExpires(t *testing.T) {
	ca := p9test.NewAuthority(t)
	a := listenTLS(t, p9test.NewTree(), ca.Server(), "")
	c := p9test.Certificate(0)
	c.NotAfter = time.Now().Add(5 * time.Second)
	c.URIs = p9test.URIs(t, []string{"containerfs:user:daemon"})
	a.TLS = ca.Issue("short", c)
	w := dial(t, a)
	w.Script(hello)
	time.Sleep(time.Until(c.NotAfter.Add(1100 * time.Millisecond)))
	w.Script("Tattach 1 1 ~ \"\" \"\" ~\nRlerror 1 EACCES")
}

// TestTLSListener: what is no TLS 1.3 with a certificate is hung up on, in time, and no
// session is resumed.
func TestTLSListener(t *testing.T) {
	ca := p9test.NewAuthority(t)
	e := p9srv.Export{Addr: p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: ca.Server()}}
	tree := p9test.NewTree()
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: tree, VersionTimeout: 300 * time.Millisecond}, e)
	plain := p9srv.Addr{Network: "tcp", Address: a.Address}
	hello, _ := p9test.Encode("Tversion ~ 8192 9P2000.L")
	for name, bytes := range map[string][]byte{
		"9P": hello, "HTTP": []byte("GET / HTTP/1.1\r\n\r\n"), "nothing": nil, "half a record": {0x16, 3, 1, 2, 0, 1},
		"zeros": make([]byte, 4096),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := plain.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			c.Write(bytes)
			if b, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	client := ca.Client("containerfs:user:daemon")
	pair, err := tls.LoadX509KeyPair(client.Cert, client.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, conf := range map[string]*tls.Config{
		"no certificate": {},
		"TLS 1.2":        {Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			conf.InsecureSkipVerify = true
			c, err := tls.Dial("tcp", a.Address, conf)
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if got := attachOver(t, c); got != "closed" {
				t.Errorf("got %s", got)
			}
		})
	}
	t.Run("resumption", func(t *testing.T) {
		a := listenTLS(t, tree, ca.Server(), "") // which has more patience
		conf := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		for range 3 {
			c, err := tls.Dial("tcp", a.Address, conf)
			if err != nil {
				t.Fatal(err)
			}
			if got := attachOver(t, c); got != "Rattach 1 d1" || c.ConnectionState().DidResume {
				t.Errorf("%s, resumed: %v", got, c.ConnectionState().DidResume)
			}
			c.Close()
		}
	})
	if n := tree.Attaches(); n != 3 {
		t.Errorf("%d attaches, want 3", n)
	}
}

// TestTLSServer: a client does not talk to another server.
func TestTLSServer(t *testing.T) {
	ca, other := p9test.NewAuthority(t), p9test.NewAuthority(t)
	a := listenTLS(t, p9test.NewTree(), ca.Server(), "")
	client := ca.Client("containerfs:user:daemon")
	for name, change := range map[string]func(*p9srv.TLS){
		"other CA":   func(c *p9srv.TLS) { c.CA = other.CA },
		"other name": func(c *p9srv.TLS) { c.Name = "elsewhere" },
	} {
		a.TLS = client
		change(&a.TLS)
		if c, err := a.Dial(context.Background()); err == nil {
			c.Close()
			t.Errorf("%s: connected", name)
		}
	}
}

// TestTLSUserAsServer: a user is not taken for the server, whatever his certificate says.
func TestTLSUserAsServer(t *testing.T) {
	ca := p9test.NewAuthority(t)
	a := listenTLS(t, p9test.NewTree(), ca.Below("containerfs:user:sys").Server(), "")
	a.TLS = ca.Client("containerfs:user:daemon")
	if c, err := a.Dial(context.Background()); err == nil {
		c.Close()
		t.Error("connected")
	}
}

// TestTLSFiles: a listener without its files, or with a key that is no secret, does
// not begin.
func TestTLSFiles(t *testing.T) {
	ca := p9test.NewAuthority(t)
	for name, change := range map[string]func(*p9srv.TLS){
		"no certificate": func(c *p9srv.TLS) { c.Cert = "/nonexistent" },
		"no key":         func(c *p9srv.TLS) { c.Key = "/nonexistent" },
		"no CA":          func(c *p9srv.TLS) { c.CA = "/nonexistent" },
		"CA not asked":   func(c *p9srv.TLS) { c.CA = "" },
		"CA of nothing":  func(c *p9srv.TLS) { c.CA = c.Key },
		"other key":      func(c *p9srv.TLS) { c.Key = ca.Client().Key },
		"open key":       func(c *p9srv.TLS) { os.Chmod(c.Key, 0o644) },
	} {
		files := ca.Server()
		change(&files)
		l, err := p9srv.Listen(p9srv.Export{Addr: p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: files}})
		if err == nil {
			l.Close()
			t.Errorf("%s: listens", name)
		}
	}
}

// TestTLSMessages: pipelined, large and slow messages pass as over any connection, and
// the end is clean.
func TestTLSMessages(t *testing.T) {
	ca := p9test.NewAuthority(t)
	tree := p9test.NewTree()
	tree.Put("f", []byte(strings.Repeat("x", 200_000)))
	a := listenTLS(t, tree, ca.Server(), "")
	a.TLS = ca.Client("containerfs:user:daemon")
	root := p9test.Client(t, p9test.Dial(t, a))
	_, f, err := root.Walk([]string{"f"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Open(0); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200_000)
	for n := 0; n < len(b); {
		m, err := f.ReadAt(b[n:], int64(n))
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if strings.Trim(string(b), "x") != "" {
		t.Error("other bytes came")
	}
}
