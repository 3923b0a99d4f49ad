package p9srv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"

	"containerfs/ops"
	"containerfs/p9srv/sock"
	"containerfs/p9srv/wire"
)

// squashed is who a peer with uid 0 is on a loopback listener: it may speak for others.
const squashed = 65534

// identity is who the kernel says that a peer is.
type identity struct {
	uid  uint32
	gids []uint32
}

// nobody is the identity of who has none, or none that is let in.
var nobody = identity{uid: squashed, gids: []uint32{squashed}}

// privileged reports whether a uid may do everything: root and the user that the
// server runs as (SPEC §1).
func privileged(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// peer is the other end of a connection.
type peer struct {
	name  string // for logs
	from  string // what a peer cannot change by connecting again: see origin; its CID or uid
	local bool   // on a unix socket
	terms Terms

	export *export // under which it was let in

	// stranger is set for an unprivileged user on a unix socket.
	stranger bool

	// squash is unset when uid 0 is believed where others can speak for it.
	squash bool

	// greet, if it is not nil, is what comes before the first frame.
	greet func(context.Context) error

	// identify asks the kernel, at each attach anew: a socket that was the
	// peer's when it connected can have been closed since. Nil: nobody knows.
	identify func() (identity, error)
}

func (p *peer) String() string { return p.name }

// admit decides on a connection before a byte of it is read: who it is, or why it
// is hung up on.
func (l *Listener) admit(conn net.Conn) (net.Conn, peer, error) {
	e := l.export.Load()
	p := peer{export: e, squash: !e.NoRootSquash}
	switch c := conn.(type) {
	case *net.UnixConn:
		p.local = true
		uid, err := unixUser(c)
		p.name = "unix"
		if err == nil {
			p.name = fmt.Sprintf("unix uid %d", uid)
		}
		p.from = p.name
		p.stranger = err != nil || !privileged(uid)
		p.identify = func() (identity, error) { return unixIdentity(c) }
	case *net.TCPConn:
		sock.Heed(c, sock.Unheard)
		theirs := addrPort(c.RemoteAddr())
		p.name, p.from = e.Network+" "+theirs.String(), e.Network+" "+origin(theirs.Addr())
		if e.tls == nil {
			p.identify = func() (identity, error) { return loopbackIdentity(c, p.squash) }
			break
		}
		t := tls.Server(c, e.tls)
		p.greet = t.HandshakeContext
		p.identify = func() (identity, error) { return tlsIdentity(t, e.Users, time.Now()) }
		conn = t
	default:
		cid, _ := peerCID(conn.RemoteAddr())
		p.name, p.from = "vsock "+conn.RemoteAddr().String(), fmt.Sprintf("vsock cid %d", cid)
	}
	var err error
	p.terms, err = e.letIn(conn.RemoteAddr())
	return conn, p, err
}

// origin is what an address has in common with the others that who has it can connect from:
// those of the loopback, and in IPv6 those of its network.
func origin(a netip.Addr) string {
	a = a.WithZone("")
	switch {
	case a.Is4() && a.IsLoopback():
		return netip.PrefixFrom(a, 8).Masked().String()
	case a.Is6() && !a.IsLoopback():
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return unmap(t.AddrPort())
	}
	return netip.AddrPort{}
}

// caller decides who requests of an attach are made for.
func (p *peer) caller(uname string, nuname uint32) (*ops.Caller, error) {
	id, err := p.identity(uname, nuname)
	if err != nil {
		return nil, err
	}
	return &ops.Caller{
		UID: id.uid, GIDs: id.gids, Local: p.local,
		ReadOnly: p.terms.ReadOnly, Confined: p.terms.Attach,
		Peer: p.name, Origin: p.from,
	}, nil
}

func (p *peer) identity(uname string, nuname uint32) (id identity, err error) {
	switch {
	case p.terms.As != "":
		id, err = namedIdentity(p.terms.As)
	case p.terms.TrustUname:
		id, err = p.trusted(uname, nuname)
	case p.identify == nil:
		err = errors.New("connection carries no identity")
	default:
		if id, err = p.identify(); err == nil {
			return id.as(uname, nuname)
		}
	}
	if err != nil {
		return identity{}, fmt.Errorf("%w: peer is not known: %v", linux.EACCES, err)
	}
	return id, nil
}

// trusted is whom a peer says it is. Who says nothing is nobody, or on a unix socket
// himself.
func (p *peer) trusted(uname string, nuname uint32) (id identity, err error) {
	switch {
	case nuname != wire.NoUID:
		id, err = uidIdentity(nuname)
	case uname != "" && uname != "nobody":
		id, err = namedIdentity(uname)
	case p.local:
		return p.identify()
	default:
		return nobody, nil
	}
	if err == nil && privileged(id.uid) && p.squash {
		id = nobody
	}
	return id, err
}

// as applies the names of a Tattach, which can only lower an identity: uid 0 may
// become any user of the server's passwd, others only themselves.
func (id identity) as(uname string, nuname uint32) (identity, error) {
	var to identity
	var err error
	switch {
	case nuname == wire.NoUID && (uname == "" || uname == "nobody"):
		return id, nil
	case nuname == id.uid:
		return id, nil
	case nuname != wire.NoUID && id.uid == 0:
		to, err = uidIdentity(nuname)
	case nuname != wire.NoUID:
		return identity{}, fmt.Errorf("%w: uid %d may not attach as %d", linux.EPERM, id.uid, nuname)
	default:
		to, err = namedIdentity(uname)
	}
	switch {
	case err != nil:
		return identity{}, fmt.Errorf("%w: %v", linux.EPERM, err)
	case to.uid == id.uid:
		return id, nil
	case id.uid != 0:
		return identity{}, fmt.Errorf("%w: uid %d may not attach as %q", linux.EPERM, id.uid, uname)
	}
	return to, nil
}

// namedIdentity is a user of the server's passwd with that user's groups.
func namedIdentity(name string) (identity, error) {
	if strings.ContainsRune(name, 0) { // where a lookup by libc would end
		return identity{}, user.UnknownUserError(name)
	}
	u, err := user.Lookup(name)
	if err != nil {
		return identity{}, err
	}
	return identityOf(u)
}

func uidIdentity(uid uint32) (identity, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return identity{}, err
	}
	return identityOf(u)
}

