package main

import (
	"os"
	"path/filepath"

	"containerfs/p9srv"
)

// defaultAddr is the unix socket of serve.
func defaultAddr() p9srv.Addr { return defaultAddrOf(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR")) }

// defaultAddrOf is defaultAddr for a server's user with this XDG_RUNTIME_DIR: the host's
// for root, the user's own for others.
func defaultAddrOf(uid int, runtime string) p9srv.Addr {
	dir := "/run"
	if uid != 0 && filepath.IsAbs(runtime) {
		dir = runtime
	}
	return p9srv.Addr{Network: "unix", Address: filepath.Join(dir, socketName)}
}

const socketName = "containerfs/9p.sock"

// serverVariable names the server that a client means.
const serverVariable = "CONTAINERFS_SERVER"

// clientAddr is the server that a client means if it names none: on most hosts it is
// the system's, whatever else a session has.
func clientAddr() p9srv.Addr {
	return firstThere(defaultAddr().Address, filepath.Join("/run", socketName))
}

// firstThere is the first of some sockets that is there, or the first of all.
func firstThere(paths ...string) p9srv.Addr {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return p9srv.Addr{Network: "unix", Address: path}
		}
	}
	return p9srv.Addr{Network: "unix", Address: paths[0]}
}
