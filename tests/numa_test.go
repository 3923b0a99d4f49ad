package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMemoryMigrate has the memory of a member follow mems from one node to
// another, where memory_migrate asks for it, and only there (SPEC §11).
func TestMemoryMigrate(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{nodes: 2}, "^TestMemoryMigrate$")
		return
	}
	s := startServer(t, "--hierarchy", "c=cpuset")
	if got := s.run("read", "/c/cpuset.mems"); got != "0-1\n" {
		t.Fatalf("the nodes are %q", got)
	}
	c := startTalker(t, `x=$(head -c 4000000 /dev/zero | tr '\0' a); echo ready; read end`)
	if got := c.hear(); got != "ready" {
		t.Fatal(got)
	}
	member := c.Process.Pid
	s.run("mkdir", "/c/a")
	s.run("write", "/c/a/cpuset.cpus", "0")
	s.run("write", "/c/a/cpuset.mems", "0-1")
	s.run("write", "/c/a/procs", fmt.Sprint(member))
	from, to := 0, 1
	if on := pagesOn(t, member); on[1] > on[0] {
		from, to = 1, 0
	}
	if on := pagesOn(t, member); on[from] < 900 {
		t.Fatalf("pages on the nodes: %v", on)
	}
	mems := func(node int) { s.run("write", "/c/a/cpuset.mems", fmt.Sprint(node)) }

	mems(from)
	before := pagesOn(t, member)[from]
	mems(to)
	if now := pagesOn(t, member)[from]; now < before/2 {
		t.Errorf("without memory_migrate %d of %d pages are left on node %d", now, before, from)
	}
	mems(from)
	s.run("write", "/c/a/cpuset.memory_migrate", "1")
	mems(to)
	// What other processes map too stays where it is.
	waitFor(t, "the pages to be moved", func() bool { on := pagesOn(t, member); return on[from] < before/10 && on[to] > before/2 })
}

// pagesOn are the pages of a process's own that a node has, for two nodes.
func pagesOn(t testing.TB, pid int) (on [2]int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, " anon=") {
			continue
		}
		for _, word := range strings.Fields(line) {
			var node, pages int
			if n, _ := fmt.Sscanf(word, "N%d=%d", &node, &pages); n == 2 && node < len(on) {
				on[node] += pages
			}
		}
	}
	return on
}
