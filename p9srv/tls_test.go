package p9srv_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// authority is a CA that lives as long as its test.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ca   string // its certificate's file

	files int
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := certificate(time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.ExtKeyUsage = nil
	var der []byte
	a.key, der = a.sign(template, template)
	a.cert, _ = x509.ParseCertificate(der)
	a.ca = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

// certificate is what certificates of both sides begin with.
func certificate(validFor time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "containerfs:user:root"}, // means nothing
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(validFor),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func (a *authority) sign(template, parent *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if template == parent {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

func (a *authority) write(name, typ string, der []byte) string {
	a.files++
	path := filepath.Join(a.dir, fmt.Sprint(a.files, name))
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes the files of one side.
func (a *authority) issue(name string, template *x509.Certificate) p9srv.TLS {
	key, der := a.sign(template, a.cert)
	b, _ := x509.MarshalECPrivateKey(key)
	return p9srv.TLS{Cert: a.write(name+".pem", "CERTIFICATE", der), Key: a.write(name+".key", "EC PRIVATE KEY", b), CA: a.ca}
}

func (a *authority) server() p9srv.TLS {
	c := certificate(time.Hour)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	return a.issue("server", c)
}

// client is for users, each by a URI.
func (a *authority) client(uris ...string) p9srv.TLS {
	c := certificate(time.Hour)
	c.URIs = parseURIs(a.t, uris)
	return a.issue("client", c)
}

func parseURIs(t testing.TB, uris []string) (list []*url.URL) {
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	}
	return list
}

func listenTLS(t testing.TB, tree *p9test.Tree, server p9srv.TLS, options string) p9srv.Addr {
	e, err := p9srv.ParseExport(p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: server}.String() + options)
	if err != nil {
		t.Fatal(err)
	}
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: tree, VersionTimeout: 5 * time.Second}, e)
	return a
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	server := ca.server()
	const closed = "closed"
	for _, tt := range []struct {
		name    string
		options string
		client  p9srv.TLS
		want    string // uid, or why not
	}{
		{"user", "", ca.client("containerfs:user:daemon"), "1"},
		{"user of the list", "&users=daemon,root", ca.client("containerfs:user:daemon"), "1"},
		{"user not of the list", "&users=root,sys", ca.client("containerfs:user:daemon"), "EACCES"},
		{"root not listed", "", ca.client("containerfs:user:root"), "EACCES"},
		{"root listed", "&users=root", ca.client("containerfs:user:root"), "0"},
		{"root by no_root_squash", "&no_root_squash", ca.client("containerfs:user:root"), "EACCES"},
		{"other URIs beside", "", ca.client("https://host/", "containerfs:user:daemon"), "1"},
		{"no URI", "", ca.client(), "EACCES"},
		{"two users", "", ca.client("containerfs:user:daemon", "containerfs:user:sys"), "EACCES"},
		{"no name", "", ca.client("containerfs:user:"), "EACCES"},
		{"escaped name", "", ca.client("containerfs:user:d%61emon"), "EACCES"},
		{"query", "", ca.client("containerfs:user:daemon?x"), "EACCES"},
		{"path", "", ca.client("containerfs:/user:daemon"), "EACCES"},
		{"other kind", "", ca.client("containerfs:group:daemon"), "EACCES"},
		{"unknown user", "", ca.client("containerfs:user:no-such-user"), "EACCES"},
		{"as", "&as=daemon", ca.client("containerfs:user:root"), "1"},
		{"as, no URI", "&as=daemon", ca.client(), "1"},
		{"trust", "&trust=uname", ca.client(), "65534"},
		{"expired", "", func() p9srv.TLS {
			c := certificate(-time.Hour)
			c.URIs = parseURIs(t, []string{"containerfs:user:daemon"})
			return ca.issue("expired", c)
		}(), closed},
		{"not yet valid", "", func() p9srv.TLS {
			c := certificate(2 * time.Hour)
			c.NotBefore = time.Now().Add(time.Hour)
			c.URIs = parseURIs(t, []string{"containerfs:user:daemon"})
			return ca.issue("early", c)
		}(), closed},
		{"server's certificate", "", func() p9srv.TLS {
			c := certificate(time.Hour)
			c.URIs = parseURIs(t, []string{"containerfs:user:daemon"})
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			return ca.issue("wrong use", c)
		}(), closed},
		{"wrong CA", "", func() p9srv.TLS {
			other := newAuthority(t).client("containerfs:user:daemon")
			other.CA = ca.ca
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
	ca := newAuthority(t)
	tree := p9test.NewTree()
	a := listenTLS(t, tree, ca.server(), "&users=daemon,root")
	a.TLS = ca.client("containerfs:user:daemon")
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
	a.TLS = ca.client("containerfs:user:root")
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
	ca := newAuthority(t)
	a := listenTLS(t, p9test.NewTree(), ca.server(), "")
	c := certificate(0)
	c.NotAfter = time.Now().Add(2 * time.Second)
	c.URIs = parseURIs(t, []string{"containerfs:user:daemon"})
	a.TLS = ca.issue("short", c)
	w := dial(t, a)
	w.Script(hello)
	time.Sleep(time.Until(c.NotAfter.Add(1100 * time.Millisecond)))
	w.Script("Tattach 1 1 ~ \"\" \"\" ~\nRlerror 1 EACCES")
}

// TestTLSListener: what is no TLS 1.3 with a certificate is hung up on, in time, and no
// session is resumed.
func TestTLSListener(t *testing.T) {
	ca := newAuthority(t)
	e := p9srv.Export{Addr: p9srv.Addr{Network: "tls", Address: "127.0.0.1:0", TLS: ca.server()}}
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
	client := ca.client("containerfs:user:daemon")
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
	ca, other := newAuthority(t), newAuthority(t)
	a := listenTLS(t, p9test.NewTree(), ca.server(), "")
	client := ca.client("containerfs:user:daemon")
	for name, change := range map[string]func(*p9srv.TLS){
		"other CA":   func(c *p9srv.TLS) { c.CA = other.ca },
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

// TestTLSFiles: a listener without its files, or with a key that is no secret, does
// not begin.
func TestTLSFiles(t *testing.T) {
	ca := newAuthority(t)
	for name, change := range map[string]func(*p9srv.TLS){
		"no certificate": func(c *p9srv.TLS) { c.Cert = "/nonexistent" },
		"no key":         func(c *p9srv.TLS) { c.Key = "/nonexistent" },
		"no CA":          func(c *p9srv.TLS) { c.CA = "/nonexistent" },
		"CA not asked":   func(c *p9srv.TLS) { c.CA = "" },
		"CA of nothing":  func(c *p9srv.TLS) { c.CA = c.Key },
		"other key":      func(c *p9srv.TLS) { c.Key = ca.client().Key },
		"open key":       func(c *p9srv.TLS) { os.Chmod(c.Key, 0o644) },
	} {
		files := ca.server()
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
	ca := newAuthority(t)
	tree := p9test.NewTree()
	tree.Put("f", []byte(strings.Repeat("x", 200_000)))
	a := listenTLS(t, tree, ca.server(), "")
	a.TLS = ca.client("containerfs:user:daemon")
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
