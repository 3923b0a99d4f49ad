package p9test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"containerfs/p9srv"
)

// Authority is a CA that lives as long as its test.
type Authority struct {
	t     testing.TB
	dir   string
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	chain []byte // PEM of the certificates above those that it signs, but for the CA's
	files int

	CA string // its certificate's file
}

// NewAuthority makes a CA with a key of its own.
func NewAuthority(t testing.TB) *Authority {
	a := &Authority{t: t, dir: t.TempDir()}
	template := Certificate(time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.ExtKeyUsage = nil
	var der []byte
	a.key, der = a.sign(template, template)
	a.cert, _ = x509.ParseCertificate(der)
	a.CA = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

// Below is a CA whose certificate this one has signed, with URIs.
func (a *Authority) Below(uris ...string) *Authority {
	template := Certificate(time.Hour)
	template.URIs = URIs(a.t, uris)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.ExtKeyUsage = nil
	b := &Authority{t: a.t, dir: a.t.TempDir(), CA: a.CA}
	key, der := a.sign(template, a.cert)
	b.key = key
	b.cert, _ = x509.ParseCertificate(der)
	b.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return b
}

// Certificate is what certificates of both sides begin with.
func Certificate(validFor time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "containerfs:user:root"}, // means nothing
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(validFor),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func (a *Authority) sign(template, parent *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
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

func (a *Authority) write(name, typ string, der []byte) string {
	a.files++
	path := filepath.Join(a.dir, fmt.Sprint(a.files, name))
	text := pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	if typ == "CERTIFICATE" {
		text = append(text, a.chain...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// Issue makes the files of one side.
func (a *Authority) Issue(name string, template *x509.Certificate) p9srv.TLS {
	key, der := a.sign(template, a.cert)
	b, _ := x509.MarshalECPrivateKey(key)
	return p9srv.TLS{Cert: a.write(name+".pem", "CERTIFICATE", der), Key: a.write(name+".key", "EC PRIVATE KEY", b), CA: a.CA}
}

// Server is for a server on 127.0.0.1.
func (a *Authority) Server() p9srv.TLS {
	c := Certificate(time.Hour)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	return a.Issue("server", c)
}

// Client is for users, each by a URI.
func (a *Authority) Client(uris ...string) p9srv.TLS {
	c := Certificate(time.Hour)
	c.URIs = URIs(a.t, uris)
	return a.Issue("client", c)
}

// URIs parses what names the users of a certificate.
func URIs(t testing.TB, uris []string) (list []*url.URL) {
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	}
	return list
}
