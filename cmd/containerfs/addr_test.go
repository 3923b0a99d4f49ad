package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestServerThatAClientMeans: one's own if there is one, else the system's, as the help says.
func TestServerThatAClientMeans(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own", "sock")
	system := filepath.Join(dir, "system", "sock")
	put := func(path string) {
		t.Helper()
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what, path string) {
		t.Helper()
		if got := firstThere(own, system); got.Address != path {
			t.Errorf("%s: %s", what, got)
		}
	}
	want("neither is there", system)
	put(system)
	want("the system's is there", system)
	put(own)
	want("both are there", own)
}
