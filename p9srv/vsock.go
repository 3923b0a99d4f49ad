package p9srv

import (
	"context"
	"fmt"
	"net"

	"github.com/mdlayher/vsock"
)

func dialVsock(ctx context.Context, a Addr) (net.Conn, error) {
	c, err := vsock.DialContext(ctx, a.cid(), a.port(), nil)
	if err != nil {
		return nil, err // not a nil *Conn
	}
	return c, nil
}

func listenVsock(e Export) (*Listener, error) {
	// Port 0 is the kernel's to choose, as over TCP.
	n, err := e.inherited()
	if n == nil && err == nil {
		n, err = vsock.ListenContextID(e.cid(), e.port(), nil)
	}
	if err != nil {
		return nil, err
	}
	if at, ok := n.Addr().(*vsock.Addr); ok {
		host, _, _ := net.SplitHostPort(e.Address)
		e.Address = net.JoinHostPort(host, fmt.Sprint(at.Port))
	}
	return newListener(n, e, nil), nil
}

// peerCID is the CID that a connection came from; the kernel vouches for it.
func peerCID(from net.Addr) (uint32, bool) {
	a, ok := from.(*vsock.Addr)
	if !ok {
		return 0, false
	}
	return a.ContextID, true
}
