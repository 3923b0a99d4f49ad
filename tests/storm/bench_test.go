package storm

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

// cpu is the time that this process has used, without its children.
func cpu(b *testing.B) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// What a fork costs: the storm alone, and the server that follows it. One
// operation is one fork.
func BenchmarkFork(b *testing.B) {
	for _, c := range []struct {
		name string
		setup
		alone bool
		mixed bool // the storm's first process is in two places: its children are looked up
	}{
		{name: "alone", alone: true},
		{name: "events", setup: setup{noMirror: true}},
		{name: "mirror"},
		{name: "mirror mixed", mixed: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			o := newOracle(b)
			var w *world
			if !c.alone {
				w = newWorld(b, c.setup)
				w.events.silent.Store(true)
			}
			p := forks(b.N)
			p.Life = time.Millisecond
			g := gather(b, o, p)
			if c.mixed {
				// Its other threads stay behind.
				if err := w.tree.Attach(tree.AttachRequest{To: w.containers[0][1], ID: g.root}); err != nil {
					b.Fatal(err)
				}
			}
			began, used := time.Now(), cpu(b)
			b.ResetTimer()
			g.begin()
			<-g.over
			if w != nil {
				w.host.Drain()
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "forks/s")
			b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/float64(b.N), "server-ns/fork")
			if w != nil {
				b.ReportMetric(float64(w.events.doubts.Load())/float64(b.N), "looked-up/fork")
			}
		})
	}
}

// From a fork to the list of its container, as who was told the pid asks for it.
func BenchmarkListed(b *testing.B) {
	w := newWorld(b, setup{})
	w.events.silent.Store(true)
	took := make([]time.Duration, 0, b.N)
	for range b.N {
		pid, err := storm.Fork(time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		w.tree.Drain()
		_, _, known := w.place(int32(pid))
		took = append(took, time.Since(began))
		if !known {
			b.Fatal("not listed")
		}
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// crowd starts so many processes and moves each n-th into a container.
func (w *world) crowd(b *testing.B, processes, n int) {
	var pids []int
	b.Cleanup(func() {
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
		}
	})
	for i := range processes {
		pid, err := storm.Fork(time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		pids = append(pids, pid)
		if i%n != 0 {
			continue
		}
		if err := w.tree.Attach(tree.AttachRequest{To: w.containers[0][1], ID: int32(pid), Process: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAudit compares model and mirror, with 10,000 processes in one container, and
// measures how long a change waits that comes meanwhile.
func BenchmarkAudit(b *testing.B) {
	w := newWorld(b, setup{})
	w.events.silent.Store(true)
	w.crowd(b, 10_000, 1)
	done := make(chan struct{})
	var most time.Duration
	var changes sync.WaitGroup
	changes.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			began := time.Now()
			w.tree.Change(func() error { return nil })
			most = max(most, time.Since(began))
		}
	})
	for b.Loop() {
		w.tree.Audit()
	}
	close(done)
	changes.Wait()
	b.ReportMetric(float64(most.Microseconds()), "longest-wait-µs")
}

// BenchmarkResync compares model and host after a loss, with 10,000 more processes
// than there are, half of them in a container.
func BenchmarkResync(b *testing.B) {
	const processes = 10_000
	w := newWorld(b, setup{buffer: 1})
	w.events.silent.Store(true)
	w.crowd(b, processes, 2)
	var took []time.Duration
	for b.Loop() {
		w.tree.Drain()
		for lost := w.events.lost.Load(); w.events.lost.Load() == lost; w.tree.Drain() {
			for range 300 {
				pid, err := storm.Fork(0)
				if err != nil {
					b.Fatal(err)
				}
				unix.Wait4(pid, nil, 0, nil)
			}
		}
		took = append(took, time.Duration(w.events.took.Load()))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
	b.ReportMetric(0, "ns/op") // which has the forks in it
}

// An attach of one thread that moves it, by callers at once: what the model, the looks
// at the host and the mirror's move cost without a client.
func BenchmarkAttach(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			o := newOracle(b)
			w := newWorld(b, setup{})
			w.events.silent.Store(true)
			var pids []int32
			for range callers {
				g := gather(b, o, storm.Params{})
				defer g.begin()
				pids = append(pids, g.root)
			}
			used := cpu(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, pid := range pids {
				wg.Go(func() {
					for n := i; n < b.N; n += callers {
						to := w.containers[0][1+n/callers%2]
						if err := w.tree.Attach(tree.AttachRequest{To: to, ID: pid}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}
