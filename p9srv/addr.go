package p9srv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"containerfs/p9srv/sock"
)

// Addr is where a server is. Its forms are
//
//	tcp://HOST:PORT     tcp!HOST!PORT
//	tls://HOST:PORT     tls!HOST!PORT
//	unix:///PATH        unix!PATH
//	vsock://CID:PORT    vsock!CID!PORT
//	ssh://[USER@]HOST[:PORT][/PATH]
//
// each of which may be followed by ? and options joined by &, with %XX for bytes
// that would be taken for something else. For a client these are those of TLS; for a
// listener those of Export, too. Nobody listens on ssh: it is the way to a unix socket of
// another host.
type Addr struct {
	Network string // tcp, tls, unix, vsock or ssh
	Address string // HOST:PORT, the path of the socket, CID:PORT, or [USER@]HOST[:PORT]

	TLS TLS // of the network tls only
	SSH SSH // of the network ssh only
}

// TLS names the files of a TLS endpoint, in PEM, and whom a client expects.
type TLS struct {
	Cert, Key string // this side's certificate, with those that lead to CA, and its key
	CA        string // what the other side's certificate must lead to
	Name      string // that the server's certificate must have, if that is not HOST; a client's only
}

// anyCID is the vsock address of a listener that takes what comes to any of this
// machine's.
const anyCID = ^uint32(0)

// option is one key of an address, with its value if it has one.
type option struct {
	key, value string
	hasValue   bool
}

// ParseAddr parses the address of a server to connect to.
func ParseAddr(s string) (Addr, error) {
	a, opts, err := parseAddr(s)
	for _, o := range opts {
		known := false
		switch a.Network {
		case "tls":
			known, err = a.TLS.set(o)
		case "ssh":
			known, err = a.SSH.set(o)
		}
		if err == nil && !known {
			err = fmt.Errorf("unknown option %q", o.key)
		}
		if err != nil {
			break
		}
	}
	switch {
	case err != nil:
	case a.Network == "vsock" && a.cid() == anyCID:
		err = errors.New("want vsock://CID:PORT")
	case a.Network == "tls":
		err = a.TLS.check()
	}
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

// parseAddr takes an address apart; the options are not looked at.
func parseAddr(s string) (a Addr, opts []option, err error) {
	place, list, hasOptions := strings.Cut(s, "?")
	if network, rest, ok := strings.Cut(place, "!"); ok && !strings.Contains(network, ":") {
		a, err = parseDial(network, rest)
	} else {
		a, err = parseURL(place)
	}
	if err != nil || !hasOptions {
		return a, nil, err
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(list, "&") {
		var o option
		o.key, o.value, o.hasValue = strings.Cut(part, "=")
		if o.value, err = url.PathUnescape(o.value); err != nil {
			return a, nil, err
		}
		switch {
		case part == "" && list == "":
			continue
		case seen[o.key]:
			return a, nil, fmt.Errorf("option %q is given twice", o.key)
		case strings.ContainsRune(o.value, 0):
			return a, nil, fmt.Errorf("NUL in option %q", o.key)
		}
		seen[o.key] = true
		opts = append(opts, o)
	}
	return a, opts, nil
}

func parseDial(network, rest string) (Addr, error) {
	switch network {
	case "unix":
		return unixAddr(rest)
	case "tcp", "tls", "vsock":
		host, port, ok := strings.Cut(rest, "!")
		if !ok || strings.Contains(port, "!") {
			return Addr{}, fmt.Errorf("want %s!HOST!PORT", network)
		}
		return portAddr(network, strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port)
	}
	return Addr{}, errNetwork
}

var errNetwork = errors.New("network must be tcp, tls, unix or vsock")

func parseURL(s string) (Addr, error) {
	network, rest, _ := strings.Cut(s, "://")
	switch network {
	case "unix":
		return unixURL(rest)
	case "tcp", "tls", "vsock":
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return Addr{}, fmt.Errorf("want %s://HOST:PORT", network)
		}
		return portAddr(network, host, port)
	case "ssh":
		return sshAddr(rest)
	}
	return Addr{}, errors.New("want tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH, vsock://CID:PORT, ssh://HOST or NETWORK!HOST!PORT")
}

func portAddr(network, host, port string) (Addr, error) {
	bits := 16
	if network == "vsock" {
		bits = 32
	}
	// Not names of services: what a listener is on must be plain to see.
	n, err := strconv.ParseUint(port, 10, bits)
	if err != nil {
		return Addr{}, fmt.Errorf("port %q is no number of a port", port)
	}
	if network == "vsock" {
		if host == "" {
			host = "*"
		}
		if _, err := parseCID(host); host != "*" && err != nil {
			return Addr{}, err
		}
	}
	if !isHost(host) {
		return Addr{}, fmt.Errorf("%q is no host", host)
	}
	return Addr{Network: network, Address: net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
}

// isHost reports whether nothing in s would be taken for another part of an address.
func isHost(s string) bool { return !strings.ContainsAny(s, "/?#@&= \t\r\n\x00") }

func parseCID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || uint32(n) == anyCID {
		return 0, fmt.Errorf("%q is no CID", s)
	}
	return uint32(n), nil
}

// cid is the CID of a vsock address.
func (a Addr) cid() uint32 {
	host, _, _ := net.SplitHostPort(a.Address)
	if cid, err := parseCID(host); err == nil {
		return cid
	}
	return anyCID
}

// port is the port of an address that has one.
func (a Addr) port() uint32 {
	_, port, _ := net.SplitHostPort(a.Address)
	n, _ := strconv.ParseUint(port, 10, 32)
	return uint32(n)
}

// maxSocketPath is what fits into sockaddr_un with the NUL that other tools expect.
const maxSocketPath = 107

func unixAddr(path string) (Addr, error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return Addr{}, errors.New("path of a unix socket must be absolute")
	case len(path) > maxSocketPath:
		return Addr{}, fmt.Errorf("path of a unix socket is over %d bytes", maxSocketPath)
	case strings.ContainsRune(path, 0):
		return Addr{}, errors.New("NUL in path")
	}
	return Addr{Network: "unix", Address: path}, nil
}

