package p9srv

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/p9srv/sock"
)

// Listener accepts connections for Server.Serve.
type Listener struct {
	net       net.Listener
	addr      Addr // where it really listens
	export    atomic.Pointer[export]
	withdrawn bool // under Server.mu

	takesRights bool // the kernel cannot refuse descriptors that peers send
}

func newListener(n net.Listener, e Export, t *tls.Config) *Listener {
	l := &Listener{net: n, addr: e.Addr.Plain()}
	if u, ok := n.(*net.UnixListener); ok {
		raw, err := u.SyscallConn()
		l.takesRights = err != nil || sock.RefuseRights(raw) != nil
	}
	l.export.Store(&export{e, t})
	return l
}

// Addr is where it really listens: a port that was 0 is the one that it got. It has
// no options: those of a listener are not those of a client.
func (l *Listener) Addr() Addr { return l.addr }

// Close stops listening and removes a unix socket.
func (l *Listener) Close() error { return l.net.Close() }

// Listen begins to listen. It refuses what Check does, by an OptionError where what is
// asked for has to be changed before it can be had.
func Listen(e Export) (l *Listener, err error) {
	config, err := e.ready()
	if err == nil {
		switch e.Network {
		case "tcp", "tls":
			l, err = listenTCP(e, config)
		case "unix":
			l, err = listenUnix(e)
		case "vsock":
			l, err = listenVsock(e)
		default:
			err = errNetwork
		}
	}
	if err != nil {
		return nil, e.refused(err)
	}
	return l, nil
}

// Check refuses an address on which the peers could not be told apart, users and TLS
// files that there are not, and a path at which something else is than a socket.
func (e Export) Check() error {
	_, err := e.ready()
	if err == nil && e.Network == "unix" && e.Socket == nil {
		_, err = socketAt(e.Address)
	}
	if err != nil {
		return e.refused(err)
	}
	return nil
}

func (e Export) refused(why error) error { return fmt.Errorf("listen %s: %w", e, why) }

// ready checks everything but the place, and reads the files of TLS.
func (e *Export) ready() (config *tls.Config, err error) {
	if err = e.check(); err != nil {
		err = &OptionError{Err: err}
	}
	if err == nil {
		err = e.checkUsers()
	}
	if err == nil {
		err = e.checkReach()
	}
	if err == nil && e.Network == "tls" {
		config, err = e.TLS.serverConfig()
	}
	return config, err
}

