package p9srv_test

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// rounds sends a batch of requests in one write, waits for its replies, and does
// so until there were n operations, perBatch at a time.
func rounds(b *testing.B, conn net.Conn, batch []string, perBatch, n int) {
	var out []byte
	for _, m := range batch {
		f, err := p9test.Encode(m)
		if err != nil {
			b.Error(err)
			return
		}
		out = append(out, f...)
	}
	in := make([]byte, 64<<10)
	for done := 0; done < n; done += perBatch {
		if _, err := conn.Write(out); err != nil {
			b.Error(err)
			return
		}
		have := 0
		for got := 0; got < len(batch); {
			n, err := conn.Read(in[have:])
			if err != nil {
				b.Error(err)
				return
			}
			p := in[:have+n]
			for len(p) >= 4 {
				size := int(p[0]) | int(p[1])<<8 | int(p[2])<<16
				if len(p) < size {
					break
				}
				if p[4] == 7 {
					b.Error(p9test.Decode(p[:size]))
					return
				}
				p = p[size:]
				got++
			}
			have = copy(in, p)
		}
	}
}

// BenchmarkSession measures operations of so many connections with so many outstanding
// each, over loopback TCP and the tree in memory; the clients are in the same process.
// Slot i of a batch has fids and tags of its own.
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
		for _, load := range []struct{ conns, depth int }{{1, 1}, {1, 32}, {8, 8}} {
			b.Run(fmt.Sprintf("%s/%dx%d", bm.name, load.conns, load.depth), func(b *testing.B) {
				tree := p9test.NewTree()
				tree.Put("f", []byte("0-3\n"))
				_, addr := p9test.ServeAt(b, p9srv.Config{Attacher: tree}, p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"})
				conns := make([]net.Conn, load.conns)
				batches := make([][]string, load.conns)
				for c := range conns {
					conns[c] = p9test.Dial(b, addr)
					w := p9test.NewWire(b, conns[c])
					w.Script(`
						Tversion ~ 65536 9P2000.L
						Rversion ~ 65536 "9P2000.L"
						Tattach 1 0 ~ "" "" ~
						Rattach 1 d1`)
					for i := range load.depth {
						w.Send(fmt.Sprintf("Tmkdir 1 0 c%d.%d 0755 0", c, i))
						w.Want("Rmkdir...")
						w.Send(fmt.Sprintf("Twalk 1 0 %d f", 1000+i), fmt.Sprintf("Tlopen 1 %d 2", 1000+i),
							fmt.Sprintf("Twalk 1 0 %d c%d.%d", 2000+i, c, i))
						w.Want("Rwalk...", "Rlopen...", "Rwalk...")
						batches[c] = append(batches[c], bm.slot(i)...)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				var clients sync.WaitGroup
				for c := range conns {
					clients.Go(func() { rounds(b, conns[c], batches[c], load.depth, b.N/load.conns) })
				}
				clients.Wait()
			})
		}
	}
}
