package p9srv_test

import (
	"io"
	"testing"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
	"containerfs/subsys/debug"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestAllocations bounds what a request makes the session allocate, the File's own
// work included: what is measured is the whole process, with a client that allocates
// nothing.
func TestAllocations(t *testing.T) {
	host := hostsim.New()
	recorder := ops.NewRecorder(64 << 10)
	tr, err := tree.New(tree.Config{
		Host: host, Mirror: host.Mirror(), Observer: recorder, Subsystems: []tree.Subsystem{debug.Subsystem{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Run(tr)
	if err := tr.Resync(); err != nil {
		t.Fatal(err)
	}
	fs := ops.New(ops.Config{Tree: tr, Host: host, Recorder: recorder})
	defer fs.Close()
	if err := fs.Mount("m", "debug"); err != nil {
		t.Fatal(err)
	}
	conn := p9test.Dial(t, p9test.Serve(t, p9srv.Config{Attacher: fs}))
	w := p9test.NewWire(t, conn)
	w.Script(`
		Tversion ~ 65536 9P2000.L
		Rversion ~ 65536 "9P2000.L"
		Tattach 1 0 ~ "" m ~
		Rattach...`)
	w.Send("Twalk 1 0 5 notify_on_release", "Tlopen 1 5 0")
	w.Want("Rwalk...", "Rlopen...")

	for _, test := range []struct {
		name    string
		request []string
		size    int     // of the replies
		most    float64 // allocations, of all of the request's messages
	}{
		{"getattr", []string{"Tgetattr 1 0 0x7ff"}, 7 + 153, 0},
		{"read", []string{"Tread 1 5 0 4096"}, 7 + 4 + 2, 0},
		// The name, the node that it is of, the qids, the file, its fid and its content.
		{"walk+open+read+clunk", []string{"Twalk 1 0 9 notify_on_release", "Tlopen 2 9 0", "Tread 3 9 0 4096", "Tclunk 4 9"},
			7 + 2 + 13 + 7 + 17 + 7 + 4 + 2 + 7, 6},
	} {
		const batch = 32
		var out []byte
		for range batch {
			for _, m := range test.request {
				f, err := p9test.Encode(m)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, f...)
			}
		}
		in := make([]byte, batch*test.size)
		got := testing.AllocsPerRun(200, func() {
			if _, err := conn.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, in); err != nil {
				t.Fatal(err)
			}
		}) / batch
		t.Logf("%s: %.2f", test.name, got)
		if got > test.most+0.2 { // what the runtime does beside, and pools that were emptied
			t.Errorf("%s allocates %.2f times, want at most %.0f", test.name, got, test.most)
		}
	}
}
