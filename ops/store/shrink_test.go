package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shrinks has files be written anew that are so large, and so many times as large as what
// is in them.
func shrinks(t testing.TB, from, part int64) {
	wasFrom, wasPart := shrinkFrom, shrinkPart
	shrinkFrom, shrinkPart = from, part
	t.Cleanup(func() { shrinkFrom, shrinkPart = wasFrom, wasPart })
}

func fileSize(t testing.TB, dir string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// burst puts many rows, and removes them but for a few, which it returns.
func burst(t testing.TB, s *Store) map[Key]string {
	t.Helper()
	const many, few = 20_000, 50
	v := strings.Repeat("v", 100)
	left := make(map[Key]string)
	for n := range uint64(many) {
		s.Put(key(n+1), []byte(v), nil)
	}
	kept(t, s)
	if err := s.Own("x").Write(map[string][]byte{"own": []byte("row")}); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(many) {
		if n%(many/few) == 0 {
			left[key(n+1)] = v
			continue
		}
		s.Put(key(n+1), nil, nil)
	}
	kept(t, s)
	return left
}

func ownRows(t testing.TB, s *Store) (rows []string) {
	t.Helper()
	if err := s.Own("x").All(func(k string, v []byte) { rows = append(rows, k+"="+string(v)) }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestShrink: a file is not for ever as large as it once had to be, and what is in it stays.
func TestShrink(t *testing.T) {
	shrinks(t, 1<<20, 8)
	dir := t.TempDir()
	s, _ := open(t, dir)
	want := burst(t, s)
	for n, end := uint64(0), time.Now().Add(time.Minute); fileSize(t, dir) >= 1<<20; n++ {
		if time.Now().After(end) {
			t.Fatalf("the file with %d rows has %d bytes", len(want), fileSize(t, dir))
		}
		k, v := Key{Bucket: Roots, Name: "root"}, strconv.FormatUint(n, 10)
		s.Put(k, []byte(v), nil)
		want[k] = v
		kept(t, s)
	}
	for n := range uint64(100) {
		s.Put(key(n+1), []byte("new"), nil)
		want[key(n+1)] = "new"
		kept(t, s)
	}
	if v, err := s.Get(key(1)); err != nil || string(v) != "new" {
		t.Errorf("a row is %q, %v", v, err)
	}
	if rows := ownRows(t, s); len(rows) != 1 || rows[0] != "own=row" {
		t.Errorf("a subsystem's rows are %q", rows)
	}
	mustClose(t, s)
	s, got := open(t, dir)
	same(t, got, want)
	if rows := ownRows(t, s); len(rows) != 1 || rows[0] != "own=row" {
		t.Errorf("a subsystem's rows are %q", rows)
	}
	mustClose(t, s)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("the directory has %v, %v", names, err)
	}
}

// TestShrinkFails: a file that cannot be written anew goes on to be what it was.
func TestShrinkFails(t *testing.T) {
	shrinks(t, 1<<20, 8)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, FileName+freshSuffix, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	// That of a database that is to be made has to go.
	if _, err := Open(dir, nil); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Fatal(err)
	}
	other := t.TempDir()
	s, _ := open(t, other)
	mustClose(t, s)
	if err := os.Rename(filepath.Join(other, FileName), filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir)
	want := burst(t, s)
	size := fileSize(t, dir)
	for n := range uint64(100) {
		s.Put(key(n+1), []byte("new"), nil)
		want[key(n+1)] = "new"
		kept(t, s)
	}
	if now := fileSize(t, dir); now < size {
		t.Errorf("the file had %d bytes, and has %d", size, now)
	}
	mustClose(t, s)
	_, got := open(t, dir)
	same(t, got, want)
}

// TestShrinkAllTheTime has the file written anew after each commit, with others that
// commit and read.
func TestShrinkAllTheTime(t *testing.T) {
	shrinks(t, 0, 1)
	dir := t.TempDir()
	s, _ := open(t, dir)
	want := make(map[Key]string)
	for n := range uint64(60) {
		v := strconv.FormatUint(n, 10)
		s.Put(key(n%7+1), []byte(v), nil)
		want[key(n%7+1)] = v
		if n%3 == 0 {
			kept(t, s)
		}
		if n%5 == 0 {
			if err := s.Own("x").Write(map[string][]byte{"own": []byte(v)}); err != nil {
				t.Fatal(err)
			}
			if rows := ownRows(t, s); len(rows) != 1 || rows[0] != "own="+v {
				t.Errorf("a subsystem's rows are %q, want %s", rows, v)
			}
		}
	}
	mustClose(t, s)
	_, got := open(t, dir)
	same(t, got, want)
}
