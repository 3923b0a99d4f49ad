package tree_test

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	seed  = flag.Uint64("tree.seed", 0, "seed of the random operations, 0: a new one")
	steps = flag.Int("tree.steps", 20000, "how many random operations")
)

// TestRandomOperations compares long and short sequences with the naive model.
func TestRandomOperations(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		s := *seed
		if s == 0 {
			s = rand.Uint64()
		}
		t.Logf("-tree.seed=%d", s)
		r := rand.New(rand.NewPCG(s, 0))
		for done := 0; done < *steps; {
			n := 1 + r.IntN(120)
			w, err := newWorld(mirror, r.IntN)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.run(n); err != nil {
				t.Fatalf("after\n%s\n%v", strings.Join(w.log, "\n"), err)
			}
			done += n
		}
	})
}

// TestShrunkOperations does the same, and makes a sequence that fails short.
func TestShrunkOperations(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		rapid.Check(t, func(t *rapid.T) {
			w, err := newWorld(mirror, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
			if err != nil {
				t.Fatal(err)
			}
			if err := w.run(rapid.IntRange(1, 60).Draw(t, "steps")); err != nil {
				t.Fatalf("after\n%s\n%v", strings.Join(w.log, "\n"), err)
			}
		})
	})
}

// FuzzOperations reads the operations from bytes.
func FuzzOperations(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(true, b)
		f.Add(false, b)
	}
	f.Fuzz(func(t *testing.T, mirror bool, b []byte) {
		b = b[:min(len(b), 4000)]
		defer time.AfterFunc(time.Minute, func() { panic("it hangs") }).Stop()
		pos := 0
		w, err := newWorld(mirror, func(n int) int {
			if pos >= len(b) {
				return 0
			}
			pos++
			return int(b[pos-1]) % n
		})
		if err != nil {
			t.Fatal(err)
		}
		for pos < len(b) {
			if err := w.run(1); err != nil {
				t.Fatalf("after\n%s\n%v", strings.Join(w.log, "\n"), err)
			}
		}
	})
}
