package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"

	"containerfs/p9srv"
)

// activated begins the address of a listener that takes the sockets of a name which
// the service manager has passed: systemd:NAME, then ? and options as usual. Whether
// they are unix, tcp or vsock is the sockets' to say; tcp with cert= is tls.
const activated = "systemd:"

// socket is a listening socket that the service manager has passed.
type socket struct {
	name string // FileDescriptorName=
	file *os.File
	addr p9srv.Addr
	err  error // why it is of no use

	// asked, if any, is told of names, since which sockets there are is not known: there
	// is no server.
	asked func(name string)
}

// sockets are all of them, by sd_listen_fds(3). What they were passed in is gone from
// the environment afterwards; the sockets stay open, so that a reload can come back
// to one.
var sockets = sync.OnceValue(func() (list []socket) {
	for _, f := range activation.Files(true) {
		s := socket{name: f.Name(), file: f}
		s.addr, s.err = p9srv.SocketAddr(f)
		list = append(list, s)
	}
	return list
})

// exportsAt makes the exports of an address without options: one, or those of the
// sockets of that name. certificates says that the options have some.
func exportsAt(addr string, certificates bool, list []socket, parse func(addr string) (p9srv.Export, error)) ([]p9srv.Export, error) {
	name, ok := strings.CutPrefix(addr, activated)
	if !ok {
		e, err := parse(addr)
		return []p9srv.Export{e}, err
	}
	var exports []p9srv.Export
	var names []string
	for _, s := range list {
		if s.asked != nil {
			s.asked(name)
			return nil, nil
		}
		names = append(names, s.name)
		if s.name != name {
			continue
		}
		e, err := s.export(certificates, parse)
		if err != nil {
			return nil, err
		}
		exports = append(exports, e)
	}
	if len(exports) == 0 {
		err := fmt.Errorf("the service manager has passed no socket %q, but %q", name, names)
		if len(names) == 0 {
			err = fmt.Errorf("the service manager has passed no socket %q, nor any other", name)
		}
		return nil, &p9srv.OptionError{Key: "addr", Err: err}
	}
	return exports, nil
}

func (s *socket) export(certificates bool, parse func(addr string) (p9srv.Export, error)) (p9srv.Export, error) {
	if s.err != nil {
		return p9srv.Export{}, &p9srv.OptionError{Key: "addr", Err: fmt.Errorf("socket %q of the service manager: %w", s.name, s.err)}
	}
	a := s.addr
	if a.Network == "tcp" && certificates {
		a.Network = "tls"
	}
	e, err := parse(a.String())
	e.Socket = s.file
	return e, err
}

// flagExports are the exports of a --listen.
func flagExports(arg string, list []socket) ([]p9srv.Export, error) {
	place, options, hasOptions := strings.Cut(arg, "?")
	if !strings.HasPrefix(place, activated) {
		place, options, hasOptions = arg, "", false
	}
	exports, err := exportsAt(place, strings.Contains("&"+options, "&cert="), list, func(addr string) (p9srv.Export, error) {
		if hasOptions {
			addr += "?" + options
		}
		return p9srv.ParseExport(addr)
	})
	var opt *p9srv.OptionError
	if errors.As(err, &opt) && opt.Key == "addr" {
		err = fmt.Errorf("address %q: %w", arg, opt.Err)
	}
	return exports, err
}

// defaultExports are listened on when nothing says what to: what the service manager
// has passed, or else the unix socket own, if that is known.
func defaultExports(list []socket, own p9srv.Addr) ([]p9srv.Export, error) {
	var exports []p9srv.Export
	for _, s := range list {
		if s.asked != nil {
			break
		}
		e, err := s.export(false, p9srv.ParseExport)
		if err != nil {
			return nil, err
		}
		exports = append(exports, e)
	}
	if len(exports) == 0 && own != (p9srv.Addr{}) {
		exports = []p9srv.Export{{Addr: own}}
	}
	return exports, nil
}

// checkSockets refuses a socket that has two listeners: on whose terms a connection
// is, would be left to chance.
func checkSockets(listen []p9srv.Export) error {
	seen := make(map[*os.File]bool)
	for _, e := range listen {
		if e.Socket != nil && seen[e.Socket] {
			return fmt.Errorf("socket %q of the service manager is given twice", e.Socket.Name())
		}
		seen[e.Socket] = true
	}
	return nil
}

// warnUnused tells of sockets that were passed and are not listened on, where clients
// would wait for ever.
func warnUnused(log *slog.Logger, list []socket, listen []p9srv.Export) {
	used := make(map[*os.File]bool)
	for _, e := range listen {
		used[e.Socket] = true
	}
	for _, s := range list {
		if !used[s.file] {
			log.Warn("a socket of the service manager is not listened on", "name", s.name, "at", s.addr.String(), "hint", "--listen "+activated+s.name)
		}
	}
}
