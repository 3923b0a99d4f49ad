package numtasks

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
			return New(&machine128{Host: sim}, slog.New(slog.DiscardHandler))
		},
		Values:     []subsystest.Write{{File: "shares", Text: "min_shares=3,max_shares=50"}, {File: "policy", Text: "kill"}},
		RootValues: []subsystest.Write{{File: "shares", Text: "child_shares_divisor=90"}, {File: "policy", Text: "kill"}},
	})
}
