package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

// planned looks at what a server would be told by a config file; with none, at the
// state directory that it would have.
func (x *examination) planned(file string) {
	args := []string{"containerfs", "serve"}
	if file == "" {
		conf, _, err := servedConfig(args, nil, defaultAddr())
		if _, errStat := os.Stat(conf.State); err == nil && errStat == nil {
			x.state(conf.State, false)
		}
		return
	}
	unknown := socket{asked: func(name string) {
		x.add(statusWarning, "listener", activated+name+" takes what the service manager passes, which only a server has", "run doctor without --config when it is running")
	}}
	conf, _, err := servedConfig(append(args, "--config", file), []socket{unknown}, defaultAddr())
	x.config(conf, file, err, false)
	if err == nil && conf.State != "" {
		x.state(conf.State, false)
	}
}

// running looks at what the server has been told by its command line.
func (x *examination) running(args []string) {
	env, err := environment(x.pid)
	var passed []socket
	if err == nil {
		passed, err = passedTo(x.pid, env)
	}
	if err != nil {
		x.add(statusWarning, "listener", "what the service manager has passed is not known: "+err.Error(), "ask as root")
		passed = []socket{{asked: func(string) {}}}
	}
	defer closeSockets(passed)
	// Its relative paths are from where it is.
	if here, err := os.Getwd(); err == nil && os.Chdir(fmt.Sprintf("/proc/%d/cwd", x.pid)) == nil {
		defer os.Chdir(here)
	}
	var own p9srv.Addr // by its user and environment, not by ours
	if uid, ok := userOf(x.pid); ok && (uid == 0 || env != nil) {
		own = defaultAddrOf(uid, env["XDG_RUNTIME_DIR"])
	}
	conf, file, err := servedConfig(args, passed, own)
	if abs, errAbs := filepath.Abs(file); file != "" && errAbs == nil {
		file = abs
	}
	conf.State = stateOf(x.pid)
	x.config(conf, file, err, true)
	if err == nil {
		x.unused(passed, conf.Listen)
	}
	if conf.State != "" {
		x.state(conf.State, true)
	}
}

// unused looks for sockets that were passed and are nobody's.
func (x *examination) unused(passed []socket, listen []p9srv.Export) {
	for _, s := range passed {
		if s.asked != nil || slices.ContainsFunc(listen, func(e p9srv.Export) bool { return e.Socket == s.file }) {
			continue
		}
		at := s.addr.String()
		if s.err != nil {
			at = s.err.Error()
		}
		x.add(statusWrong, "listener", fmt.Sprintf("the socket %s of the service manager (%s) is not listened on: its clients wait for ever", s.name, at),
			"add a listener at "+activated+s.name+", or take the socket from the unit")
	}
}

// config looks at what a server was told, or is to be.
func (x *examination) config(conf config, file string, err error, running bool) {
	refused := "the server would not start so"
	if running {
		refused += " again"
	}
	if err != nil {
		x.add(statusWrong, "config", err.Error(), refused)
		return
	}
	if file != "" {
		x.private("config", file, 0o022, "chmod go-w it: who can write it decides who comes in")
	}
	if conf.Rules != "" {
		x.private("rules", conf.Rules, 0o022, "chmod go-w it: who can write it decides where processes go")
	}
	x.hierarchies(conf, refused)
	if conf.Metrics != (p9srv.Addr{}) {
		x.allowed("metrics", p9srv.CheckLocal(conf.Metrics), refused)
	}
	for _, e := range conf.Listen {
		if x.allowed("listener", e.Check(), refused) {
			x.listener(e)
			if !running {
				x.inUse(e)
			}
			if e.Network == "unix" {
				x.socket(e.Address, running)
			}
		}
		if e.TLS.Key != "" {
			x.private("tls key", e.TLS.Key, 0o077, "chmod 600 it: who can read it can pretend to be the server")
			x.private("tls ca", e.TLS.CA, 0o022, "chmod go-w it: who can write it decides who comes in")
			x.certificate(e.TLS.Cert)
		}
	}
}

// allowed reports whether an address would be listened on, and adds why not, in the words
// of serve.
func (x *examination) allowed(check string, err error, refused string) bool {
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.add(statusWarning, check, err.Error(), "ask as the server's user, or as root")
	case err != nil:
		x.add(statusWrong, check, err.Error(), refused)
	}
	return err == nil
}

// servedConfig is what serve makes of a command line, of sockets that were passed and of
// its default address, and the config file in it.
func servedConfig(args []string, passed []socket, own p9srv.Addr) (conf config, file string, err error) {
	a := app(strings.NewReader(""), io.Discard, io.Discard)
	a.Command("serve").Action = func(c *cli.Context) error {
		file = c.String("config")
		conf, err = serveConfigWith(c, passed, own)
		return err
	}
	if runErr := a.Run(args); err == nil {
		err = runErr
	}
	return conf, file, err
}

