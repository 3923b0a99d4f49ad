//go:build linux

// Containerfs serves containers of a host's tasks over 9P, and is a client of
// such a server: the other commands, each in a file of its name.
//
// This package only wires: flags to a configuration, a configuration to run,
// and what came of it to an exit code.
package main

import (
	"context"
	"os"
	"path/filepath"
)

func main() {
	args := os.Args
	helper := filepath.Base(args[0]) == mountHelper
	if helper {
		args = helperArgs(args)
	}
	if os.Getenv(serverVariable) == "" {
		os.Unsetenv(serverVariable) // the library takes an empty one for a value
	}
	code := execute(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
	if helper {
		code = helperCode(code)
	}
	os.Exit(code)
}
