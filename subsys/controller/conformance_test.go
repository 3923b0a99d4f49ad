package controller

import (
	"fmt"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
	"containerfs/tree/kernfs"
)

// TestConformance runs the suite on the kernel's directories, with simulated tasks in
// them.
func TestConformance(t *testing.T) {
	need(t, "pids")
	n := 0
	subsystest.Run(t, subsystest.Setup{
		New: func(sim *hostsim.Host) tree.Subsystem {
			n++
			subs, err := Open(Config{
				Names: []string{"pids"}, ID: fmt.Sprintf("test-c%d-%d", os.Getpid(), n), Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			simulate(subs[0].t, sim)
			return subs[0]
		},
		OfHost:     true,
		Values:     []subsystest.Write{{File: "max", Text: "77"}},
		RootValues: []subsystest.Write{{File: "max", Text: "78"}},
	})
}

// simulate has the tasks of a simulated host be in a trunk's directories.
func simulate(t *trunk, sim *hostsim.Host) {
	var mu sync.Mutex
	places := map[int32]string{}
	t.where = func(tid int32) (string, error) {
		if _, err := sim.Task(tid); err != nil {
			return "", err
		}
		mu.Lock()
		defer mu.Unlock()
		if at, ok := places[tid]; ok {
			return at, nil
		}
		return "/", nil
	}
	t.move = func(dir *kernfs.Dir, id int32) error {
		if _, err := sim.Task(id); err != nil {
			return err
		}
		if _, err := dir.ID(); err != nil {
			return syscall.ENODEV
		}
		mu.Lock()
		defer mu.Unlock()
		places[id] = path.Clean("/" + strings.TrimPrefix(dir.Path(), t.mount))
		return nil
	}
}
