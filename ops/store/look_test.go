package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestLook: what Open would say is said, and nothing is made, locked or changed.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	if _, err := Look(filepath.Join(dir, "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Look(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if made, _ := os.ReadDir(dir); len(made) > 0 {
		t.Errorf("it has made %v", made)
	}

	s, _ := open(t, dir)
	for i := range uint64(100) {
		s.Put(key(i+1), []byte(fmt.Sprint(i)), nil)
	}
	kept(t, s)
	if seen, err := Look(dir); err != nil || seen != (Seen{100, os.Getpid()}) {
		t.Errorf("of an open one: %+v, %v", seen, err)
	}
	mustClose(t, s)
	path := filepath.Join(dir, FileName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if seen, err := Look(dir); err != nil || seen != (Seen{100, 0}) {
		t.Errorf("of a closed one: %+v, %v", seen, err)
	}
	rows := make(map[Key]string)
	if seen, err := Read(dir, func(k Key, v []byte) error { rows[k] = string(v); return nil }); err != nil || seen.Rows != 100 || len(rows) != 100 || rows[key(8)] != "7" {
		t.Errorf("read: %+v, %v, %v", seen, err, rows)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("it has changed the file")
	}

	broken := append([]byte{}, before...)
	broken[len(broken)/2] ^= 1
	broken[16] ^= 1
	for name, text := range map[string][]byte{"a bit": broken, "cut": before[:100], "empty": nil} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Look(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want that it is damaged", name, err)
		}
		if after, _ := os.ReadFile(path); string(after) != string(text) {
			t.Errorf("%s: it has changed the file", name)
		}
	}
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir)
	s.Put(formatKey, []byte{0, 0, 0, 0, 0, 0, 0, Format + 1}, nil)
	kept(t, s)
	mustClose(t, s)
	if _, err := Look(dir); !errors.Is(err, ErrNewer) {
		t.Errorf("%v, want a newer format", err)
	}
}

// TestLookWhileWritten: a file that changes while it is read is read again, and is not
// damaged.
func TestLookWhileWritten(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	kept(t, s)
	defer func() { readFile = os.ReadFile }()
	reads := 0
	torn := func(until int) func(string) ([]byte, error) {
		reads = 0
		return func(path string) ([]byte, error) {
			text, err := os.ReadFile(path)
			if reads++; reads <= until {
				text[16+reads%8] ^= byte(reads) // another each time
			}
			return text, err
		}
	}
	readFile = torn(3)
	if seen, err := Look(dir); err != nil || seen.Holder != os.Getpid() || reads != 4 {
		t.Errorf("%+v, %v after %d reads", seen, err, reads)
	}
	readFile = torn(1000)
	if _, err := Look(dir); err != errBusy {
		t.Errorf("of one that never holds still: %v", err)
	}
}
