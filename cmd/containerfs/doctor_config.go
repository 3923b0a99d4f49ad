package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
)

// config looks at what a server was told, by its command line. addr is its own
// address, or empty when it is not running.
func (x *examination) config(args []string, addr string) {
	conf, file, err := servedConfig(args)
	if err != nil {
		x.add(statusWrong, "config", err.Error(), "the server would not start so")
		return
	}
	if file != "" {
		x.private("config", file, 0o022, "chmod go-w it: who can write it decides who comes in")
	}
	for _, e := range conf.Listen {
		x.listener(e)
		if e.Network == "unix" {
			x.socket(e.Address, addr != "")
		}
		if e.TLS.Key != "" {
			x.private("tls key", e.TLS.Key, 0o077, "chmod 600 it: who can read it can pretend to be the server")
		}
	}
}

// servedConfig is what serve makes of a command line, and the config file in it.
func servedConfig(args []string) (conf config, file string, err error) {
	a := app(strings.NewReader(""), io.Discard, io.Discard)
	a.Command("serve").Action = func(c *cli.Context) error {
		file = c.String("config")
		conf, err = serveConfig(c)
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
	if e.As == "root" && outside {
		x.add(statusWrong, "root squash", at+" makes everybody from outside root", "say as= another user")
	}
	if len(x.findings) == before {
		x.ok(check, "%s", e)
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

// private looks whether a file is root's, or ours, and has none of the mode's bits.
func (x *examination) private(check, path string, bits fs.FileMode, advice string) {
	info, err := os.Stat(path)
	if err != nil {
		x.add(statusWrong, check, err.Error(), "without it the server does not start")
		return
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0 && owner != uint32(os.Geteuid()):
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
	if err != nil {
		x.add(statusWarning, "socket", err.Error(), "make the directory")
		return
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0 && owner != uint32(os.Geteuid()):
		x.add(statusWrong, "socket", fmt.Sprintf("its directory %s belongs to the user %d, who can put another there", dir, owner), "use one of root's")
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		x.add(statusWrong, "socket", fmt.Sprintf("its directory %s has the mode %04o: others can put another there", dir, info.Mode().Perm()), "chmod go-w it")
	default:
		x.ok("socket", "%s, in a directory with the mode %04o", path, info.Mode().Perm())
	}
}
