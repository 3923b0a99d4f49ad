package main

import (
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"

	"containerfs/ops"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestBehind: a comparison with the host that fails is one that is still to be made.
func TestBehind(t *testing.T) {
	host := hostsim.New()
	tasks, err := tree.New(tree.Config{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	var behind atomic.Bool
	m := model{Tree: tasks, rules: ops.NewClassifier(1, nil, log), log: log, behind: &behind}
	host.Blind = syscall.EMFILE
	m.Resync(0)
	if !behind.Load() {
		t.Error("a comparison that failed is not made again")
	}
	behind.Store(false)
	host.Blind = nil
	m.Resync(0)
	if behind.Load() {
		t.Error("a comparison that succeeded is made again")
	}
}
