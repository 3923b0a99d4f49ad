package ops

import (
	"fmt"
	"log/slog"
	"testing"

	"containerfs/ops/store"
	"containerfs/tree"
)

// BenchmarkRestore opens and restores a state of so many containers, each with a
// setting of two subsystems.
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			w := keptWorld(b, dir)
			w.mount("mount m alpha,beta")
			k := w.as(root)
			k.must(k.mkdir("m/a"))
			k.must(k.write("m/a/alpha.value", "12345\n"))
			k.must(k.write("m/a/beta.value", "67890\n"))
			c := w.container("m/a")
			var row []byte
			w.tree.View(func() { row = w.fs.containerRow(c) })
			_, kept, _, err := readContainerRow(c.ID(), row)
			if err != nil {
				b.Fatal(err)
			}
			// As many more of it, a hundred in each.
			name := []byte{byte(len(kept.Name))}
			name = append(name, kept.Name...)
			rest := row[1+len(name):]
			for i := range n {
				id := c.ID() + 1 + uint64(i)
				var r rowWriter
				r.num(max(c.ID(), c.ID()+uint64(i)/100))
				r.text(fmt.Sprint("container", i))
				r.b = append(r.b, rest...)
				w.fs.journal.store.Put(store.Key{Bucket: store.Containers, Num: id}, r.b, nil)
			}
			if err := w.fs.journal.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				j, err := OpenJournal(dir, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				j.Anchor(true)
				recorder := NewRecorder(64 << 10)
				tc := tree.Config{Host: w.host, Mirror: w.host.Mirror(), Observer: recorder, Keeper: j}
				for _, s := range fakes() {
					tc.Subsystems = append(tc.Subsystems, s)
				}
				t, err := tree.New(tc)
				if err != nil {
					b.Fatal(err)
				}
				fs := New(Config{Tree: t, Host: w.host, Recorder: recorder, Journal: j})
				done, err := fs.Restore(map[uint64]bool{})
				if err != nil || done.Containers != n+1 {
					b.Fatal(done, err)
				}
				b.StopTimer()
				if err := t.Check(); err != nil {
					b.Fatal(err)
				}
				fs.Close()
				j.Close()
				b.StartTimer()
			}
		})
	}
}
