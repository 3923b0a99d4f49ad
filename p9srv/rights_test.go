package p9srv_test

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

// TestDescriptorsAreRefused: nothing that a peer sends with his requests reaches a
// listener of either kind, or it says that this kernel cannot help it.
func TestDescriptorsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	inherited := socketFile(t, "unix", path+"2")
	for _, e := range []p9srv.Export{
		{Addr: p9srv.Addr{Network: "unix", Address: path}},
		{Addr: p9srv.Addr{Network: "unix", Address: path + "2"}, Socket: inherited},
	} {
		l, err := p9srv.Listen(e)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var said strings.Builder
		l.Announce(slog.New(slog.NewTextHandler(&said, nil)))
		c, err := net.Dial("unix", e.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _, err = c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(inherited.Fd())), nil)
		if warned := strings.Contains(said.String(), "takes descriptors"); warned != (err == nil) {
			t.Errorf("%s: sent with %v, and the listener says\n%s", e.Address, err, &said)
		}
	}
}
