package p9srv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"

	"containerfs/p9srv/wire"
)

// connect makes a TCP connection over loopback and returns both ends.
func connect(t *testing.T, listen, dial string) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("%s: %v", listen, err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", strings.Replace(l.Addr().String(), l.Addr().(*net.TCPAddr).IP.String(), dial, 1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// lookups are the two ways to a socket's owner.
var lookups = map[string]func(local, remote netip.AddrPort) (sockState, error){
	"sock_diag": diagSocket,
	"proc": func(local, remote netip.AddrPort) (sockState, error) {
		return procSocket("/proc/net", local, remote)
	},
}

func TestSocketOwner(t *testing.T) {
	for name, lookup := range lookups {
		for _, host := range []string{"127.0.0.1", "127.1.2.3", "[::1]"} {
			t.Run(name+" "+host, func(t *testing.T) {
				_, server := connect(t, host+":0", strings.Trim(host, "[]"))
				theirs, mine := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
				st, err := lookup(theirs, mine)
				if err != nil {
					t.Fatal(err)
				}
				uid, err := st.owner()
				if err != nil || uid != uint32(os.Getuid()) || st.local != theirs || st.remote != mine {
					t.Errorf("owner %d, %v; %+v", uid, err, st)
				}
				// Not a neighbour of it, nor the listener.
				for _, other := range []netip.AddrPort{
					netip.AddrPortFrom(theirs.Addr(), theirs.Port()^1),
					netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), theirs.Port()),
				} {
					if st, err := lookup(other, mine); err == nil && st.local == other && st.remote == mine {
						t.Errorf("%v is somebody's: %+v", other, st)
					}
				}
			})
		}
	}
}

