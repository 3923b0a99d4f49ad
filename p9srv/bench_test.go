package p9srv_test

import (
	"fmt"
	"net"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// rounds sends a batch of requests in one write, waits for its replies, and does
// so until perBatch operations at a time make b.N.
func rounds(b *testing.B, conn net.Conn, batch []string, perBatch int) {
	var out []byte
	for _, m := range batch {
		f, err := p9test.Encode(m)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, f...)
	}
	in := make([]byte, 64<<10)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += perBatch {
		if _, err := conn.Write(out); err != nil {
			b.Fatal(err)
		}
		have := 0
		for got := 0; got < len(batch); {
			n, err := conn.Read(in[have:])
			if err != nil {
				b.Fatal(err)
			}
			p := in[:have+n]
			for len(p) >= 4 {
				size := int(p[0]) | int(p[1])<<8 | int(p[2])<<16
				if len(p) < size {
					break
				}
				if p[4] == 7 {
					b.Fatal(p9test.Decode(p[:size]))
				}
				p = p[size:]
				got++
			}
			have = copy(in, p)
		}
	}
}

// BenchmarkSession measures operations in batches of a size, over a unix socket and
// the tree in memory. Slot i of a batch has fids and tags of its own.
func BenchmarkSession(b *testing.B) {
	for _, bm := range []struct {
		name string
		slot func(i int) []string
	}{
		{"getattr", func(i int) []string {
			return []string{fmt.Sprintf("Tgetattr %d 0 0x3fff", i)}
		}},
		{"walk+open+read+clunk", func(i int) []string {
			return []string{
				fmt.Sprintf("Twalk %d 0 %d f", 4*i, 100+i),
				fmt.Sprintf("Tlopen %d %d 0", 4*i+1, 100+i),
				fmt.Sprintf("Tread %d %d 0 4096", 4*i+2, 100+i),
				fmt.Sprintf("Tclunk %d %d", 4*i+3, 100+i),
			}
		}},
		{"write", func(i int) []string {
			return []string{fmt.Sprintf("Twrite %d %d 0 \"12345\\n\"", i, 1000+i)}
		}},
		{"mkdir+walk+remove", func(i int) []string {
			return []string{
				fmt.Sprintf("Tmkdir %d %d d%d 0755 0", 3*i, 2000+i, i),
				fmt.Sprintf("Twalk %d %d %d d%d", 3*i+1, 2000+i, 100+i, i),
				fmt.Sprintf("Tremove %d %d", 3*i+2, 100+i),
			}
		}},
	} {
		for _, depth := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/%d", bm.name, depth), func(b *testing.B) {
				tree := p9test.NewTree()
				tree.Put("f", []byte("0-3\n"))
				conn := p9test.Dial(b, p9test.Serve(b, p9srv.Config{Attacher: tree}))
				w := p9test.NewWire(b, conn)
				w.Script(`
					Tversion ~ 65536 9P2000.L
					Rversion ~ 65536 "9P2000.L"
					Tattach 1 0 ~ "" "" ~
					Rattach 1 d1`)
				var batch []string
				for i := range depth {
					w.Send(fmt.Sprintf("Twalk 1 0 %d f", 1000+i), fmt.Sprintf("Tlopen 1 %d 2", 1000+i),
						fmt.Sprintf("Twalk 1 0 %d", 2000+i))
					w.Want("Rwalk...", "Rlopen...", "Rwalk...")
					batch = append(batch, bm.slot(i)...)
				}
				rounds(b, conn, batch, depth)
			})
		}
	}
}
