package main

import (
	"os"
	"path/filepath"

	"containerfs/p9srv"
)

// defaultAddr is the unix socket of serve: the host's for root, the user's own
// for others.
func defaultAddr() p9srv.Addr {
	dir := "/run"
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && filepath.IsAbs(runtime) {
		dir = runtime
	}
	return p9srv.Addr{Network: "unix", Address: filepath.Join(dir, "containerfs/9p.sock")}
}
