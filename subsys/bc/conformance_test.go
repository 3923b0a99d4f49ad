package bc

import (
	"log/slog"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestConformance(t *testing.T) {
	subsystest.Run(t, subsystest.Setup{
		New: func(*hostsim.Host) tree.Subsystem {
			return New(&usages{measures: everything}, slog.New(slog.DiscardHandler))
		},
		Values:     []subsystest.Write{{File: "numfile.barrier", Text: "5"}, {File: "numfile.limit", Text: "6"}},
		Volatile:   []string{"resources"}, // has the container's number
		RootValues: []subsystest.Write{{File: "numproc.barrier", Text: "500"}},
	})
}
