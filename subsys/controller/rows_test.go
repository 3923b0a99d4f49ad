package controller

import (
	"slices"
	"testing"

	"containerfs/tree/kernfs"
)

// TestCoreRows: of version 2's own files those are shown that move nobody, and that one kills
// is said.
func TestCoreRows(t *testing.T) {
	var files []kernfs.File
	for _, name := range []string{"cgroup.procs", "cgroup.kill", "cgroup.threads", "cgroup.freeze", "cgroup.subtree_control", "cgroup.type", "memory.kill"} {
		files = append(files, kernfs.File{Name: name, Reads: name != "cgroup.kill", Writes: true})
	}
	var names, kill []string
	for _, row := range (&Subsystem{name: Core}).rows(files) {
		names = append(names, row.Name)
		if row.Kills {
			kill = append(kill, row.Name)
		}
	}
	if !slices.Equal(names, []string{"freeze", "kill"}) || !slices.Equal(kill, []string{"kill"}) {
		t.Errorf("files %q, of which %q kill", names, kill)
	}
	for _, row := range (&Subsystem{name: "memory"}).rows(files) {
		if row.Kills {
			t.Errorf("memory.%s kills", row.Name)
		}
	}
}
