package tests

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"containerfs/p9srv/p9test"
)

// TestProxy: a client that can speak neither TLS nor present a certificate is
// the certificate's user behind a proxy, and the proxy ends when it is told to.
func TestProxy(t *testing.T) {
	ca := p9test.NewAuthority(t)
	server, client := ca.Server(), ca.Client("containerfs:user:daemon")
	s := startServer(t, "--listen", "tls://127.0.0.1:0?cert="+server.Cert+"&key="+server.Key+"&ca="+server.CA)
	s.run("mkdir", "-m", "777", "/all/open")
	var tlsPort string
	for line := range strings.Lines(s.log.String()) {
		if at, is := strings.CutPrefix(line, "listening on tls://"); is {
			tlsPort, _, _ = strings.Cut(strings.TrimSpace(at), "?")
		}
	}
	sock := filepath.Join(t.TempDir(), "p.sock")
	// A proxy that was killed has left its socket.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: sock})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	startProxy(t, sock, "tls://"+tlsPort+"?cert="+client.Cert+"&key="+client.Key+"&ca="+client.CA)
	for range 3 {
		if code, out := commandAs(t, 0, "unix://"+sock, "ls", "/all/open"); code != ok {
			t.Errorf("ls: exit code %d\n%s", code, out)
		}
	}
	if code, out := commandAs(t, 0, "unix://"+sock, "mkdir", "/all/open/x"); code != ok {
		t.Errorf("mkdir: exit code %d\n%s", code, out)
	}
	if code, _ := commandAs(t, 0, "unix://"+sock, "mkdir", "/all/x"); code != notPermitted {
		t.Errorf("what the certificate's user may not: exit code %d, want %d", code, notPermitted)
	}
	if code, _ := commandAs(t, 1, "unix://"+sock, "ls", "/"); code != notPermitted {
		t.Errorf("another user can use the proxy: exit code %d, want %d", code, notPermitted)
	}
}
