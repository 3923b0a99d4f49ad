package tree_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"containerfs/tree"
)

// TestEverythingAtOnce lets the host, changes and readers run at the same time;
// that nothing is torn is for the race detector and Check to say.
func TestEverythingAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		f := newFixtureWith(t, mirror, func(cfg *tree.Config) {
			cfg.Subsystems = []tree.Subsystem{plain("a"), plain("b")}
			cfg.Prompt = func() bool { return true }
		})
		roots := []*tree.Container{f.mount(1, ""), f.mount(2, "")}
		var kept []*tree.Container
		for _, r := range roots {
			for i := range 4 {
				kept = append(kept, f.mkdir(r, fmt.Sprint("kept", i)))
			}
		}
		end := time.Now().Add(300 * time.Millisecond)
		var wg sync.WaitGroup
		for n, act := range []func(r *rand.Rand){
			func(r *rand.Rand) { // the host
				tids := f.host.TIDs()
				tid := tids[r.IntN(len(tids))]
				switch {
				case len(tids) > 60 || r.IntN(4) == 0:
					f.host.Exit(tid)
				case r.IntN(4) == 0:
					f.host.Thread(tid)
				case r.IntN(6) == 0:
					f.host.Exec(tid)
				case r.IntN(4) == 0 && mirror:
					f.host.CloneParent(tid)
				default:
					f.host.Fork(tid)
				}
			},
			func(*rand.Rand) { f.host.Drain() }, // who delivers the events
			func(r *rand.Rand) {
				tids := f.host.TIDs()
				to := append(kept, roots...)[r.IntN(len(kept)+len(roots))]
				_ = f.Attach(tree.AttachRequest{To: to, ID: tids[r.IntN(len(tids))], Process: r.IntN(2) == 0, NoWait: r.IntN(2) == 0})
			},
			func(r *rand.Rand) {
				c, err := f.Mkdir(tree.MkdirRequest{Parent: kept[r.IntN(len(kept))], Name: "x"})
				if err == nil {
					tids := f.host.TIDs()
					_ = f.move(c, tids[r.IntN(len(tids))])
					_ = f.move(roots[0], tids[r.IntN(len(tids))])
					_ = f.Rmdir(c, nil)
				}
			},
			func(r *rand.Rand) {
				f.View(func() {
					c := kept[r.IntN(len(kept))]
					c.AppendTasks(nil)
					c.AppendProcesses(nil)
					c.CSSGroups()
				})
			},
			func(*rand.Rand) {
				f.Audit()
				f.Sweep(0)
				f.resync()
				time.Sleep(time.Millisecond)
			},
		} {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), 1))
				for time.Now().Before(end) {
					act(r)
				}
			})
		}
		wg.Wait()
	})
}
