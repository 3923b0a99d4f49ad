package hostproc

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

func BenchmarkDrainIdle(b *testing.B) {
	h := connected(b, Options{})
	h.Start(newRecorder())
	h.Drain()
	for b.Loop() {
		h.Drain()
	}
}

// One fork, its Drain, its end, its Drain.
func BenchmarkForkDrain(b *testing.B) {
	h := connected(b, Options{})
	h.Start(newRecorder())
	var drains time.Duration
	for b.Loop() {
		pid, err := storm.Fork(0)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		h.Drain()
		drains += time.Since(began)
		unix.Wait4(pid, nil, 0, nil)
	}
	b.ReportMetric(float64(drains.Nanoseconds())/float64(b.N), "ns/drain")
}

func BenchmarkTask(b *testing.B) {
	h := polling(b)
	pid := int32(sleeper(b).Process.Pid)
	for b.Loop() {
		if _, err := h.Task(pid); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOwner(b *testing.B) {
	h := polling(b)
	pid := int32(sleeper(b).Process.Pid)
	for b.Loop() {
		if _, _, err := h.Owner(pid); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTasks(b *testing.B) {
	h := polling(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = 0
		if err := h.Tasks(0, func(tree.TaskInfo) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/task")
}
