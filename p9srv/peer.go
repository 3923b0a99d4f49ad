package p9srv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/user"
	"strconv"
	"unsafe"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"

	"containerfs/ops"
)

// squashed is who a peer with uid 0 is on a loopback listener: it may speak for others.
const squashed = 65534

// identity is who the kernel says that a peer is.
type identity struct {
	uid   uint32
	gids  []uint32
	local bool
}

// peer is the other end of a connection.
type peer struct {
	name string // for logs

	// identify asks the kernel, at each attach anew: a socket that was the
	// peer's when it connected can have been closed since.
	identify func() (identity, error)
}

func (p *peer) String() string { return p.name }

// peerOf looks at a connection that a listener at addr has accepted.
func peerOf(conn net.Conn, addr Addr) peer {
	switch c := conn.(type) {
	case *net.UnixConn:
		id, err := unixIdentity(c)
		name := "unix"
		if err == nil {
			name = fmt.Sprintf("unix uid %d", id.uid)
		}
		// Fixed by the kernel when the peer connected.
		return peer{name, func() (identity, error) { return id, err }}
	case *net.TCPConn:
		mine, theirs := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
		return peer{"tcp " + theirs.String(), func() (identity, error) {
			return loopbackIdentity(theirs, mine, addr.NoRootSquash)
		}}
	}
	return peer{"unknown", func() (identity, error) {
		return identity{}, errors.New("connection carries no identity")
	}}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return unmap(t.AddrPort())
	}
	return netip.AddrPort{}
}

// caller decides who requests of an attach are made for.
func (p *peer) caller(uname string, nuname uint32) (*ops.Caller, error) {
	id, err := p.identify()
	if err != nil {
		return nil, fmt.Errorf("%w: peer is not known: %v", linux.EACCES, err)
	}
	if id, err = id.as(uname, nuname); err != nil {
		return nil, err
	}
	return &ops.Caller{UID: id.uid, GIDs: id.gids, Local: id.local, Peer: p.name}, nil
}

// as applies the names of a Tattach, which can only lower an identity: uid 0 may
// become any user of the server's passwd, others only themselves.
func (id identity) as(uname string, nuname uint32) (identity, error) {
	var u *user.User
	var err error
	switch {
	case nuname == noUID && (uname == "" || uname == "nobody"):
		return id, nil
	case nuname == id.uid:
		return id, nil
	case nuname != noUID && id.uid == 0:
		u, err = user.LookupId(strconv.FormatUint(uint64(nuname), 10))
	case nuname != noUID:
		return identity{}, fmt.Errorf("%w: uid %d may not attach as %d", linux.EPERM, id.uid, nuname)
	default:
		u, err = user.Lookup(uname)
	}
	if err != nil {
		return identity{}, fmt.Errorf("%w: %v", linux.EPERM, err)
	}
	uid, gids, err := userIDs(u)
	switch {
	case err != nil:
		return identity{}, fmt.Errorf("%w: %v", linux.EPERM, err)
	case uid == id.uid:
		return id, nil
	case id.uid != 0:
		return identity{}, fmt.Errorf("%w: uid %d may not attach as %q", linux.EPERM, id.uid, uname)
	}
	return identity{uid, gids, id.local}, nil
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

// loopbackIdentity is the identity of the owner of a socket on this host.
func loopbackIdentity(theirs, mine netip.AddrPort, noRootSquash bool) (identity, error) {
	if !theirs.Addr().IsLoopback() || !mine.Addr().IsLoopback() {
		return identity{}, errors.New("not a loopback connection")
	}
	uid, err := socketOwner(theirs, mine)
	if err != nil {
		return identity{}, err
	}
	if uid == 0 && !noRootSquash {
		return identity{uid: squashed, gids: []uint32{squashed}}, nil
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if errors.As(err, new(user.UnknownUserIdError)) {
		return identity{uid: uid, gids: []uint32{squashed}}, nil // in no group
	}
	if err != nil {
		return identity{}, err
	}
	_, gids, err := userIDs(u)
	return identity{uid: uid, gids: gids}, err
}

// unixIdentity asks for the credentials that the peer connected with.
func unixIdentity(c *net.UnixConn) (id identity, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return id, err
	}
	var cred *unix.Ucred
	var groups []uint32
	var errCred, errGroups error
	err = raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups, errGroups = peerGroups(int(fd))
	})
	if err := errors.Join(err, errCred); err != nil {
		return id, err
	}
	if errGroups != nil && errGroups != unix.ENOPROTOOPT { // Linux before 4.13
		return id, errGroups
	}
	id = identity{uid: cred.Uid, gids: []uint32{cred.Gid}, local: true}
	for _, g := range groups {
		if g != cred.Gid {
			id.gids = append(id.gids, g)
		}
	}
	return id, nil
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
