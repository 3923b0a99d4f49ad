package p9srv

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// export is what a listener serves, with the files that its Export names read.
type export struct {
	Export
	tls *tls.Config // of the network tls
}

var errTermsChanged = errors.New("not let in on these terms any more")

// letIn are the terms of a peer by where it comes from, or why there are none.
func (e *export) letIn(from net.Addr) (Terms, error) {
	switch e.Network {
	case "tcp", "tls":
		theirs := addrPort(from).Addr()
		if len(e.Allow) > 0 && !slices.ContainsFunc(e.Allow, func(n netip.Prefix) bool { return n.Contains(theirs) }) {
			return Terms{}, errors.New("not from where the listener allows")
		}
	case "vsock":
		cid, ok := peerCID(from)
		terms, listed := e.CIDs[cid]
		if !ok || !listed {
			return Terms{}, errors.New("not from a CID that the listener lists")
		}
		return terms, nil
	}
	return e.Terms, nil
}

// keeps reports whether a peer that was let in under another export of the same
// listener would be let in as the same now. What a certificate of the same CA says
// was decided when it was shown.
func (e *export) keeps(was *export, from net.Addr, terms Terms) bool {
	now, err := e.letIn(from)
	return err == nil && now == terms && e.NoRootSquash == was.NoRootSquash &&
		slices.Equal(e.Users, was.Users) && clientCAs(e.tls).Equal(clientCAs(was.tls))
}

func clientCAs(c *tls.Config) *x509.CertPool {
	if c == nil {
		return nil
	}
	return c.ClientCAs
}

// Prepare checks what a listener is to serve from now on, at the place where it
// listens already, and reads its files. The function that it returns puts it in force,
// which cannot fail, and ends the connections of those that would not be let in on the
// same terms again; requests in hand are answered. Nothing is changed before.
func (srv *Server) Prepare(l *Listener, e Export) (apply func(), err error) {
	e.Address = l.addr.Address
	next := &export{Export: e}
	if e.Network != l.addr.Network {
		err = fmt.Errorf("the listener is on %s", l.addr.Network)
	} else {
		next.tls, err = e.ready()
	}
	if err != nil {
		return nil, e.refused(err)
	}
	return func() { srv.change(l, next) }, nil
}

func (srv *Server) change(l *Listener, next *export) {
	// Under mu, so that start has the connections that it let in under the old
	// ones among the sessions by now, or else asks again.
	srv.mu.Lock()
	l.export.Store(next)
	ended := srv.sessionsLocked(func(s *session) bool {
		return s.listener == l && !next.keeps(s.peer.export, s.conn.RemoteAddr(), s.peer.terms)
	})
	srv.mu.Unlock()
	for _, s := range ended {
		s.end(errTermsChanged)
	}
}

// Withdraw stops listening and ends the listener's connections; requests in hand are
// answered. Serve returns nil.
func (srv *Server) Withdraw(l *Listener) {
	srv.mu.Lock()
	l.withdrawn = true
	delete(srv.listeners, l)
	ended := srv.sessionsLocked(func(s *session) bool { return s.listener == l })
	srv.mu.Unlock()
	l.Close()
	for _, s := range ended {
		s.end(errTermsChanged)
	}
}
