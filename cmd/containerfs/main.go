//go:build linux

// Containerfs serves containers of a host's tasks over 9P, and is a client of
// such a server: ls, read, write, mkdir, rmdir, mv and stat.
//
// This package only wires: flags to a configuration, a configuration to run,
// and what came of it to an exit code.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(execute(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
