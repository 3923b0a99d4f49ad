//go:build linux

// Containerfs serves containers of a host's tasks over 9P, and is a client of
// such a server.
//
// # The server
//
// serve is flags and a config file (serve.go, config.go, toml.go, service.go, activation.go),
// made into a config. run (serve.go) opens the listeners, makes an engine, which is the host
// with its model and what is served of it (engine.go, model.go, ruleset.go), and serves
// until it is told to end; a reload changes what can be changed meanwhile (reload.go).
// Nothing is decided here that is another package's: this is the only place that knows
// all of them.
//
// # The commands
//
// The other commands are each in a file of its name, or of the first of a few. What they
// share: app.go has the command line and how a command goes on after a failure, exit.go
// what becomes of an error, session.go the connection, refusal.go the reasons of what a
// server refuses, and world.go what is asked of a server again and again. Of the host that
// they run on they know by internal/localhost, of the terminal by internal/terminal.
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
