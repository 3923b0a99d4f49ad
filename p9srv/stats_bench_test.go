package p9srv

import (
	"testing"
	"time"
)

// BenchmarkAnswered is what counting costs a request, with the look at the clock.
func BenchmarkAnswered(b *testing.B) {
	srv := New(Config{})
	b.Run("one", func(b *testing.B) {
		s := &session{srv: srv, stripe: srv.counters.stripe()}
		for b.Loop() {
			s.lap(110, nil)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			s := &session{srv: srv, stripe: srv.counters.stripe()}
			for pb.Next() {
				s.lap(110, nil)
			}
		})
	})
	if srv.Stats().Requests[0].Sum > time.Hour {
		b.Error("the clock")
	}
}
