package controller

import (
	"os"
	"path/filepath"
	"testing"

	"containerfs/tree/kernfs"
)

// TestRefusedWhere: of what the kernel counts of refused forks it is what is of the directory
// itself.
func TestRefusedWhere(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  uint64
		bad   bool
	}{
		{map[string]string{"pids.events": "max 7\n"}, 7, false},
		{map[string]string{"pids.events": "max 7\n", "pids.events.local": "max 3\n"}, 3, false},
		{nil, 0, false},
		{map[string]string{"pids.events": "min 7\n"}, 0, true},
	} {
		path := t.TempDir()
		for name, text := range tt.files {
			if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dir, err := kernfs.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := refused(dir); n != tt.want || (err != nil) != tt.bad {
			t.Errorf("with %q: %d, %v; want %d", tt.files, n, err, tt.want)
		}
		dir.Close()
	}
}
