package p9srv

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// lateConn is a connection during whose admission something happens.
type lateConn struct {
	cidConn
	meanwhile func()
}

func (c lateConn) RemoteAddr() net.Addr {
	c.meanwhile()
	return c.cidConn.RemoteAddr()
}

// TestAdmitDuringChange: who is let in while the terms change is so on the new ones, or
// not at all.
func TestAdmitDuringChange(t *testing.T) {
	export := func(s string) Export {
		e, err := ParseExport(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, tt := range []struct {
		now string
		let bool
	}{
		{"vsock://:1?as=daemon&allow=3", true},
		{"vsock://:1?as=daemon&allow=4", false},
	} {
		srv := New(Config{})
		l := newListener(nil, export("vsock://:1?as=root&allow=3"), nil)
		apply, err := srv.Prepare(l, export(tt.now))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		srv.start(lateConn{cidConn{Conn: ours, cid: 3}, sync.OnceFunc(apply)}, l)
		srv.mu.Lock()
		for s := range srv.sessions {
			if s.peer.terms.As != "daemon" {
				t.Errorf("%s: let in as %+v", tt.now, s.peer.terms)
			}
		}
		if (len(srv.sessions) == 1) != tt.let {
			t.Errorf("%s: %d sessions", tt.now, len(srv.sessions))
		}
		srv.mu.Unlock()
		theirs.Close()
		io.Copy(io.Discard, theirs)
		srv.Shutdown(context.Background())
	}
}
