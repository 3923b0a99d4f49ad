package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVerdictIgnore: a line with ignore whose destination cannot be is passed over, as the
// server does, since no task is in it.
func TestVerdictIgnore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte("*\tx\ta/%p\tignore\n*\tx\tb\n*\ty\tc/%p\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := result{0, "x: line 1 (* x a/%p ignore) does not fit: destination \"a/%p\": \"/\" for %p is no part of a name\n" +
		"x: line 2 (* x b) decides: everybody, any process; it goes to /b\n" +
		"y: line 3 (* y c/%p) decides, but cannot be followed: destination \"c/%p\": \"/\" for %p is no part of a name\n", ""}
	// No process executes that: it is the shortest way to a name that cannot be.
	if got := command(nil, "rules", "test", "-v", "--rules", file, "--user", "root", "--exe", "/"); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
