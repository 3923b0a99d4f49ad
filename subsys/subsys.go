// Package subsys lists the subsystems of containerfs. Each has a package of its
// own below this one; what they need of the host is injected here.
package subsys

import (
	"log/slog"

	"containerfs/subsys/cpuset"
	"containerfs/subsys/debug"
	"containerfs/tree"
)

// Config is what the subsystems are given.
type Config struct {
	Log *slog.Logger // nil: slog.Default

	// Cpuset is cpuset's host. Nil: the real one.
	Cpuset cpuset.Host
}

// Enforcer is a subsystem whose effect on the host wears off without any event
// that would tell. Enforce renews it; call it once a second (SPEC §11), from one
// goroutine, after tree.New.
type Enforcer interface{ Enforce() }

// All makes the subsystems in the order of their registration, which is that of
// callbacks, listings and canonical names. Those that are Enforcers have to be
// called, those that are io.Closers to be closed when no change can come any
// more.
func All(cfg Config) []tree.Subsystem {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Cpuset == nil {
		cfg.Cpuset = cpuset.NewHost()
	}
	return []tree.Subsystem{
		cpuset.New(cfg.Cpuset, cfg.Log),
		debug.Subsystem{},
	}
}