// TestMappedOwner finds a v6 socket that is connected over v4.
func TestMappedOwner(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	to := unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := unix.Connect(fd, &to); err != nil {
		t.Skip(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	theirs, mine := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
	for name, lookup := range lookups {
		st, err := lookup(theirs, mine)
		if err != nil || st.local != theirs || st.remote != mine || st.uid != uint32(os.Getuid()) || st.inode == 0 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
}

// TestClosingPeer has peers whose sockets the kernel shows as uid 0: none may be believed.
func TestClosingPeer(t *testing.T) {
	for name, leave := range map[string]func(c *net.TCPConn){
		"half-closed": func(c *net.TCPConn) { c.CloseWrite() },
		"closed":      func(c *net.TCPConn) { c.Close() },
		"reset":       func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
	} {
		for way, lookup := range lookups {
			client, server := connect(t, "127.0.0.1:0", "127.0.0.1")
			theirs, mine := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
			leave(client)
			time.Sleep(5 * time.Millisecond)
			st, err := lookup(theirs, mine)
			if err == nil {
				_, err = st.owner()
			}
			if err == nil {
				t.Errorf("%s, %s: believed: %+v", name, way, st)
			}
			if id, err := loopbackIdentity(server, false); err == nil {
				t.Errorf("%s: taken for %+v", name, id)
			}
		}
	}
}

// TestListenerIsNoPeer: without a connected socket sock_diag answers with the
// listening one.
func TestListenerIsNoPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := addrPort(l.Addr())
	if uid, err := socketOwner(at, netip.MustParseAddrPort("127.0.0.1:1")); err == nil {
		t.Errorf("a listening socket is taken for a peer of uid %d", uid)
	}
}

func TestSockStateOwner(t *testing.T) {
	for _, st := range []sockState{
		{state: tcpEstablished, uid: 0, inode: 0},
		{state: tcpEstablished, uid: 1000, inode: 0},
		{state: 4, uid: 1000, inode: 7},
		{state: 10, uid: 1000, inode: 7},
		{},
	} {
		if uid, err := st.owner(); err == nil {
			t.Errorf("%+v is %d's", st, uid)
		}
	}
}

func TestFindSocket(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0
   1: 0100007F:A000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:A001 0100007F:1F90 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
   3: 0000000000000000FFFF00000100007F:A002 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 333 1 0000000000000000 20 4 30 10 -1
   4: garbage
   5: 0100007F:A003 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  -1        0 444
`
	to := netip.MustParseAddrPort("127.0.0.1:8080")
	for port, want := range map[uint16]string{
		0xA000: "1000", 0xA001: "refused", 0xA002: "1001", 0xA003: "refused", 0xA004: "refused",
	} {
		got := "refused"
		st, err := findSocket(strings.NewReader(table), netip.AddrPortFrom(to.Addr(), port), to)
		if err == nil {
			if uid, err := st.owner(); err == nil {
				got = fmt.Sprint(uid)
			}
		}
		if got != want {
			t.Errorf("port %x: %s, want %s", port, got, want)
		}
	}
}

func TestLoopbackSquash(t *testing.T) {
	_, server := connect(t, "127.0.0.1:0", "127.0.0.1")
	me := uint32(os.Getuid())
	id, err := loopbackIdentity(server, false)
	if err != nil || id.uid != me {
		t.Errorf("%+v, %v: want uid %d", id, err, me)
	}
	id, err = loopbackIdentity(server, true)
	if me == 0 {
		me = squashed
	}
	if err != nil || id.uid != me || me == squashed && !slices.Equal(id.gids, []uint32{squashed}) {
		t.Errorf("%+v, %v: want uid %d", id, err, me)
	}
}

// TestPortOfAnother: a peer breaks its connection while its requests wait, and
// another's socket gets its port. The first is not taken for the other.
func TestPortOfAnother(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(local net.Addr) (client, server *net.TCPConn, err error) {
		d := net.Dialer{LocalAddr: local}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, nil, err
		}
		server, err = l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); server.Close() })
		return c.(*net.TCPConn), server, nil
	}
	var first, second *net.TCPConn
	for second == nil {
		var attacker *net.TCPConn
		if attacker, first, err = connect(nil); err != nil {
			t.Fatal(err)
		}
		if _, err := loopbackIdentity(first, false); err != nil {
			t.Fatal(err)
		}
		attacker.SetLinger(0)
		at := attacker.LocalAddr()
		attacker.Close()
		if _, second, err = connect(at); err != nil && !errors.Is(err, unix.EADDRINUSE) { // by a third
			t.Fatal(err)
		}
	}
	if _, err := loopbackIdentity(second, false); err != nil {
		t.Fatal(err)
	}
	if uid, err := socketOwner(addrPort(first.RemoteAddr()), addrPort(first.LocalAddr())); err != nil {
		t.Fatalf("the attack does not work: %d, %v", uid, err)
	}
	if id, err := loopbackIdentity(first, false); err == nil {
		t.Errorf("a connection that is broken is %+v's", id)
	}
}

func TestUnixIdentity(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id, err := unixIdentity(s.(*net.UnixConn))
	if err != nil || id.uid != uint32(os.Getuid()) || id.gids[0] != uint32(os.Getgid()) {
		t.Errorf("%+v, %v", id, err)
	}
	groups, _ := os.Getgroups()
	for _, g := range groups {
		if !slices.Contains(id.gids, uint32(g)) {
			t.Errorf("group %d is missing in %v", g, id.gids)
		}
	}
}

func TestAs(t *testing.T) {
	root := identity{uid: 0, gids: []uint32{0, 7}}
	user1 := identity{uid: 1000, gids: []uint32{1000, 5}}
	nobody := identity{uid: squashed, gids: []uint32{squashed}}
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Skip(err)
	}
	uid, gids, err := userIDs(daemon)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id     identity
		uname  string
		nuname uint32
		want   any
	}{
		{root, "nobody", wire.NoUID, root},
		{root, "", wire.NoUID, root},
		{root, "root", wire.NoUID, root},
		{root, "anything", 0, root},
		{root, "", uid, identity{uid, gids}},
		{root, "daemon", wire.NoUID, identity{uid, gids}},
		{root, "root", uid, identity{uid, gids}}, // n_uname wins
		{root, "no-such-user", wire.NoUID, linux.EPERM},
		{root, "", 3999999999, linux.EPERM},
		{user1, "nobody", wire.NoUID, user1},
		{user1, "", 1000, user1},
		{user1, "root", 1000, user1},
		{user1, "", 0, linux.EPERM},
		{user1, "", uid, linux.EPERM},
		{user1, "root", wire.NoUID, linux.EPERM},
		{user1, "no-such-user", wire.NoUID, linux.EPERM},
		{identity{uid: uid}, "daemon", wire.NoUID, identity{uid: uid}},
		{identity{uid: uid}, "daemon", 0, linux.EPERM},
		{nobody, "nobody", wire.NoUID, nobody},
		{nobody, "", 0, linux.EPERM},
		{nobody, "root", wire.NoUID, linux.EPERM},
		{nobody, "", squashed, nobody},
	} {
		got, err := tt.id.as(tt.uname, tt.nuname)
		if e, ok := tt.want.(linux.Errno); ok {
			if !errors.Is(err, e) {
				t.Errorf("uid %d as %q %d: %+v, %v", tt.id.uid, tt.uname, int32(tt.nuname), got, err)
			}
			continue
		}
		if want := tt.want.(identity); err != nil || got.uid != want.uid || !slices.Equal(got.gids, want.gids) {
			t.Errorf("uid %d as %q %d: %+v, %v; want %+v", tt.id.uid, tt.uname, int32(tt.nuname), got, err, want)
		}
	}
}

// TestOrigin: addresses that one peer can choose between are one origin.
func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		one, other string
		same       bool
	}{
		{"127.0.0.1", "127.255.0.3", true},
		{"127.0.0.1", "::1", false}, // one of either
		{"10.0.0.1", "10.0.0.2", false},
		{"2001:db8::1", "2001:db8:0:0:ffff::1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%lo", "fe80::2%eth0", true},
		{"::1", "::2", false},
	} {
		one, other := origin(netip.MustParseAddr(tt.one)), origin(netip.MustParseAddr(tt.other))
		if (one == other) != tt.same {
			t.Errorf("%s is from %s, %s from %s", tt.one, one, tt.other, other)
		}
	}
}
