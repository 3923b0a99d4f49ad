package store

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestShrinkOnlyItsOwn: a file is written anew in the directory that was opened, wherever that
// is by now, and where its name is still its own. Who has put another there, or keeps the file
// elsewhere and a link to it here, finds what he has made.
func TestShrinkOnlyItsOwn(t *testing.T) {
	const other = "another server's"
	for _, tt := range []struct {
		name    string
		shrinks bool
		make    func(dir, aside string) error // before the directory is opened
		move    func(dir, aside string) error // while it is open
		own     func(dir, aside string) string
		check   func(dir string) error
	}{{
		name:    "the directory is another",
		shrinks: true,
		move: func(dir, aside string) error {
			return errors.Join(os.Rename(dir, aside), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, FileName), []byte(other), 0o600))
		},
		own: func(_, aside string) string { return aside },
		check: func(dir string) error {
			names, err := os.ReadDir(dir)
			if text, e := os.ReadFile(filepath.Join(dir, FileName)); err != nil || len(names) != 1 || string(text) != other {
				return fmt.Errorf("the other directory has %v, %v, and its file %.20q, %v", names, err, text, e)
			}
			return nil
		},
	}, {
		name: "the file is another",
		move: func(dir, aside string) error {
			return errors.Join(os.Mkdir(aside, 0o700), os.Rename(filepath.Join(dir, FileName), filepath.Join(aside, FileName)), os.WriteFile(filepath.Join(dir, FileName), []byte(other), 0o600))
		},
		own: func(_, aside string) string { return aside },
		check: func(dir string) error {
			if text, err := os.ReadFile(filepath.Join(dir, FileName)); string(text) != other {
				return fmt.Errorf("the other file is %.20q, %v", text, err)
			}
			return nil
		},
	}, {
		name: "the file is elsewhere",
		make: func(dir, aside string) error {
			return errors.Join(os.Mkdir(aside, 0o700), os.Rename(filepath.Join(dir, FileName), filepath.Join(aside, FileName)), os.Symlink(filepath.Join(aside, FileName), filepath.Join(dir, FileName)))
		},
		own: func(_, aside string) string { return aside },
		check: func(dir string) error {
			if _, err := os.Readlink(filepath.Join(dir, FileName)); err != nil {
				return err
			}
			return nil
		},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			shrinks(t, 1<<20, 8)
			dir, aside := filepath.Join(t.TempDir(), "dir"), filepath.Join(t.TempDir(), "aside")
			s, _ := open(t, dir)
			if tt.make != nil {
				mustClose(t, s)
				if err := tt.make(dir, aside); err != nil {
					t.Fatal(err)
				}
				s, _ = open(t, dir)
			}
			if tt.move != nil {
				if err := tt.move(dir, aside); err != nil {
					t.Fatal(err)
				}
			}
			want := burst(t, s)
			for n := range uint64(20) {
				s.Put(key(n+1), []byte("new"), nil)
				want[key(n+1)] = "new"
				kept(t, s)
			}
			mustClose(t, s)
			if err := tt.check(dir); err != nil {
				t.Error(err)
			}
			own := tt.own(dir, aside)
			if size := fileSize(t, own); (size < 1<<20) != tt.shrinks {
				t.Errorf("its own file has %d bytes", size)
			}
			s, got := open(t, own)
			same(t, got, want)
			mustClose(t, s)
		})
	}
}

// TestShrinkKeepsMode: who could read the file can read the one that is written anew.
func TestShrinkKeepsMode(t *testing.T) {
	shrinks(t, 1<<20, 8)
	dir := t.TempDir()
	s, _ := open(t, dir)
	path := filepath.Join(dir, FileName)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 1234
		if err := os.Chown(path, -1, group); err != nil {
			t.Fatal(err)
		}
	}
	burst(t, s)
	s.Put(key(1), []byte("new"), nil)
	kept(t, s)
	mustClose(t, s)
	if size := fileSize(t, dir); size >= 1<<20 {
		t.Errorf("the file has %d bytes", size)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if gid := int(st.Sys().(*syscall.Stat_t).Gid); st.Mode().Perm() != 0o640 || gid != group {
		t.Errorf("its mode is %o, its group %d", st.Mode().Perm(), gid)
	}
}

// diskCalls are what a file is written anew with.
var diskCalls = []uint32{
	unix.SYS_OPENAT, unix.SYS_UNLINKAT, unix.SYS_FCHMOD, unix.SYS_FLOCK, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE,
	unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_RENAMEAT,
}

// largeFile is a file of a few rows, which it returns, that is to be written anew.
func largeFile(t testing.TB) (content []byte, rows map[Key]string) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	for n := range uint64(2000) {
		s.Put(key(n+1), []byte(strings.Repeat("v", 100)), nil)
	}
	kept(t, s)
	for n := range uint64(1990) {
		s.Put(key(n+11), nil, nil)
	}
	kept(t, s)
	mustClose(t, s)
	s, rows = open(t, dir)
	mustClose(t, s)
	content, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	shrinks(t, 64<<10, 8)
	return content, rows
}

