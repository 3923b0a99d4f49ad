package p9srv_test

import (
	"encoding/binary"
	"io"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestFidsThatWere: a connection that had as many fids as it may, and has clunked them, costs
// what one does that never had any. A mount that `find` has gone through is there for months.
func TestFidsThatWere(t *testing.T) {
	const conns, fids, window = 2, 1 << 16, 64
	_, a := start(t, p9srv.Config{})
	clients := make([]rawClient, conns)
	for i := range clients {
		clients[i] = newRawClient(t, a)
		clients[i].hello(t)
		clients[i].rpc(t, "Twalk 1 0 1")
		clients[i].rpc(t, "Tclunk 1 1")
	}
	before := inuse()
	each := func(c rawClient, message string) {
		t.Helper()
		frame, err := p9test.Encode(message)
		if err != nil {
			t.Fatal(err)
		}
		at := len(frame) - 4
		if message[:5] == "Twalk" {
			at -= 2 // before the number of names
		}
		for first := uint32(1); first < fids; first += window {
			var out []byte
			n := min(window, fids-first)
			for i := range n {
				binary.LittleEndian.PutUint16(frame[5:], uint16(i))
				binary.LittleEndian.PutUint32(frame[at:], first+i)
				out = append(out, frame...)
			}
			if _, err := c.Write(out); err != nil {
				t.Fatal(err)
			}
			for range n {
				var head [7]byte
				if _, err := io.ReadFull(c, head[:]); err != nil {
					t.Fatal(err)
				}
				if head[4] != frame[4]+1 {
					t.Fatalf("%s: a reply of type %d", message, head[4])
				}
				io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint32(head[:])-7))
			}
		}
	}
	for _, c := range clients {
		each(c, "Twalk 0 0 0")
		each(c, "Tclunk 0 0")
	}
	grown := int64(inuse()) - int64(before)
	t.Logf("%d bytes more for each of %d connections", grown/conns, conns)
	if grown > conns*256<<10 {
		t.Errorf("%d connections without fids cost %d KiB more than before they had some", conns, grown>>10)
	}
	for _, c := range clients {
		c.rpc(t, "Tgetattr 1 0 ~")
	}
}
