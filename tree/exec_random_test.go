package tree_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"containerfs/tree"
)

var windows = flag.Int("tree.windows", 400, "how many attaches in whose windows random things happen, from -tree.seed on")

// TestRandomWindows does random things in the windows of an attach to a process whose
// threads exit and execute programs.
func TestRandomWindows(t *testing.T) {
	for n := range uint64(*windows) {
		seed := *seed + n
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomWindow(t, seed) })
		})
	}
}

func randomWindow(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	mirror := r.IntN(5) > 0
	f := newFixture(t, mirror, plain("a"), plain("b"))
	f.host.Swap = mirror && r.IntN(3) == 0
	x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
	p := f.host.Fork(1)
	threads := []int32{p}
	for range r.IntN(4) {
		threads = append(threads, f.host.Thread(p))
	}
	f.Drain()
	for _, tid := range threads {
		if r.IntN(3) == 0 {
			_ = f.Attach(tree.AttachRequest{To: y, ID: tid})
		}
		if r.IntN(4) == 0 {
			_ = f.Attach(tree.AttachRequest{To: x, ID: tid})
		}
	}
	f.Drain()
	var log []string
	executed := int32(0) // the number that who executes a program has given up
	any := func() int32 { return threads[r.IntN(len(threads))] }
	loading := false // no code of the process runs
	act := func() {
		if loading && r.IntN(2) == 0 {
			loading = false
			log = append(log, "loaded")
			f.host.ReleaseExecs()
		}
		switch r.IntN(9) {
		case 0, 1:
			if executed != 0 || len(threads) < 2 {
				return
			}
			loading = true
			f.host.HoldExecs()
			if r.IntN(3) == 0 {
				f.host.HoldExits()
				log = append(log, "hold,")
			}
			k := any()
			if !mirror {
				k = p
			}
			log = append(log, fmt.Sprint("exec ", k))
			f.host.Exec(k)
			executed = k
		case 2:
			k := any()
			if loading {
				return
			}
			c := f.host.Thread(k)
			log = append(log, fmt.Sprint("thread ", k, c))
			if c != 0 {
				threads = append(threads, c)
			}
		case 3, 4:
			k := any()
			if loading {
				return
			}
			c := f.host.Fork(k)
			log = append(log, fmt.Sprint("fork ", k, c))
		case 5:
			k := any()
			log = append(log, fmt.Sprint("exit ", k))
			if k != p {
				f.host.Exit(k)
			}
		case 6:
			f.host.HoldExits()
			log = append(log, "hold")
		case 7:
			f.host.ReleaseExits()
			log = append(log, "release")
		case 8:
			// Numbers do not wrap while a program is loaded: what that would do is left to the audit.
			if k := any(); r.IntN(3) == 0 && k != executed {
				c := f.host.ForkAs(1, k)
				log = append(log, fmt.Sprint("reuse ", k, c))
			}
		}
	}
	left := 1 + r.IntN(4)
	maybe := func(what string) {
		if left > 0 && r.IntN(4) == 0 {
			left--
			log = append(log, what+":")
			act()
		}
	}
	f.host.During = func(tid int32) {
		g, _ := f.host.Group(tid)
		log = append(log, fmt.Sprintf("<%d to %d>", tid, g))
		maybe(fmt.Sprint("moved ", tid))
	}
	f.host.Looked = func(tid int32) { maybe(fmt.Sprint("looked ", tid)) }
	f.host.Fail = func(op string, tid int32) error { maybe(fmt.Sprint(op, " ", tid)); return nil }
	id, process := any(), r.IntN(3) > 0
	err := f.Attach(tree.AttachRequest{To: x, ID: id, Process: process})
	log = append(log, fmt.Sprintf("attach %d, process %v: %v", id, process, err))
	f.host.During, f.host.Looked, f.host.Fail = nil, nil, nil
	f.host.ReleaseExits()
	f.host.ReleaseExecs()
	f.Drain()
	if mirror {
		if err := f.CheckMirror(f.host.TIDs()); err != nil {
			t.Errorf("%v\nmirror %v %v", err, threads, log)
		}
	}
}
