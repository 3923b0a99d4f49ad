package p9srv

import "testing"

// BenchmarkCount is what counting costs a request of a batch of so many.
func BenchmarkCount(b *testing.B) {
	srv := New(Config{})
	for name, batch := range map[string]int{"1": 1, "32": 32} {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				s := &session{srv: srv, stripe: srv.counters.stripe()}
				for i := 1; pb.Next(); i++ {
					if s.count(110, nil); i%batch == 0 {
						s.countBatch()
					}
				}
			})
		})
	}
}
