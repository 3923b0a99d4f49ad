package cpuacct

import (
	"log/slog"
	"syscall"
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestConformance(t *testing.T) {
	subsystest.Run(t, subsystest.Setup{
		New: func(sim *hostsim.Host) tree.Subsystem {
			// Of a host that tells of no task's end, none is waited for.
			machine := &simMachine{sim: sim, times: make(map[int32]Times), refused: syscall.EPERM}
			return New(machine, slog.New(slog.DiscardHandler))
		},
	})
}