// checkUsers refuses what nobody could use.
func (e *Export) checkUsers() error {
	names := slices.Clone(e.Users)
	for _, terms := range e.allTerms() {
		if terms.As != "" {
			names = append(names, terms.As)
		}
	}
	for _, name := range names {
		_, err := namedIdentity(name)
		if errors.As(err, new(user.UnknownUserError)) {
			return &OptionError{Err: err}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// allTerms are the terms that are in force for some peer.
func (e *Export) allTerms() []Terms {
	if e.Network != "vsock" {
		return []Terms{e.Terms}
	}
	var all []Terms
	for _, terms := range e.CIDs {
		all = append(all, terms)
	}
	return all
}

// Announce says what the listener lets in, and warns of what makes others
// privileged.
func (l *Listener) Announce(log *slog.Logger) {
	e := l.export.Load()
	log.Info("listener", "at", l.Addr().String(), "lets_in", e.describe())
	warn := func(what, why string) {
		log.Warn("listener: "+what, "at", l.Addr().String(), "why", why)
	}
	if l.takesRights {
		warn("takes descriptors", "the kernel cannot refuse what a peer sends with his requests (Linux 6.16), which drops it as slowly as its file system does: each connection of a user of this host can hold a thread for good")
	}
	for _, terms := range e.allTerms() {
		if id, err := namedIdentity(terms.As); terms.As != "" && err == nil && privileged(id.uid) {
			warn("as="+terms.As, "whoever can connect is privileged")
		}
		if terms.TrustUname {
			warn("trust=uname", "whoever can connect is whom he says he is")
		}
	}
	if e.NoRootSquash {
		warn("no_root_squash", "what root's programs relay for others is taken for root's")
	}
	for _, name := range e.Users {
		if id, err := namedIdentity(name); err == nil && privileged(id.uid) {
			warn("users="+name, "a certificate can make a peer privileged")
		}
	}
}

// describe is one line about who is let in, as whom and where to.
func (e *Export) describe() string {
	if e.Network != "vsock" {
		return e.who() + e.Terms.describe()
	}
	var parts []string
	for cid, terms := range e.CIDs {
		parts = append(parts, fmt.Sprintf("CID %d", cid)+terms.describe())
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// who are those that are let in at all, and as whom if the terms do not say it.
func (e *Export) who() string {
	from := "everywhere"
	if len(e.Allow) > 0 {
		var nets []string
		for _, p := range e.Allow {
			nets = append(nets, p.String())
		}
		from = strings.Join(nets, " ")
	}
	byName := e.As == "" && !e.TrustUname
	switch {
	case e.Network == "tls" && len(e.Users) > 0:
		return "users " + strings.Join(e.Users, " ") + " by certificate, from " + from
	case e.Network == "tls" && byName:
		return "unprivileged users by certificate, from " + from
	case e.Network == "tls":
		return "who has a certificate, from " + from
	case e.Network == "unix" && byName:
		return "users of this host by their credentials"
	case e.Network == "unix":
		return "users of this host"
	case byName:
		who := "users of this host who own their socket"
		if !e.NoRootSquash {
			who += ", root as nobody"
		}
		if len(e.Allow) > 0 {
			who += ", from " + from
		}
		return who
	}
	return "peers from " + from
}

func (t Terms) describe() string {
	s := ""
	switch {
	case t.As != "":
		s = " as " + t.As
	case t.TrustUname:
		s = " as whom they say"
	}
	if t.ReadOnly {
		s += ", to read"
	} else {
		s += ", to read and write"
	}
	if t.Attach != "" {
		s += ", in /" + t.Attach
	}
	return s
}

// checkReach refuses TCP that reaches farther than who a peer is can be told.
func (e *Export) checkReach() error {
	if e.Network != "tcp" || e.As != "" || e.TrustUname {
		return nil
	}
	t, err := net.ResolveTCPAddr("tcp", e.Address)
	if err == nil && !t.IP.IsLoopback() {
		err = &OptionError{Err: errors.New("not a loopback address: peers from elsewhere have no identity; it needs tls://, as= or trust=")}
	}
	return err
}

func listenTCP(e Export, config *tls.Config) (*Listener, error) {
	n, err := e.inherited()
	if n == nil && err == nil {
		n, err = net.Listen(family(e.Address), e.Address)
	}
	if err != nil {
		return nil, err
	}
	e.Address = n.Addr().String()
	return newListener(n, e, config), nil
}

// family is the network to listen on at an address of TCP: for the package net 0.0.0.0 is all
// addresses of IPv6 as well, which who writes an IPv4 address does not mean.
func family(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().Is4() {
		return "tcp4"
	}
	return "tcp"
}

func listenUnix(e Export) (*Listener, error) {
	if n, err := e.inherited(); n != nil || err != nil {
		return newListener(n, e, nil), err
	}
	// Everybody may connect: permission is by who they are.
	n, err := bindUnix(e.Address, 0o666)
	if err != nil {
		return nil, err
	}
	return newListener(n, e, nil), nil
}

// bindUnix makes a unix socket, in place of one whose server is gone.
func bindUnix(path string, mode os.FileMode) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	// Who can read a directory can keep it locked: see kernfs.Dir.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	// Between two servers that start at once, the second must not take the
	// first one's socket for a stale one. Where directories cannot be locked, it is
	// left to chance.
	if d, err := os.Open(dir); err == nil {
		defer d.Close()
		lockDir(d)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return listenMode(path, mode)
}

// listenMode makes a unix socket that has its mode from the start. A chmod by its path would
// give it to what somebody has put there meanwhile, whose the directory is, as a link to any
// file of the host.
func listenMode(path string, mode os.FileMode) (n *net.UnixListener, err error) {
	onThreadOfItsOwn(func() {
		// So that the umask is that of this thread alone; where a filter of system calls
		// refuses it, for a moment it is everybody's here.
		_ = unix.Unshare(unix.CLONE_FS)
		defer unix.Umask(unix.Umask(int(0o777 &^ mode)))
		n, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	})
	return n, err
}

// onThreadOfItsOwn runs f on a thread that ends then, and is not the first one, by which
// others know the process.
func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onThreadOfItsOwn(f)
			return
		}
		f()
	}()
	<-done
}

// lockTime is how long another server may take to begin to listen.
const lockTime = 2 * time.Second

// lockDir locks a directory, unless somebody else has it locked for long: whoever
// can open it can do that, and must not be able to keep a server from starting.
func lockDir(d *os.File) {
	for begun := time.Now(); time.Since(begun) < lockTime; time.Sleep(10 * time.Millisecond) {
		if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK && err != unix.EINTR {
			return
		}
	}
}

// socketAt reports whether there is a socket at a path, where nothing else may be.
func socketAt(path string) (bool, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case st.Mode().Type() != fs.ModeSocket:
		return false, errors.New("exists and is not a socket")
	}
	return true, nil
}

// removeStale removes the socket of a server that is gone.
func removeStale(path string) error {
	if there, err := socketAt(path); !there || err != nil {
		return err
	}
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("in use: another server answers: %w", unix.EADDRINUSE)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("in use? %w", err)
}
