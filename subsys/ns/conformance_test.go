package ns

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
			return New(&namespaces{sim: sim}, slog.New(slog.DiscardHandler))
		},
	})
}
