package cpuset

import (
	"log/slog"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestConformance(t *testing.T) {
	subsystest.Run(t, subsystest.Setup{
		New: func(sim *hostsim.Host) tree.Subsystem {
			return New(&simMachine{
				sim:    sim,
				online: [resources]Set{NewSet(0, 1, 2, 3), NewSet(0, 1)},
				masks:  map[int32]Set{},
			}, slog.New(slog.DiscardHandler))
		},
		Ready:      []subsystest.Write{{File: "cpus", Text: "0-2"}, {File: "mems", Text: "0-1"}},
		Values:     []subsystest.Write{{File: "cpus", Text: "1"}, {File: "mems", Text: "1"}, {File: "memory_migrate", Text: "1"}},
		RootValues: []subsystest.Write{{File: "cpu_exclusive", Text: "0"}, {File: "memory_migrate", Text: "1"}},
	})
}