// unixURL is unixAddr for a path with %XX in it.
func unixURL(s string) (Addr, error) {
	path, err := url.PathUnescape(s)
	if err != nil {
		return Addr{}, err
	}
	return unixAddr(path)
}

// set takes an option if it is one of TLS.
func (t *TLS) set(o option) (known bool, err error) {
	var to *string
	switch o.key {
	case "cert":
		to = &t.Cert
	case "key":
		to = &t.Key
	case "ca":
		to = &t.CA
	case "name":
		if o.value == "" {
			return true, errors.New("name= is empty")
		}
		t.Name = o.value
		return true, nil
	default:
		return false, nil
	}
	if o.value == "" {
		return true, fmt.Errorf("%s= is empty", o.key)
	}
	// Who uses it may be in another directory by then.
	*to, err = filepath.Abs(o.value)
	return true, err
}

func (t *TLS) check() error {
	if t.Cert == "" || t.Key == "" || t.CA == "" {
		return errors.New("tls needs cert=, key= and ca=")
	}
	return nil
}

// Plain is the address without options.
func (a Addr) Plain() Addr {
	a.TLS, a.SSH.Command = TLS{}, ""
	return a
}

// String gives the form with ://. It can be parsed again.
func (a Addr) String() string {
	address := a.Address
	if a.Network == "unix" {
		address = (&url.URL{Path: a.Address}).EscapedPath()
	}
	s := a.Network + "://" + address + (&url.URL{Path: a.SSH.Socket}).EscapedPath()
	for i, o := range append(a.TLS.options(), a.SSH.options()...) {
		s += string("?&"[min(i, 1)]) + o
	}
	return s
}

func (t *TLS) options() (opts []string) {
	for _, o := range []struct{ key, value string }{{"cert", t.Cert}, {"key", t.Key}, {"ca", t.CA}, {"name", t.Name}} {
		if o.value != "" {
			opts = append(opts, o.key+"="+escapeValue(o.value))
		}
	}
	return opts
}

// escapeValue escapes what cannot be in the value of an option.
func escapeValue(s string) string {
	return strings.NewReplacer("&", "%26", "=", "%3D").Replace((&url.URL{Path: s}).EscapedPath())
}

// Dial connects to a server. What is wrong with the files of TLS is an OptionError. Over TLS
// the handshake is done, but the server may not have judged the certificate yet: then the first
// read fails. Over both TLS and TCP it is an error
// of the connection when nothing was heard of the server for sock.Unheard.
func (a Addr) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := a.dial(ctx)
	if err == nil {
		sock.Heed(conn, sock.Unheard)
	}
	return conn, err
}

func (a Addr) dial(ctx context.Context) (net.Conn, error) {
	switch a.Network {
	case "tls":
		return dialTLS(ctx, a)
	case "vsock":
		return dialVsock(ctx, a)
	case "ssh":
		return dialSSH(ctx, a)
	}
	var d net.Dialer
	return d.DialContext(ctx, a.Network, a.Address)
}
