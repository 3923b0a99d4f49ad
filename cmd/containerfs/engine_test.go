package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"containerfs/p9srv"
)

// TestRefusedHierarchies: what no server can be leaves nothing behind, no state directory and no
// directory of a socket.
func TestRefusedHierarchies(t *testing.T) {
	for name, hs := range map[string][]hierarchy{
		"an unknown subsystem":      {{"x", "nothing"}},
		"one that is not asked for": {{"x", "pids"}},
		"one subsystem twice":       {{"x", "debug"}, {"y", "debug"}},
		"no name":                   {{"ctl", "debug"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			socket := p9srv.Addr{Network: "unix", Address: filepath.Join(dir, "run", "s")}
			err := run(t.Context(), config{
				Listen: []p9srv.Export{{Addr: socket}}, State: filepath.Join(dir, "state"), Mirror: "off", Hierarchies: hs, Stderr: io.Discard,
			})
			if exitCode(err) != exitUsage {
				t.Errorf("got %v, want it refused with exit code %d", err, exitUsage)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v, %v are left", left, err)
			}
		})
	}
}