// listener looks at who is let in.
func (x *examination) listener(e p9srv.Export) {
	check, at := "listener", e.Addr.String()
	outside := isOutside(e.Addr)
	open := outside && len(e.Allow) == 0 && e.Network == "tcp"
	before := len(x.findings)
	if e.TrustUname && open {
		x.add(statusWrong, check, at+" is open to everybody who can reach it, and believes who they say they are", "add allow=CIDR, or use tls://")
	} else if open && !e.ReadOnly {
		x.add(statusWarning, check, at+" is open to everybody who can reach it, as the user "+e.As, "add allow=CIDR or access=ro, or use tls://")
	}
	if e.NoRootSquash {
		if outside {
			x.add(statusWrong, "root squash", at+" lets root of other hosts be root here", "leave out no_root_squash, or say as=USER")
		} else {
			x.add(statusWarning, "root squash", at+" lets root stay root: so does a QEMU that root runs, for its guest", "leave out no_root_squash, or say as=USER")
		}
	}
	for cid, terms := range e.CIDs {
		if terms.As == "root" || terms.TrustUname && e.NoRootSquash {
			x.add(statusWarning, "root squash", fmt.Sprintf("%s lets CID %d be root", at, cid), "say as= another user, and attach= what it is to see")
		}
	}
	switch {
	case e.As != "root" || e.Network == "vsock":
	case outside:
		x.add(statusWrong, "root squash", at+" makes everybody from outside root", "say as= another user")
	default:
		x.add(statusWarning, "root squash", at+" makes every user of this host root", "leave out as=, or say another user")
	}
	if len(x.findings) == before {
		if e.Socket != nil {
			at = "the socket " + e.Socket.Name() + " of the service manager: "
		} else {
			at = ""
		}
		x.ok(check, "%s%s", at, e)
	}
}

// inUse looks for another than the server that listens where one is to.
func (x *examination) inUse(e p9srv.Export) {
	own := openFiles(x.pid)
	if x.pid != 0 && own == nil {
		return // we may not see them
	}
	for name := range listeningAt(e.Addr) {
		if !slices.Contains(own, name) {
			x.add(statusWarning, "listener", e.Addr.Plain().String()+": "+unix.EADDRINUSE.Error(), "a server does not start beside it")
			return
		}
	}
}

// isOutside reports whether an address can be reached from other hosts.
func isOutside(a p9srv.Addr) bool {
	if a.Network != "tcp" && a.Network != "tls" {
		return false
	}
	host, _, _ := net.SplitHostPort(a.Address)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host != "localhost"
	}
	return !ip.IsLoopback()
}

// trusts reports whether a file may be a user's: root's, ours and the server's.
func (x *examination) trusts(uid uint32) bool {
	if uid == 0 || uid == uint32(os.Geteuid()) {
		return true
	}
	server, ok := userOf(x.pid)
	return ok && uint32(server) == uid
}

// private looks whether a file is a user's who may have it, and has none of the mode's bits.
func (x *examination) private(check, path string, bits fs.FileMode, advice string) {
	info, err := os.Stat(path)
	if err != nil {
		x.add(statusWrong, check, err.Error(), "without it the server does not start")
		return
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !x.trusts(owner):
		x.add(statusWrong, check, fmt.Sprintf("%s belongs to the user %d", path, owner), "chown it to root")
	case info.Mode().Perm()&bits != 0:
		x.add(statusWrong, check, fmt.Sprintf("%s has the mode %04o", path, info.Mode().Perm()), advice)
	default:
		x.ok(check, "%s has the mode %04o", path, info.Mode().Perm())
	}
}

// socket looks at a unix socket and its directory.
func (x *examination) socket(path string, running bool) {
	if _, err := os.Stat(path); running && err != nil {
		x.add(statusWrong, "socket", err.Error(), "somebody has removed it: start the server again")
		return
	}
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.ok("socket", "its directory %s is not there, and will be made", dir)
		return
	case err != nil:
		x.add(statusWarning, "socket", err.Error(), "ask as the server's user, or as root")
		return
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !x.trusts(owner):
		x.add(statusWrong, "socket", fmt.Sprintf("its directory %s belongs to the user %d, who can put another there", dir, owner), "use one of root's")
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		x.add(statusWrong, "socket", fmt.Sprintf("its directory %s has the mode %04o: others can put another there", dir, info.Mode().Perm()), "chmod go-w it")
	default:
		x.ok("socket", "%s, in a directory with the mode %04o", path, info.Mode().Perm())
	}
}
