package ops

import (
	"fmt"
	"testing"

	"github.com/hugelgupf/p9/p9"
)

func BenchmarkWalk(b *testing.B) {
	_, k := aWorld(b)
	k.must(k.mkdir("m/a/b"))
	names := []string{"m", "a", "b", "tasks"}
	b.ReportAllocs()
	for b.Loop() {
		_, f, err := k.root.Walk(names)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkGetAttr(b *testing.B) {
	_, k := aWorld(b)
	for _, path := range []string{"m/a", "m/a/alpha.value"} {
		b.Run(path, func(b *testing.B) {
			f, err := k.walk(path)
			k.must(err)
			defer f.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := f.GetAttr(p9.AttrMask{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadOfAControlFile(b *testing.B) {
	w, k := aWorld(b)
	for range 1000 {
		k.must(k.write("m/a/tasks", fmt.Sprint(w.fork(0))))
	}
	for _, name := range []string{"notify_on_release", "alpha.value", "tasks"} {
		b.Run(name, func(b *testing.B) {
			dir, err := k.walk("m/a")
			k.must(err)
			defer dir.Close()
			names, buf := []string{name}, make([]byte, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				_, f, err := dir.Walk(names)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := f.Open(p9.ReadOnly); err != nil {
					b.Fatal(err)
				}
				if _, err := f.ReadAt(buf, 0); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

func BenchmarkReaddirOf1000(b *testing.B) {
	_, k := aWorld(b)
	for i := range 1000 {
		k.must(k.mkdir(fmt.Sprint("m/a/", i)))
	}
	f, err := k.open("m/a", p9.ReadOnly)
	k.must(err)
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for offset := uint64(0); ; {
			ents, err := f.Readdir(offset, 512)
			if err != nil {
				b.Fatal(err)
			}
			if n += len(ents); len(ents) == 0 {
				break
			}
			offset = ents[len(ents)-1].Offset
		}
		if n < 1000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkMkdirRmdir(b *testing.B) {
	_, k := aWorld(b)
	dir, err := k.walk("m/a")
	k.must(err)
	defer dir.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dir.Mkdir("x", 0o755, 0, 0); err != nil {
			b.Fatal(err)
		}
		if err := dir.UnlinkAt("x", atRemovedir); err != nil {
			b.Fatal(err)
		}
	}
}
