package p9srv

import (
	"crypto/x509"
	"net/url"
	"testing"
)

// TestCertUser: a certificate's name is taken as it stands, or not at all.
func TestCertUser(t *testing.T) {
	for uri, want := range map[string]string{
		"containerfs:user:alice": "alice", "CONTAINERFS:user:alice": "alice", "containerfs:user:a.b-c_1": "a.b-c_1",
		"containerfs:user:": "", "containerfs:user:a%6c": "", "containerfs:user:a/b": "", "containerfs:user:-x": "", "containerfs:user:a:b": "",
		"containerfs:user:a?x": "", "containerfs:user:a#x": "", "containerfs:User:alice": "", "containerfs:alice": "", "containerfs:": "",
		"containerfs:///user:alice": "", "other:user:alice": "", "containerfs:user:%00": "", "containerfs:user: ": "",
	} {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		got, err := certUser(&x509.Certificate{URIs: []*url.URL{u}})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", uri, got, err, want)
		}
	}
}
