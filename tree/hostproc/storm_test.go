package hostproc

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"containerfs/tree/hostproc/storm"
)

func stormCommand(t testing.TB, p storm.Params) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"storm"}, p.Args()...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// A child made with CLONE_PARENT names its maker's parent as its own, which is
// why events alone cannot place it.
func TestStormParents(t *testing.T) {
	h := connected(t, Options{})
	r := newRecorder()
	h.Start(r)
	for _, share := range []int{0, 100} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			p := storm.Params{Forks: 400, Workers: 2, Stem: 8, Depth: 4, Life: time.Millisecond, Parent: share, Threads: 20, Seed: 3}
			cmd := stormCommand(t, p)
			root := int32(cmd.Process.Pid)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			h.Drain()
			r.mu.Lock()
			defer r.mu.Unlock()
			storms, direct, threads := 0, 0, 0
			family := map[int32]bool{root: true}
			for again := true; again; {
				again = false
				for tid, f := range r.born {
					if tid == root || family[tid] || !family[f.ParentTGID] {
						continue
					}
					family[tid], again = true, true
					storms++
					if f.ParentTGID == root {
						direct++
					}
				}
			}
			for tid, f := range r.born {
				if f.TGID == root && tid != root {
					threads++
				}
			}
			if threads == 0 {
				t.Error("no thread")
			}
			if storms != p.Forks {
				t.Errorf("%d processes, want %d", storms, p.Forks)
			}
			if share == 100 && direct != storms || share == 0 && direct > storms/4 {
				t.Errorf("%d of %d are children of the first process", direct, storms)
			}
			t.Logf("%d processes, %d children of the first, %d threads", storms, direct, threads)
		})
	}
}
