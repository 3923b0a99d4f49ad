package p9srv

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/mdlayher/vsock"

	"containerfs/p9srv/wire"
)

// cidConn is a connection from a CID, for kernels that have no vsock.
type cidConn struct {
	net.Conn
	cid uint32
}

func (c cidConn) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: c.cid, Port: 7} }

// TestAdmitCID: who is let in on vsock, and who he is there, follows from his CID alone.
func TestAdmitCID(t *testing.T) {
	e, err := ParseExport("vsock://:1?as=daemon&allow=3&cid.4.as=root&cid.4.attach=a&cid.5.trust=uname&cid.5.access=ro")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(nil, e, nil)
	for cid, want := range map[uint32]string{0: "", 1: "", 2: "", 3: "1", 4: "0", 5: "65534", 6: "", anyCID: ""} {
		_, p, err := l.admit(cidConn{cid: cid})
		if want == "" {
			if err == nil {
				t.Errorf("CID %d is let in as %+v", cid, p)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.caller("root", 0) // not listened to, or squashed
		if err != nil || fmt.Sprint(c.UID) != want || c.Local || c.ReadOnly != (cid == 5) || (c.Confined == "a") != (cid == 4) {
			t.Errorf("CID %d is %+v, %v; want uid %s", cid, c, err, want)
		}
	}
	// What carries no identity at all is refused.
	l.export.Load().CIDs[6] = Terms{}
	_, p, err := l.admit(cidConn{cid: 6})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := p.caller("", wire.NoUID); !errors.Is(err, linux.EACCES) {
		t.Errorf("without terms: %+v, %v", c, err)
	}
}