func identityOf(u *user.User) (identity, error) {
	uid, gids, err := userIDs(u)
	return identity{uid, gids}, err
}

// userIDs returns a user's uid and groups, the primary one first.
func userIDs(u *user.User) (uint32, []uint32, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return 0, nil, err
	}
	gids := make([]uint32, 0, 1+len(groups))
	for _, g := range append([]string{u.Gid}, groups...) {
		gid, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return 0, nil, err
		}
		if len(gids) == 0 || uint32(gid) != gids[0] {
			gids = append(gids, uint32(gid))
		}
	}
	return uint32(uid), gids, nil
}

// loopbackIdentity is the identity of who owns the other socket of a connection
// within this host.
func loopbackIdentity(c *net.TCPConn, squash bool) (identity, error) {
	theirs, mine := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if !theirs.Addr().IsLoopback() || !mine.Addr().IsLoopback() {
		return identity{}, errors.New("not a loopback connection")
	}
	uid, err := socketOwner(theirs, mine)
	if err == nil {
		// Had the peer been gone before, somebody else's socket could have got
		// its port and be connected to us by now.
		err = stillEstablished(c)
	}
	if err == nil {
		err = checkNumber(uid)
	}
	if err != nil {
		return identity{}, err
	}
	if uid == 0 && squash {
		return nobody, nil
	}
	id, err := uidIdentity(uid)
	if errors.As(err, new(user.UnknownUserIdError)) {
		return identity{uid: uid, gids: []uint32{squashed}}, nil // in no group
	}
	return id, err
}

// unixUser is the user that the peer connected as.
func unixUser(c *net.UnixConn) (uint32, error) {
	cred, _, err := unixCredentials(c, false)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// unixIdentity asks for the credentials that the peer connected with, which never change. The
// groups can be 65,536: they are an attach's, and counted as such.
func unixIdentity(c *net.UnixConn) (id identity, err error) {
	cred, groups, err := unixCredentials(c, true)
	if err != nil {
		return id, err
	}
	id = identity{uid: cred.Uid, gids: make([]uint32, 1, 1+len(groups))}
	id.gids[0] = cred.Gid
	for _, g := range groups {
		if g != cred.Gid {
			id.gids = append(id.gids, g)
		}
	}
	return id, nil
}

func unixCredentials(c *net.UnixConn, withGroups bool) (cred *unix.Ucred, groups []uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var errCred, errGroups error
	err = raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if withGroups {
			groups, errGroups = peerGroups(int(fd))
		}
	})
	if errGroups == unix.ENOPROTOOPT { // Linux before 4.13
		errGroups = nil
	}
	if err := errors.Join(err, errCred, errGroups); err != nil {
		return nil, nil, err
	}
	return cred, groups, checkNumber(cred.Uid)
}

// peerGroups reads SO_PEERGROUPS, for which x/sys/unix has no function.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size) > 4*len(groups): // it says how many
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
