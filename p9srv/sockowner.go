package p9srv

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tcpEstablished is the one state in which a socket's owner is believed: a socket
// that is closing or that no process has any more shows uid 0 and inode 0.
const tcpEstablished = 1

var errNoSocket = errors.New("no such socket")

// sockState is what the kernel tells of a TCP socket.
type sockState struct {
	local, remote netip.AddrPort
	state         uint8
	uid           uint32
	inode         uint32
}

// owner returns the uid of the process that made the socket, if that is certain.
func (st sockState) owner() (uint32, error) {
	switch {
	case st.state != tcpEstablished:
		return 0, fmt.Errorf("socket is in state %d, not established", st.state)
	case st.inode == 0:
		return 0, errors.New("socket belongs to no process")
	}
	return st.uid, nil
}

// socketOwner returns the uid that owns the socket of this host which is
// connected from local to remote.
func socketOwner(local, remote netip.AddrPort) (uint32, error) {
	local, remote = unmap(local), unmap(remote)
	st, err := diagSocket(local, remote)
	if err != nil {
		// sock_diag says ENOENT both for a socket that it does not find and for
		// a kernel that lacks its module.
		var errProc error
		if st, errProc = procSocket("/proc/net", local, remote); errProc != nil {
			return 0, fmt.Errorf("sock_diag: %v; /proc/net: %v", err, errProc)
		}
	}
	if st.local != local || st.remote != remote {
		return 0, errNoSocket
	}
	return st.owner()
}

// stillEstablished is an error when the peer has closed its side or broken the
// connection: then what had its address may be another socket by now.
func stillEstablished(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var errInfo error
	err = raw.Control(func(fd uintptr) { info, errInfo = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, errInfo); err != nil {
		return err
	}
	if info.State != tcpEstablished {
		return fmt.Errorf("our socket is in state %d, not established", info.State)
	}
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Sizes and offsets of linux/inet_diag.h.
const (
	sizeofNlmsghdr      = 16
	sizeofInetDiagReqV2 = 8 + 48
	sizeofInetDiagMsg   = 4 + 48 + 20
)

// diagSocket asks NETLINK_SOCK_DIAG for one socket by its 4-tuple. The kernel
// falls back to a listening socket when there is no connected one, so the
// answer must be compared with the question.
func diagSocket(local, remote netip.AddrPort) (st sockState, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return st, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// The kernel answers within sendto; the timeout is for what pretends to be one.
	tv := unix.NsecToTimeval(int64(2 * time.Second))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return st, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return st, os.NewSyscallError("recvfrom", err)
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return st, errors.New("answer is not the kernel's")
	}
	return parseDiag(buf[:n])
}

func diagRequest(local, remote netip.AddrPort) []byte {
	ne := binary.NativeEndian
	b := make([]byte, 0, sizeofNlmsghdr+sizeofInetDiagReqV2)
	b = ne.AppendUint32(b, sizeofNlmsghdr+sizeofInetDiagReqV2)
	b = ne.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence, port
	family := byte(unix.AF_INET)
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = ne.AppendUint32(b, ^uint32(0)) // states
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	for _, a := range []netip.Addr{local.Addr(), remote.Addr()} {
		var word [16]byte
		copy(word[:], a.AsSlice())
		b = append(b, word[:]...)
	}
	b = append(b, 0, 0, 0, 0)                                        // interface
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // no cookie
}

func parseDiag(b []byte) (st sockState, err error) {
	ne := binary.NativeEndian
	if len(b) < sizeofNlmsghdr {
		return st, io.ErrUnexpectedEOF
	}
	typ, b := ne.Uint16(b[4:]), b[sizeofNlmsghdr:]
	switch {
	case typ == unix.NLMSG_ERROR && len(b) >= 4:
		return st, unix.Errno(-int32(ne.Uint32(b)))
	case typ != unix.SOCK_DIAG_BY_FAMILY:
		return st, fmt.Errorf("answer of type %d", typ)
	case len(b) < sizeofInetDiagMsg:
		return st, io.ErrUnexpectedEOF
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	st.state = b[1]
	id := b[4:]
	local, _ := netip.AddrFromSlice(id[4 : 4+size])
	remote, _ := netip.AddrFromSlice(id[20 : 20+size])
	st.local = netip.AddrPortFrom(local.Unmap(), binary.BigEndian.Uint16(id))
	st.remote = netip.AddrPortFrom(remote.Unmap(), binary.BigEndian.Uint16(id[2:]))
	tail := b[4+48:]
	st.uid, st.inode = ne.Uint32(tail[12:]), ne.Uint32(tail[16:])
	return st, nil
}

// procSocket looks a socket up in the files tcp and tcp6 of dir. One of a v6
// socket that is connected over v4 is in tcp6.
func procSocket(dir string, local, remote netip.AddrPort) (sockState, error) {
	files := []string{"tcp6"}
	if local.Addr().Is4() {
		files = []string{"tcp", "tcp6"}
	}
	for _, name := range files {
		f, err := os.Open(dir + "/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return sockState{}, err
		}
		st, err := findSocket(f, local, remote)
		f.Close()
		if err != errNoSocket {
			return st, err
		}
	}
	return sockState{}, errNoSocket
}

func findSocket(r io.Reader, local, remote netip.AddrPort) (sockState, error) {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			continue
		}
		st := sockState{local: procAddr(f[1]), remote: procAddr(f[2])}
		if st.local != local || st.remote != remote {
			continue
		}
		state, err1 := strconv.ParseUint(f[3], 16, 8)
		uid, err2 := strconv.ParseUint(f[7], 10, 32)
		inode, err3 := strconv.ParseUint(f[9], 10, 32)
		if err := errors.Join(err1, err2, err3); err != nil {
			return sockState{}, err
		}
		st.state, st.uid, st.inode = uint8(state), uint32(uid), uint32(inode)
		return st, nil
	}
	if err := lines.Err(); err != nil {
		return sockState{}, err
	}
	return sockState{}, errNoSocket
}

// procAddr parses 0100007F:1F90: words in the host's byte order, in hexadecimal.
func procAddr(s string) netip.AddrPort {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n))
}
