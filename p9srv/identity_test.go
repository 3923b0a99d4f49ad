package p9srv_test

import (
	"context"
	"net"
	"os"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestAttachIdentity attaches over real sockets.
func TestAttachIdentity(t *testing.T) {
	me := uint32(os.Getuid())
	squash := me
	if me == 0 {
		squash = 65534
	}
	for _, tt := range []struct {
		addr  string
		uid   uint32
		local bool
	}{
		{"unix:///replaced", me, true},
		{"tcp://127.0.0.1:0", squash, false},
		{"tcp://127.0.0.1:0?no_root_squash", me, false},
		{"tcp://[::1]:0", squash, false},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			a, err := p9srv.ParseExport(tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			if a.Network == "unix" {
				dir, err := os.MkdirTemp("", "p9")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				a.Address = dir + "/s"
			}
			tree := p9test.NewTree()
			_, at := p9test.ServeExport(t, p9srv.Config{Attacher: tree}, a)
			w := dial(t, at)
			w.Script(`
				Tversion ~ 8192 9P2000.L
				Rversion ~ 8192 "9P2000.L"
				Tattach 1 0 ~ nobody "" ~
				Rattach 1 d1
				Tattach 1 1 ~ no-such-user "" ~
				Rlerror 1 EPERM
				Tattach 1 1 ~ "" "" 3999999999
				Rlerror 1 EPERM`)
			if c := tree.Caller(); c.UID != tt.uid || c.Local != tt.local || len(c.GIDs) == 0 {
				t.Errorf("caller is %+v, want uid %d, local %v", c, tt.uid, tt.local)
			}
			if tt.uid == 65534 {
				w.Script(`
					Tattach 1 1 ~ "" "" 0
					Rlerror 1 EPERM
					Tattach 1 1 ~ root "" ~
					Rlerror 1 EPERM`)
			}
		})
	}
}

// TestPeerThatLeaves has peers that are gone, or half gone, when their attach is
// looked at. The kernel shows their sockets as root's.
func TestPeerThatLeaves(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"half-closes": func(c *net.TCPConn) { c.CloseWrite() },
		"closes":      func(c *net.TCPConn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := p9srv.Listen(p9srv.Export{Addr: p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"}, NoRootSquash: true})
			if err != nil {
				t.Fatal(err)
			}
			// All of it happens before the server accepts.
			w := dial(t, l.Addr())
			w.Send("Tversion ~ 8192 9P2000.L", `Tattach 1 0 ~ nobody "" ~`, `Tattach 2 1 ~ "" "" 0`, "Tgetattr 3 0 1")
			leave(w.Conn.(*net.TCPConn))
			tree := p9test.NewTree()
			srv := p9srv.New(p9srv.Config{Attacher: tree})
			done := make(chan error)
			go func() { done <- srv.Serve(l) }()
			if name == "half-closes" {
				w.Want("Rversion...")
				got := map[string]bool{w.Receive(): true, w.Receive(): true, w.Receive(): true}
				if !got["Rlerror 1 EACCES"] || !got["Rlerror 2 EACCES"] || !got["Rlerror 3 EBADF"] {
					t.Errorf("got %v", got)
				}
				w.WantClosed()
			}
			// The server goes on.
			other := dial(t, l.Addr())
			other.Script(hello)
			other.Close()
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			<-done
			if c := tree.Caller(); c == nil || c.Peer == "" || tree.Attaches() != 1 {
				t.Errorf("%d attaches, the last by %+v", tree.Attaches(), c)
			}
		})
	}
}
