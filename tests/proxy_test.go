package tests

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

// TestProxyOnStandardInput: what has a client on standard input and output ends with it, and with
// the server, though the client sends nothing by then and may have one socket as both. It leaves a
// terminal alone.
func TestProxyOnStandardInput(t *testing.T) {
	s := startServer(t)
	start := func() (end *exec.Cmd, ours net.Conn) {
		t.Helper()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[1]), "theirs")
		defer theirs.Close()
		mine := os.NewFile(uintptr(pair[0]), "mine")
		defer mine.Close()
		if ours, err = net.FileConn(mine); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ours.Close() })
		cmd := exec.Command("containerfs", "proxy", "-", "unix://"+s.sock)
		cmd.Stdin, cmd.Stdout = theirs, theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		root, err := attach(ours, "")
		if err != nil {
			t.Fatal(err)
		}
		if names, err := (&client{t, root}).names("/"); err != nil || len(names) == 0 {
			t.Errorf("there are %q, %v", names, err)
		}
		return cmd, ours
	}
	ends := func(when string, cmd *exec.Cmd) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		waitFor(t, "the proxy to end, "+when, func() bool { return len(done) > 0 })
		if err := <-done; err != nil {
			t.Errorf("%s the proxy ended with %v", when, err)
		}
	}
	cmd, ours := start()
	ours.Close()
	ends("when its client had hung up", cmd)
	cmd, _ = start()
	cmd.Process.Signal(syscall.SIGTERM)
	ends("when it was told to", cmd)

	p := startInTerminal(t, s, "containerfs", "proxy", "-")
	<-p.read
	if text := p.text.String(); !strings.Contains(text, "a terminal") {
		t.Errorf("in a terminal it says %q", text)
	}
	p.cmd.Wait()

	cmd, _ = start()
	s.kill9()
	ends("when the server was killed", cmd)
}
