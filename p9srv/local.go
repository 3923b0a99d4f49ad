package p9srv

import (
	"errors"
	"fmt"
	"net"
)

// ListenOwn listens on a unix socket that only this process's user, and root, may
// connect to, in place of one that nobody listens on any more.
func ListenOwn(path string) (net.Listener, error) {
	return bindUnix(path, 0o600)
}

// ListenLocal listens for something else than 9P on a unix socket or on a loopback
// address, as Listen does for 9P. No address that others can reach is accepted.
func ListenLocal(a Addr) (net.Listener, error) {
	a, err := local(a)
	if err != nil {
		return nil, err
	}
	l, err := Listen(Export{Addr: a})
	if err != nil {
		return nil, err
	}
	return l.net, nil
}

// ListenOpen listens for something else than 9P where others may reach it, at an address of TCP
// or a unix socket, as Listen does for 9P.
func ListenOpen(a Addr) (net.Listener, error) {
	if a.Network == "tcp" {
		return net.Listen(family(a.Address), a.Address)
	}
	return ListenLocal(a)
}

// CheckLocal is Check for ListenLocal.
func CheckLocal(a Addr) error {
	a, err := local(a)
	if err != nil {
		return err
	}
	return Export{Addr: a}.Check()
}

// local is an address that others cannot reach.
func local(a Addr) (Addr, error) {
	if a.Network != "unix" && a.Network != "tcp" {
		return a, fmt.Errorf("listen %s: %w", a, &OptionError{Err: errors.New("only for this host: want unix or tcp")})
	}
	if a.Network == "tcp" {
		t, err := net.ResolveTCPAddr("tcp", a.Address)
		if err != nil {
			return a, fmt.Errorf("listen %s: %w", a, err)
		}
		if !t.IP.IsLoopback() {
			return a, fmt.Errorf("listen %s: %w", a, &OptionError{Err: errors.New("only for this host: not a loopback address")})
		}
		a.Address = t.String() // a name may have another address by now
	}
	return a, nil
}
