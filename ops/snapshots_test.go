package ops

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// TestWhatFilesKeepIsBounded opens more than one may have in memory: it is refused,
// hinders nobody else, and ends with the files.
func TestWhatFilesKeepIsBounded(t *testing.T) {
	defer func(n int) { maxSnapshots = n }(maxSnapshots)
	maxSnapshots = 4 << 10
	w, k := aWorld(t)
	w.fork(0)
	for range 100 {
		w.fork(0)
	}
	k.must(k.chown("m/a", alice.UID, 0))
	al, other := w.as(alice), w.as(bob)

	var open []p9.File
	var err error
	for err == nil {
		var f p9.File
		if f, err = al.open("m/tasks", p9.ReadOnly); err == nil {
			open = append(open, f)
		}
		if len(open) > 100 {
			t.Fatal("100 copies of a list are within the bound")
		}
	}
	if !errors.Is(err, linux.EMFILE) || len(open) < 2 {
		t.Fatalf("%v after %d", err, len(open))
	}
	if _, err := al.list("proc", 1000); !errors.Is(err, linux.EMFILE) {
		t.Errorf("a listing of as many processes: %v", err)
	}
	if text, err := readAll(open[0]); err != nil || text == "" {
		t.Errorf("one that is open: %q, %v", text, err)
	}
	if _, err := other.read("m/tasks"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if _, err := w.as(root).read("m/tasks"); err != nil {
		t.Errorf("root: %v", err)
	}
	for _, f := range open {
		f.Close()
	}
	if _, err := al.list("proc", 1000); err != nil {
		t.Errorf("when they are closed: %v", err)
	}

	// One is let in whatever its size, or it could not be read at all.
	maxSnapshots = 1
	f, err := al.open("m/tasks", p9.ReadOnly)
	al.must(err)
	second, err := al.walk("m/tasks")
	al.must(err)
	if _, _, err := second.Open(p9.ReadOnly); !errors.Is(err, linux.EMFILE) {
		t.Errorf("a second one: %v", err)
	}
	if second := second.(*file); second.content != nil || second.bytes != 0 {
		t.Errorf("what was refused holds %d bytes", second.bytes)
	}
	second.Close()
	f.Close()

	// A read after a write counts as what it shows then.
	k.must(k.chmod("m/a/alpha.value", 0o666))
	f, err = al.open("m/a/alpha.value", p9.ReadWrite)
	al.must(err)
	held, err := al.open("m/a/tasks", p9.ReadOnly)
	if err == nil {
		held.Close() // an empty list is nothing
	}
	for range 3 {
		if _, err := f.WriteAt([]byte("12345"), 0); err != nil {
			t.Fatal(err)
		}
		if text, err := readAll(f); err != nil || text != "12345" {
			t.Errorf("after a write: %q, %v", text, err)
		}
	}
	// Or is refused, and then the file holds nothing.
	maxSnapshots = 4 << 10
	held, err = al.open("m/tasks", p9.ReadOnly)
	al.must(err)
	maxSnapshots = 1
	if _, err := f.WriteAt(bytes.Repeat([]byte("1"), 1000), 0); err != nil {
		t.Fatal(err)
	}
	if text, err := readAll(f); !errors.Is(err, linux.EMFILE) {
		t.Errorf("after a write that makes it too large: %d bytes, %v", len(text), err)
	}
	held.Close()
	f.Close()
	if n := len(w.fs.snapshots.bytes); n != 0 {
		t.Errorf("%d users are still noted when all is closed", n)
	}
}
