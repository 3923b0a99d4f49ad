package storm

import (
	"fmt"
	"testing"
	"time"

	"containerfs/tree/hostproc/storm"
)

// A trial is a storm of which tasks are moved and compared all the while.
type trial struct {
	setup
	storm  storm.Params
	wholly bool          // only whole processes are moved
	lossy  bool          // events get lost: only what stands still can be compared
	late   time.Duration // how long the storm lasts already when the model starts
}

// run ends at the first look that finds differences, and returns these.
func (r trial) run(t *testing.T) (differences []string) {
	t.Helper()
	o := newOracle(t)
	var w *world
	if r.late == 0 {
		w = newWorld(t, r.setup)
	}
	g := raise(t, o, r.storm)
	if w == nil {
		time.Sleep(r.late)
		w = newWorld(t, r.setup)
	}
	pause := time.Second
	if r.lossy {
		pause = 200 * time.Millisecond
	}
	stills := 0
	began := time.Now()
	for i, next := 0, began; g.running() && len(differences) == 0; i++ {
		g.move(w, r.wholly)
		if differences = g.wrong; len(differences) > 0 {
			break
		}
		if i%4 == 3 {
			if !r.lossy {
				differences = g.compare(w)
			}
			w.tree.Sweep(0) // a directory goes at once: its tasks can still come
		}
		if len(differences) == 0 && time.Now().After(next) {
			differences = g.still(w)
			next = time.Now().Add(pause)
			stills++
		}
	}
	took := time.Since(began)
	stats, err := w.host.Stats()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %d moves, %d of single threads, %d processes did not stop, %d were killed meanwhile; %d tasks compared, %d told late; %d times all stood still; %d of %d forks looked up in the mirror; %+v",
		took.Round(time.Millisecond), g.moves, g.threadMoves, g.unstopped, g.killed, g.compared, g.late, stills,
		w.events.doubts.Load(), w.events.forks.Load(), stats)
	if len(differences) > 0 {
		return differences
	}
	g.finish(r.storm.Forks)
	w.ended()
	if lost := stats.Lost > 0; lost != r.lossy || lost != (stats.Resyncs > 1) || w.events.lost.Load() < stats.Lost {
		t.Errorf("%+v, and the model was told of %d", stats, w.events.lost.Load())
	}
	if g.moves < 5 || g.compared < 20 {
		t.Errorf("%d moves, %d tasks compared: that says nothing", g.moves, g.compared)
	}
	return nil
}

// exact fails if there is any difference.
func (r trial) exact(t *testing.T) {
	t.Helper()
	differences := r.run(t)
	for i, d := range differences {
		if i == 5 {
			t.Errorf("and %d more", len(differences)-i)
			break
		}
		t.Error(d)
	}
}

func forks(n int) storm.Params {
	p := storm.Default
	p.Forks = n
	return p
}

// withoutParent has no CLONE_PARENT.
func withoutParent(p storm.Params) storm.Params {
	p.Parent = 0
	return p
}

func TestMirror(t *testing.T) {
	trial{storm: forks(size(100_000, 1_000_000))}.exact(t)
}

// Events alone are exact where nobody uses CLONE_PARENT, and where the threads of
// a process are together.
func TestEvents(t *testing.T) {
	trial{setup: setup{noMirror: true}, storm: withoutParent(forks(size(50_000, 1_000_000))), wholly: true}.exact(t)
}

// A socket that has hardly room loses events in every gust.
func TestLoss(t *testing.T) {
	trial{setup: setup{buffer: 1}, storm: forks(size(20_000, 200_000)), lossy: true}.exact(t)
}

// The first look at the host finds it forking.
func TestLateStart(t *testing.T) {
	for i := range 3 {
		p := forks(max(size(5000, 20_000), 3000)) // it must not be over by then
		p.Seed = uint64(i)
		late := time.Duration(1+i) * 50 * time.Millisecond
		t.Run(fmt.Sprint("mirror ", i), func(t *testing.T) { trial{storm: p, late: late}.exact(t) })
		t.Run(fmt.Sprint("events ", i), func(t *testing.T) {
			trial{setup: setup{noMirror: true}, storm: withoutParent(p), wholly: true, late: late}.exact(t)
		})
	}
}
