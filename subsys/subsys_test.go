package subsys

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"containerfs/subsys/cpuacct"
	"containerfs/subsys/numtasks"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestAll makes a Tree of all subsystems, on the real machine: names and files
// fit into what a Tree takes, in the order that canonical names depend on.
func TestAll(t *testing.T) {
	all, err := All(Config{Log: slog.New(slog.DiscardHandler), Enable: []string{"ns"}})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.New(tree.Config{Host: hostsim.New(), Subsystems: all})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(tr.SubsystemNames(), " "), "cpuset cpuacct debug ns numtasks bc"; got != want {
		t.Errorf("registered %q, want %q", got, want)
	}
	for _, s := range all {
		if e, ok := s.(Enforcer); ok {
			e.Enforce()
		}
		if c, ok := s.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("%s: %v", s.Name(), err)
			}
		}
	}
}

// What is optional is missing without a word: these are all that the two, or the kernel's
// controller below them, have.
var (
	_ interface {
		subsystem
		tree.CanBinder
		tree.CanAttacher
		tree.ProcessMover
		tree.Reattacher
		tree.Mover
		tree.PostCloner
		tree.Saver
	} = new(kernelCpuset)
	_ interface {
		subsystem
		tree.CanBinder
		tree.ProcessMover
		tree.Reattacher
		tree.Mover
		tree.Saver
		Measurer
	} = new(kernelCpuacct)
	_ Measurer = new(cpuacct.Subsystem)
	_ Measurer = new(numtasks.Subsystem)
)
