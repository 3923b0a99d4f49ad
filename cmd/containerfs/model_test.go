package main

import (
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"

	"containerfs/ops"
	"containerfs/tree"
	"containerfs/tree/hostproc"
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

// TestIDsAsTold: what is known of a process follows what is told of its ids, without a look at it,
// which would keep all that is told later waiting.
func TestIDsAsTold(t *testing.T) {
	sim := hostsim.New()
	recorder := ops.NewRecorder(1 << 10)
	tasks, err := tree.New(tree.Config{Host: sim, Observer: recorder})
	if err != nil {
		t.Fatal(err)
	}
	sim.Run(tasks)
	host, err := hostproc.Open(hostproc.Options{Polling: true})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	log := slog.New(slog.DiscardHandler)
	m := model{Tree: tasks, host: host, recorder: recorder, rules: ops.NewClassifier(1, nil, log), log: log}
	p := sim.Fork(hostsim.InitTID)
	thread := sim.Thread(p)
	tasks.Drain()
	// On the host that is another process, or none.
	m.SetNote(p, &ops.Program{UID: 1, Exe: "/bin/a"})
	last := int64(0)
	for _, e := range []struct {
		tid       int32
		group     bool
		effective uint32
		want      uint32
	}{{p, false, 4001, 4001}, {p, true, 4002, 4001}, {thread, false, 4003, 4001}, {p, false, 4004, 4004}} {
		m.SetID(e.tid, p, e.group, 4000, e.effective, 7)
		var now ops.Program
		m.View(func() { now = *m.Task(p).Process().Note().(*ops.Program) })
		if now.UID != e.want || now.Exe != "/bin/a" || now.At <= last {
			t.Errorf("after %+v it is %+v", e, now)
		}
		last = now.At
	}
	// Of one that nothing is known of.
	m.SetID(p+100, p+100, false, 0, 0, 7)
}
