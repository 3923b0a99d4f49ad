package ops

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"containerfs/tree"
)

// TestOneTurnEach: beside a user who asks for many changes that take their time at once, others
// wait for few of them.
func TestOneTurnEach(t *testing.T) {
	const many = 64 // as many as a connection may have outstanding
	for _, tt := range []struct {
		name string
		do   func(al *client, round int, pid int32) error
	}{
		{"writes", func(al *client, round int, _ int32) error { return al.write("m/a/alpha.value", "1") }},
		{"moves", func(al *client, round int, pid int32) error {
			return al.write([]string{"m/a/procs", "m/a/b/procs"}[round%2], fmt.Sprint(pid))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, k := aWorld(t)
			k.must(k.mkdir("m/a/b"))
			for _, path := range []string{"m/a/alpha.value", "m/a/procs", "m/a/b/procs"} {
				k.must(k.chown(path, alice.UID, 100))
			}
			var made atomic.Int64
			slow := func() {
				made.Add(1)
				time.Sleep(time.Millisecond)
			}
			w.subs[0].attaching = slow
			w.subs[0].write = func(string) error { slow(); return nil }
			var done atomic.Bool
			var flood sync.WaitGroup
			for range many {
				al, pid := w.as(alice), w.fork(alice.UID)
				flood.Go(func() {
					for round := 0; !done.Load(); round++ {
						if err := tt.do(al, round, pid); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for made.Load() < many {
				time.Sleep(time.Millisecond)
			}
			// Between two of his own, somebody on a loaded machine can miss some.
			least := int64(math.MaxInt64)
			for i := range 8 {
				before := made.Load()
				k.must(k.mkdir(fmt.Sprintf("m/c%d", i)))
				least = min(least, made.Load()-before)
			}
			done.Store(true)
			flood.Wait()
			if least > many/2 {
				t.Errorf("of %d changes that another asks for at a time, one waits for %d", many, least)
			}
		})
	}
}

// TestMeasuredInTurn: what is measured for a read is so for one of a user's at a time, and others
// do not wait for it.
func TestMeasuredInTurn(t *testing.T) {
	for _, name := range []string{"sum", "fetched"} {
		t.Run(name, func(t *testing.T) { testMeasuredInTurn(t, name) })
	}
}

func testMeasuredInTurn(t *testing.T, name string) {
	w, k := aWorld(t, func(_ *Config, tc *tree.Config) {
		alpha := tc.Subsystems[0].(*fake)
		alpha.files = append(alpha.files, "fetched")
	})
	var all atomic.Int64
	gate := make(chan struct{})
	w.subs[0].measuring = func() {
		all.Add(1)
		<-gate
	}
	var readers sync.WaitGroup
	read := func(c *client) {
		readers.Go(func() {
			if _, err := c.read("m/a/alpha." + name); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		read(w.as(alice))
	}
	for all.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	read(w.as(bob))
	for all.Load() == 1 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := all.Load(); n != 2 {
		t.Errorf("%d are measured at once for two users", n)
	}
	for range 2 {
		read(k) // who is privileged waits for nobody
	}
	for all.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	readers.Wait()
	if n := all.Load(); n != 11 {
		t.Errorf("measured %d times for 11 reads", n)
	}
}

// TestTurnsEnd: what is known of a user ends with his last change.
func TestTurnsEnd(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chown("m/a/alpha.value", alice.UID, 100))
	al := w.as(alice)
	al.must(al.write("m/a/alpha.value", "1"))
	if n := len(w.fs.turns.of); n != 0 {
		t.Errorf("%d turns are left", n)
	}
}
