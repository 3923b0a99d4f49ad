package p9srv

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Addr is where a server listens, and how it takes its peers there. Its forms are
//
//	tcp://HOST:PORT[?no_root_squash]   tcp!HOST!PORT
//	unix:///PATH                       unix!PATH
type Addr struct {
	Network string // tcp or unix
	Address string // HOST:PORT, or the path of the socket

	// NoRootSquash lets uid 0 of this host be uid 0 over TCP.
	NoRootSquash bool
}

// ParseAddr parses an address in one of the forms of Addr.
func ParseAddr(s string) (Addr, error) {
	bad := func(why string) (Addr, error) { return Addr{}, fmt.Errorf("address %q: %s", s, why) }
	if network, rest, ok := strings.Cut(s, "!"); ok && !strings.Contains(network, ":") {
		switch network {
		case "unix":
			return unixAddr(s, rest)
		case "tcp":
			host, port, ok := strings.Cut(rest, "!")
			if !ok || port == "" || strings.Contains(port, "!") {
				return bad("want tcp!HOST!PORT")
			}
			return Addr{Network: "tcp", Address: net.JoinHostPort(strings.Trim(host, "[]"), port)}, nil
		}
		return bad("network must be tcp or unix")
	}
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if strings.Contains(path, "?") {
			return bad("a unix socket takes no options")
		}
		path, err := url.PathUnescape(path)
		if err != nil {
			return bad(err.Error())
		}
		return unixAddr(s, path)
	}
	rest, ok := strings.CutPrefix(s, "tcp://")
	if !ok {
		return bad("want tcp://HOST:PORT, unix:///PATH, tcp!HOST!PORT or unix!PATH")
	}
	a := Addr{Network: "tcp"}
	var options string
	a.Address, options, _ = strings.Cut(rest, "?")
	if _, port, err := net.SplitHostPort(a.Address); err != nil || port == "" {
		return bad("want tcp://HOST:PORT")
	}
	for o := range strings.SplitSeq(options, "&") {
		switch o {
		case "":
		case "no_root_squash":
			a.NoRootSquash = true
		default:
			return bad(fmt.Sprintf("unknown option %q", o))
		}
	}
	return a, nil
}

// maxSocketPath is what fits into sockaddr_un with the NUL that other tools expect.
const maxSocketPath = 107

func unixAddr(s, path string) (Addr, error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return Addr{}, fmt.Errorf("address %q: path of a unix socket must be absolute", s)
	case len(path) > maxSocketPath:
		return Addr{}, fmt.Errorf("address %q: path of a unix socket is over %d bytes", s, maxSocketPath)
	case strings.ContainsRune(path, 0):
		return Addr{}, fmt.Errorf("address %q: NUL in path", s)
	}
	return Addr{Network: "unix", Address: path}, nil
}

// String gives the form that begins with tcp:// or unix://.
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix://" + (&url.URL{Path: a.Address}).EscapedPath()
	}
	if a.NoRootSquash {
		return a.Network + "://" + a.Address + "?no_root_squash"
	}
	return a.Network + "://" + a.Address
}

// Dial connects to a server.
func (a Addr) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, a.Network, a.Address)
}
