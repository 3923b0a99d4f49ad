package p9srv_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestAllowance: many connections of one account that take nothing have no more than
// it may have together; another of the account goes on, since they are hung up on.
func TestAllowance(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow=%v", slow), func(t *testing.T) {
			p9srv.SetPatience(t, 100*time.Millisecond)
			log := new(syncBuffer)
			t.Cleanup(func() { // after the server's end
				if strings.Contains(log.String(), "accounted for") {
					t.Error("an account ends with replies that nobody has")
				}
			})
			const most = 4 << 20
			tree, a := start(t, p9srv.Config{
				MaxUnsent: most, WriteTimeout: time.Hour,
				Logger: slog.New(slog.NewTextHandler(log, nil)),
			})
			tree.Put("big", make([]byte, 1<<20))
			tree.SetSlow(func(name string) bool { return slow && name == "big" })
			idle := dial(t, a) // has taken all its replies
			idle.Script(hello)
			before := inuse()
			const many = 40
			var wires []*p9test.Wire
			var flooding sync.WaitGroup
			for range many {
				wires = append(wires, bigOpen(t, a))
			}
			for _, w := range wires {
				flooding.Go(func() {
					for tag := range 64 {
						b, _ := p9test.Encode(fmt.Sprintf("Tread %d 1 0 1048576", tag))
						if _, err := w.Write(b); err != nil {
							return
						}
					}
				})
			}
			flooding.Wait()
			grown := growth(before, 5)
			t.Logf("%d connections that take nothing: %d KiB", many, grown>>10)
			// Beside the replies each has a buffer of requests, and what it is itself.
			// Unbounded it would be 2.5 GiB.
			if grown > 16*most+many*100<<10 {
				t.Errorf("memory grew by %d KiB", grown>>10)
			}
			honest := dial(t, a)
			honest.Script(hello)
			for range 100 {
				honest.Script("Tgetattr 1 0 1")
				honest.Receive()
			}
			// There is no room for it until others are gone; and on a machine that is
			// busy it may be too slow itself.
			waitFor(t, "a read of 1 MiB", func() bool {
				w := bigOpen(t, a)
				defer w.Close()
				w.Send("Tread 1 1 0 1048576")
				return strings.HasPrefix(w.Receive(), "Rread")
			})
			if !strings.Contains(log.String(), "replies were not taken") {
				t.Error("nobody was hung up on")
			}
			idle.Send("Tclunk 1 0")
			idle.Want("Rclunk 1")
		})
	}
}

// bigOpen is a connection with the file big open as fid 1.
func bigOpen(t *testing.T, a p9srv.Addr) *p9test.Wire {
	t.Helper()
	w := dial(t, a)
	w.Script(`
		Tversion ~ 1048576 9P2000.L
		Rversion ~ 1048576 "9P2000.L"
		Tattach 1 0 ~ "" "" ~
		Rattach 1 d1
		Twalk 2 0 1 big`)
	w.Receive()
	w.Send("Tlopen 3 1 0")
	w.Receive()
	return w
}
