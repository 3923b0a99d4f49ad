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

// firstThere is the first of two sockets if it is there, else the second.
func firstThere(first, second string) p9srv.Addr {
	if _, err := os.Stat(first); err != nil {
		first = second
	}
	return p9srv.Addr{Network: "unix", Address: first}
}
