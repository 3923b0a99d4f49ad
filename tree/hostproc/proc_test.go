package hostproc

import (
	"fmt"
	"os"
	"testing"
)

var onHeap []byte // where -race finds that what is read goes beyond its end

// TestNumbers reads a directory that takes several calls of getdents: what the last
// entry of each leaves of the buffer is less than the kernel's type for one.
func TestNumbers(t *testing.T) {
	dir := t.TempDir()
	const entries = 1000
	for i := range entries {
		if err := os.Mkdir(fmt.Sprintf("%s/%d", dir, 10_000+i), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"self", "1x", "99999999999", "0"} {
		if err := os.Mkdir(dir+"/"+name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	onHeap = make([]byte, 8<<10)
	seen := make(map[int32]bool)
	err = numbers(int(d.Fd()), onHeap, func(n int32) (bool, error) { seen[n] = true; return true, nil })
	if err != nil || len(seen) != entries || !seen[10_000] || !seen[10_000+entries-1] {
		t.Errorf("%d of %d numbers, %v", len(seen), entries, err)
	}
}
