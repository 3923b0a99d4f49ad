package debug

import (
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestConformance(t *testing.T) {
	subsystest.Run(t, subsystest.Setup{
		New:      func(*hostsim.Host) tree.Subsystem { return Subsystem{} },
		Volatile: []string{"current_css_group_refcount"}, // of who shares the server's group
	})
}
