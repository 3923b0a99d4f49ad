package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"containerfs/ops"
	"containerfs/p9srv"
)

// TestDefaultHierarchy: the one that there is by default is there though the first server of a
// state directory was refused or killed as it started, and not after it was unmounted.
func TestDefaultHierarchy(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	j, err := ops.OpenJournal(dir, log) // and no more
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	conf := config{State: dir, Mirror: "off", Hierarchies: []hierarchy{{"d", "debug"}, {"x", "nothing"}}}
	if e, err := newEngine(conf, log); err == nil {
		e.close()
		t.Fatal("there is a hierarchy of nothing")
	}
	conf.Hierarchies, conf.NoHierarchies = []hierarchy{{"all", "all"}}, true
	for _, want := range [][]string{{"all"}, nil} {
		e, err := newEngine(conf, log)
		if err != nil {
			t.Fatal(err)
		}
		if got := keptIn(e.tree); !slices.Equal(got, want) {
			t.Errorf("there are %v, want %v", got, want)
		}
		if h := e.hierarchy("all"); h != nil {
			if err := e.tree.Unmount(h); err != nil {
				t.Error(err)
			}
		}
		e.close()
	}
}

// TestFirstNumber: containers of a state directory have numbers that none before it had, also
// where its first server ended with none.
func TestFirstNumber(t *testing.T) {
	first := firstNumber(time.Now())
	conf := config{State: t.TempDir(), Mirror: "off", Hierarchies: []hierarchy{{"d", "debug"}}}
	for life := range 2 {
		e, err := newEngine(conf, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if n := e.tree.Next().Container; n < first {
			t.Errorf("life %d: the number %d is next, want %d or more", life, n, first)
		}
		e.close()
	}
}

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
