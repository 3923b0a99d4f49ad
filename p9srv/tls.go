package p9srv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// userURI begins the URI by which a client's certificate names its user.
const (
	userScheme = "containerfs"
	userURI    = userScheme + ":user:"
)

// serverConfig is for a listener's side. Nobody comes in without a certificate of
// the CA, each connection shows it anew (no resumption), and nothing below TLS 1.3
// is spoken, so that there is no renegotiation.
func (t *TLS) serverConfig() (*tls.Config, error) {
	cert, pool, err := t.load()
	if err != nil {
		return nil, &OptionError{Err: err}
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              pool,
		SessionTicketsDisabled: true,
		VerifyConnection:       notByUsers,
	}, nil
}

// isUsers reports whether a certificate names a user, or seems to.
func isUsers(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.Scheme == userScheme })
}

// notByUsers refuses a certificate that a user has signed. A CA that leaves out that a user's
// certificate is no CA's would let him be everybody, and be the server.
func notByUsers(st tls.ConnectionState) error {
	err := errors.New("no certificate was verified")
	for _, chain := range st.VerifiedChains {
		i := slices.IndexFunc(chain[1:], isUsers)
		if i < 0 {
			return nil
		}
		err = fmt.Errorf("certificate is signed by that of the user %q", chain[1+i].URIs)
	}
	return err
}

// load reads the files. A key that everybody can read is refused.
func (t *TLS) load() (cert tls.Certificate, pool *x509.CertPool, err error) {
	st, err := os.Stat(t.Key)
	if err != nil {
		return cert, nil, err
	}
	if st.Mode().Perm()&0o007 != 0 {
		return cert, nil, fmt.Errorf("%s: everybody has access to this key", t.Key)
	}
	if cert, err = tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		return cert, nil, fmt.Errorf("%s, %s: %w", t.Cert, t.Key, err)
	}
	ca, err := os.ReadFile(t.CA)
	if err != nil {
		return cert, nil, err
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return cert, nil, fmt.Errorf("%s: no certificate in it", t.CA)
	}
	return cert, pool, nil
}

func dialTLS(ctx context.Context, a Addr) (net.Conn, error) {
	if err := a.TLS.check(); err != nil {
		return nil, err
	}
	cert, pool, err := a.TLS.load()
	if err != nil {
		return nil, &OptionError{Err: err}
	}
	// In 1.3 a client is done before the server has judged its certificate: a
	// refusal is what the first read gives.
	d := tls.Dialer{Config: &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ServerName:   a.TLS.Name, // the host if empty

		VerifyConnection: notByUsers,
	}}
	return d.DialContext(ctx, "tcp", a.Address)
}

// certUser is the user that a certificate names. There must be one such URI, and
// its name must be plain: nothing in it is decoded. The common name means nothing.
func certUser(cert *x509.Certificate) (string, error) {
	var names []string
	for _, u := range cert.URIs {
		if u.Scheme == userScheme {
			name, ok := strings.CutPrefix(u.String(), userURI)
			if !ok || !validUserName(name) {
				return "", fmt.Errorf("certificate's URI %q names no user", u)
			}
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return "", fmt.Errorf("certificate has %d URIs %sNAME, want one", len(names), userURI)
	}
	return names[0], nil
}

// tlsIdentity is the identity of the user named by the certificate that the peer
// has shown.
func tlsIdentity(conn *tls.Conn, users []string, now time.Time) (identity, error) {
	st := conn.ConnectionState()
	if !st.HandshakeComplete || len(st.VerifiedChains) == 0 {
		return identity{}, errors.New("no certificate was verified")
	}
	// A connection can be older than its certificate.
	if cert := st.PeerCertificates[0]; now.After(cert.NotAfter) {
		return identity{}, fmt.Errorf("certificate has expired at %v", cert.NotAfter)
	}
	name, err := certUser(st.PeerCertificates[0])
	if err != nil {
		return identity{}, err
	}
	listed := slices.Contains(users, name)
	if len(users) > 0 && !listed {
		return identity{}, fmt.Errorf("user %q is not among the listener's users=", name)
	}
	id, err := namedIdentity(name)
	if err == nil && privileged(id.uid) && !listed {
		err = fmt.Errorf("user %q is privileged, which the listener must list in users=", name)
	}
	return id, err
}
