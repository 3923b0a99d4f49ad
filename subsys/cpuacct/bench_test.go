package cpuacct

import (
	"os"
	"testing"
)

// BenchmarkRead is what a live task costs a read of usage, and of stat.
func BenchmarkRead(b *testing.B) {
	pid := int32(os.Getpid())
	for name, split := range map[string]bool{"usage": false, "stat": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (machine{}).Read(pid, pid, split); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen is what it costs to begin to watch.
func BenchmarkOpen(b *testing.B) {
	for _, source := range finalSources {
		b.Run(source.words, func(b *testing.B) {
			for b.Loop() {
				w, err := source.open()
				if err != nil {
					b.Skip(err)
				}
				w.close()
			}
		})
	}
}
