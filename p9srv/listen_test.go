package p9srv_test

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

// TestSocketModeFromTheStart: nothing is done by the path of a socket once it is there, and
// whose the directory is can have put something else there.
func TestSocketModeFromTheStart(t *testing.T) {
	umask := unix.Umask(0o027)
	defer unix.Umask(umask)
	for _, tt := range []struct {
		name   string
		listen func(path string) (net.Listener, error)
		mode   os.FileMode
	}{
		{"for all", func(path string) (net.Listener, error) {
			return p9srv.ListenLocal(p9srv.Addr{Network: "unix", Address: path})
		}, 0o666},
		{"for one", p9srv.ListenOwn, 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(watch)
			if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE|unix.IN_ATTRIB); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "socket")
			l, err := tt.listen(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if st, err := os.Lstat(path); err != nil || st.Mode() != os.ModeSocket|tt.mode {
				t.Errorf("the socket: %v, %v; want the mode %v", st, err, tt.mode)
			}
			events := make([]byte, 4096)
			n, err := unix.Read(watch, events)
			if err != nil {
				t.Fatal(err)
			}
			if n != unix.SizeofInotifyEvent+16 || !bytes.Contains(events[:n], []byte("socket\x00")) {
				t.Errorf("events of more than the making of the socket: %q", events[:n])
			}
			if now := unix.Umask(0o027); now != 0o027 {
				t.Errorf("the umask is %04o afterwards", now)
			}
		})
	}
}

// TestListenOpen: who writes an IPv4 address is not listened for on IPv6.
func TestListenOpen(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:0": "0.0.0.0", "[::]:0": "::", ":0": "::"} {
		l, err := p9srv.ListenOpen(p9srv.Addr{Network: "tcp", Address: address})
		if err != nil && want == "::" {
			t.Logf("%v: is there IPv6?", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if host, _, _ := net.SplitHostPort(l.Addr().String()); host != want {
			t.Errorf("%s is %s", address, l.Addr())
		}
		l.Close()
	}
}