// TestShrinkFailsAnywhere has each call of the kernel fail in turn, or it and all after it, in a
// commit after which the file is written anew, or in the next ones. What is kept is read again,
// what is refused is not, and a single failure refuses one change at most.
func TestShrinkFailsAnywhere(t *testing.T) {
	content, rows := largeFile(t)
	for _, lasting := range []bool{false, true} {
		refused, anew := 0, 0
		for at, reached := 0, true; reached; at++ {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, FileName), content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, _ := open(t, dir)
			want := maps.Clone(rows)
			var calls atomic.Int64
			failFromCommit(t, s, diskCalls, func(n int, _ uint32) bool {
				calls.Add(1)
				return n == at || lasting && n > at
			})
			what := fmt.Sprintf("call %d, lasting %v", at, lasting)
			var no []string // since the last one that was kept
			failed := 0
			for i := range uint64(3) {
				v := fmt.Sprint("change ", i)
				switch err := s.Wait(s.Put(key(1), []byte(v), nil)); {
				case err == nil:
					want[key(1)], no = v, nil
				case errors.Is(err, syscall.EIO) && (failed == 0 || lasting):
					no = append(no, v)
					failed++
				default:
					t.Fatalf("%s: change %d: %v", what, i, err)
				}
			}
			refused += failed
			if err := s.Close(); err != nil && !lasting {
				t.Fatalf("%s: close: %v", what, err)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) != 2 && !lasting {
				t.Errorf("%s: the directory has %v, %v", what, names, err)
			}
			if fileSize(t, dir) < shrinkFrom {
				anew++
			}
			s, got := open(t, dir)
			if v := got[key(1)]; lasting && slices.Contains(no, v) {
				want[key(1)] = v // its last sync failed, and so did the one that takes it back
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%s: a change is %.20q, want %.20q, of %d rows, want %d", what, got[key(1)], want[key(1)], len(got), len(want))
			}
			mustClose(t, s)
			reached = calls.Load() > int64(at)
		}
		if refused == 0 || anew == 0 {
			t.Errorf("lasting %v: %d changes were refused, %d files written anew", lasting, refused, anew)
		}
	}
}

// TestShrinkOrder: the file is whole on disk before it has its name, and has its name on disk
// before anything is written to it.
func TestShrinkOrder(t *testing.T) {
	content, _ := largeFile(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, dir)
	var mu sync.Mutex
	var calls []uint32
	failFromCommit(t, s, []uint32{unix.SYS_PWRITE64, unix.SYS_FDATASYNC, unix.SYS_FSYNC, unix.SYS_RENAMEAT}, func(_ int, call uint32) bool {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, call)
		return false
	})
	for i := range uint64(2) {
		s.Put(key(i+1), []byte("new"), nil)
		kept(t, s)
	}
	mustClose(t, s)
	mu.Lock()
	defer mu.Unlock()
	named := slices.Index(calls, unix.SYS_RENAMEAT)
	if named < 1 || calls[named-1] != unix.SYS_FDATASYNC || calls[named+1] != unix.SYS_FSYNC {
		t.Errorf("call %d of %v gives it its name, want one between fdatasync (%d) and fsync (%d)", named, calls, unix.SYS_FDATASYNC, unix.SYS_FSYNC)
	}
}

// TestShrinkNotOnDisk: as long as the directory may still have the file that was, on disk,
// nothing is kept.
func TestShrinkNotOnDisk(t *testing.T) {
	content, rows := largeFile(t)
	syncs := math.MaxInt // the last of them is the directory's
	for _, fails := range []bool{false, true} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, dir)
		want := maps.Clone(rows)
		last := syncs - 1
		var calls, works atomic.Int64
		failFromCommit(t, s, []uint32{unix.SYS_FSYNC}, func(n int, _ uint32) bool {
			calls.Add(1)
			return n >= last && works.Load() == 0
		})
		s.Put(key(1), []byte("first"), nil)
		kept(t, s)
		want[key(1)] = "first"
		err := s.Wait(s.Put(key(1), []byte("second"), nil))
		switch {
		case fails && !errors.Is(err, syscall.EIO):
			t.Errorf("kept in a file that may not be there: %v", err)
		case !fails && err != nil:
			t.Fatal(err)
		case fails:
			works.Store(1)
			s.Put(key(1), []byte("third"), nil)
			kept(t, s)
			want[key(1)] = "third"
		default:
			want[key(1)] = "second"
		}
		syncs = int(calls.Load())
		mustClose(t, s)
		if size := fileSize(t, dir); size >= shrinkFrom {
			t.Errorf("the file has %d bytes", size)
		}
		s, got := open(t, dir)
		same(t, got, want)
		mustClose(t, s)
	}
}

// TestShrinkRenamed: a file has its name even if the kernel says that it could not be given it,
// as it can be where another host has the disk.
func TestShrinkRenamed(t *testing.T) {
	content, rows := largeFile(t)
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, dir)
	failFromCommit(t, s, []uint32{unix.SYS_RENAMEAT}, func(n int, _ uint32) bool {
		if err := os.Rename(path+freshSuffix, path); n > 0 || err != nil {
			t.Errorf("renamed %d times: %v", n+1, err)
		}
		return true
	})
	for i := range uint64(2) {
		s.Put(key(i+1), []byte("new"), nil)
		rows[key(i+1)] = "new"
		kept(t, s)
	}
	mustClose(t, s)
	if size := fileSize(t, dir); size >= shrinkFrom {
		t.Errorf("the file has %d bytes", size)
	}
	s, got := open(t, dir)
	same(t, got, rows)
	mustClose(t, s)
}
