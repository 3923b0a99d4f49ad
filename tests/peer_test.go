package tests

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to the server's unix socket.
func (s *server) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("unix", s.sock)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func (s *server) dialTCP() *net.TCPConn {
	s.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// openFiles counts the server's descriptors: a connection that is left behind
// is one of them.
func (s *server) openFiles() int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// TestHalfClosedPeer: the kernel shows a socket that is closing as root's. Its
// attach must be refused.
func TestHalfClosedPeer(t *testing.T) {
	s := startServer(t)
	for _, closing := range []bool{false, true} {
		conn := s.dialTCP()
		defer conn.Close()
		conn.Write(versionFrame())
		if _, _, err := readFrame(t, conn); err != nil {
			t.Fatal(err)
		}
		if closing {
			// The cork holds the attach back until the FIN goes with it, so that
			// the server can never see the one without the other.
			cork(t, conn)
		}
		conn.Write(attachFrame(1, 0, "all"))
		if closing {
			conn.CloseWrite()
		}
		kind, _, err := readFrame(t, conn)
		switch {
		case !closing && (err != nil || kind != rattach):
			t.Fatalf("a whole peer's attach was answered with message %d, %v", kind, err)
		case closing && err == nil && kind != rlerror:
			t.Errorf("a closing peer's attach was answered with message %d", kind)
		}
	}
	s.run("ls", "/all")
}

func cork(t testing.TB, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOrphanedPeer: somebody who may not make containers sends the request and
// closes at once. If the orphaned socket were taken for root's, there would be
// a container.
func TestOrphanedPeer(t *testing.T) {
	s := startServer(t)
	request := slices.Concat(versionFrame(), attachFrame(1, 0, "all"),
		frame(tmkdir, 2, uint32(0), "orphan", uint32(0o755), uint32(0)))
	var escaped strings.Builder
	for _, b := range request {
		fmt.Fprintf(&escaped, `\x%02x`, b)
	}
	as := func(uid uint32, loop, then string) {
		c := exec.Command("bash", "-c", fmt.Sprintf(
			`for i in %s; do exec 3<>/dev/tcp/127.0.0.1/%s; printf '%s' >&3; %s; exec 3>&-; done`, loop, s.port, escaped.String(), then))
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		c.CombinedOutput() // a refused connection is fine
	}
	// Root does make one, if it waits for the answers: so the request is right.
	const answers = 21 + 20 + 20 // bytes of Rversion, Rattach and Rmkdir
	as(0, "1", fmt.Sprintf("timeout 60 head -c %d <&3 >/dev/null", answers))
	s.run("rmdir", "/all/orphan")
	as(65534, "{1..300}", ":")
	if got := s.run("ls", "/all"); strings.Contains(got, "orphan") {
		t.Errorf("nobody made a container:\n%s", got)
	}
}

// TestVanishingClient cuts a conversation at every byte. Nothing is left of
// what was in the middle: no connection, no hierarchy that an attach made.
func TestVanishingClient(t *testing.T) {
	s := startServer(t, "--hierarchy", "cpu=cpuset")
	conversation := slices.Concat(
		versionFrame(),
		attachFrame(1, 0, "debug"), // not mounted: this mounts it
		frame(twalk, 2, uint32(0), uint32(1), uint16(1), "tasks"),
		frame(tlopen, 3, uint32(1), uint32(2)),
		frame(tread, 4, uint32(1), uint64(0), uint32(4096)),
		frame(twrite, 5, uint32(1), uint64(0), uint32(7), []byte("garbage")),
		frame(twalk, 6, uint32(0), uint32(2), uint16(0)),
		frame(tlopen, 7, uint32(2), uint32(0)),
		frame(tclunk, 8, uint32(1)),
	)

	// The whole conversation does mount; else the rest would prove nothing.
	ctl := s.run("read", "/ctl")
	files := s.openFiles()
	conn := s.dial()
	conn.Write(conversation)
	for range 8 {
		if _, _, err := readFrame(t, conn); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.run("read", "/ctl"); !strings.Contains(got, "debug") {
		t.Fatalf("attach to debug mounted nothing; ctl says\n%s", got)
	}
	conn.Close()

	for cut := range len(conversation) {
		tcp := s.dialTCP()
		tcp.Write(conversation[:cut])
		tcp.SetLinger(0) // gone without a word
		tcp.Close()
		local := s.dial()
		local.Write(conversation[:cut])
		local.Close()
	}
	waitFor(t, "what the clients left to go", func() bool {
		return s.run("read", "/ctl") == ctl && s.openFiles() <= files
	})
}
