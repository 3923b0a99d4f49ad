package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func key(n uint64) Key { return Key{Bucket: Containers, Num: n} }

// pageSize is that of a file that is made here: bbolt takes the kernel's.
var pageSize = os.Getpagesize()

// open opens a directory and returns what is in it.
func open(t testing.TB, dir string) (*Store, map[Key]string) {
	t.Helper()
	rows := make(map[Key]string)
	s, err := Open(dir, func(k Key, v []byte) error { rows[k] = string(v); return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, rows
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func kept(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Wait(s.Last()); err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, got, want map[Key]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("%d rows, want %d\n%.1000v\n%.1000v", len(got), len(want), got, want)
	}
}

// TestRandomRows compares what is read again with a map, over many openings.
func TestRandomRows(t *testing.T) {
	dir := t.TempDir()
	want := make(map[Key]string)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		s, got := open(t, dir)
		same(t, got, want)
		for range 200 {
			k := key(1 + rnd.Uint64N(500))
			if rnd.IntN(3) == 0 {
				k = Key{Bucket: Roots, Name: fmt.Sprint("sub", rnd.IntN(40))}
			}
			if rnd.IntN(4) == 0 {
				s.Put(k, nil, nil)
				delete(want, k)
			} else {
				v := strings.Repeat("v", rnd.IntN(300)) + fmt.Sprint(rnd.Int())
				s.Put(k, []byte(v), nil)
				want[k] = v
			}
			if rnd.IntN(10) == 0 {
				kept(t, s)
				if v, err := s.Get(k); err != nil || string(v) != want[k] {
					t.Fatalf("%v is %q, %v", k, v, err)
				}
			}
		}
		mustClose(t, s)
	}
}

// TestPageSizes: a state is read and changed whatever pages the kernel has that it was
// made under, as in a directory that goes to another host with its disk, or where another
// kernel is booted.
func TestPageSizes(t *testing.T) {
	for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
		dir := t.TempDir()
		options.PageSize = size
		err := create(filepath.Join(dir, FileName))
		options.PageSize = 0
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[Key]string)
		for round := range 3 {
			s, got := open(t, dir)
			same(t, got, want)
			if s.db.Info().PageSize != size {
				t.Fatalf("pages of %d bytes, want %d", s.db.Info().PageSize, size)
			}
			for n := range uint64(500) {
				v := strings.Repeat("x", int(n)) + fmt.Sprint(round)
				s.Put(key(n+1), []byte(v), nil)
				want[key(n+1)] = v
			}
			mustClose(t, s)
		}
	}
}

// TestDamage changes a byte anywhere, or cuts the file anywhere: it is refused, and
// not touched, or what is read is all that there was.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	want := make(map[Key]string)
	for round := range 5 {
		for n := range uint64(200) {
			v := strings.Repeat("x", int(n)) + fmt.Sprint(round)
			s.Put(key(n+1), []byte(v), nil)
			want[key(n+1)] = v
		}
		kept(t, s)
	}
	if err := s.Own("sub").Write(map[string][]byte{"a": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	path := filepath.Join(dir, FileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	refused, read := 0, 0
	for i := range 3000 {
		broken := append([]byte{}, whole...)
		what := "cut"
		at := rnd.IntN(len(broken))
		switch {
		case i < 600: // headers, where everything hangs on
			at = rnd.IntN(len(broken)/pageSize)*pageSize + rnd.IntN(96)
			fallthrough
		case i < 2500:
			what = "bit"
			broken[at] ^= 1 << rnd.IntN(8)
		case i < 2600:
			what = "page"
			copy(broken[at/pageSize*pageSize:], whole[rnd.IntN(len(whole)/pageSize)*pageSize:][:pageSize])
		default:
			broken = broken[:at]
		}
		got := make(map[Key]string)
		_, err := check(broken, func(k Key, v []byte) error { got[k] = string(v); return nil })
		switch {
		case err == nil:
			read++
			same(t, got, want)
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer):
			t.Fatalf("%s at %d: %v", what, at, err)
		default:
			refused++
		}
		if i%50 != 0 {
			continue
		}
		// As a whole, with the database's own reading where it is let in.
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		s, openErr := Open(dir, func(Key, []byte) error { return nil })
		if (openErr == nil) != (err == nil) {
			t.Fatalf("%s at %d: checked %v, opened %v", what, at, err, openErr)
		}
		if openErr == nil {
			s.Put(key(7), []byte("changed"), nil)
			kept(t, s)
			mustClose(t, s)
		} else if after, _ := os.ReadFile(path); string(after) != string(broken) {
			t.Fatalf("%s at %d: refused and changed", what, at)
		}
	}
	if refused < 300 || read < 300 {
		t.Errorf("%d refused, %d read", refused, read)
	}
}

func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Put(formatKey, []byte{0, 0, 0, 0, 0, 0, 0, Format + 1}, nil)
	kept(t, s)
	mustClose(t, s)
	if _, err := Open(dir, nil); !errors.Is(err, ErrNewer) {
		t.Errorf("%v, want a newer format", err)
	}
}

// TestRowsInOthersPlaces has two rows of a page change places, or their values: all are there, and
// whole, and the database would not find them, or find another's.
func TestRowsInOthersPlaces(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	want := make(map[Key]string)
	for n := range uint64(8) {
		v := fmt.Sprint("value ", n)
		s.Put(key(n+1), []byte(v), nil)
		want[key(n+1)] = v
	}
	kept(t, s)
	mustClose(t, s)
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	one, two := []byte("value 3"), []byte("value 4")
	const rowSize = len("value 3") + sumSize
	const element = 16 // flags, place of key and value from here on, their lengths
	swapped := map[string]int{}
	for from := 0; ; {
		i := bytes.Index(whole[from:], one)
		if i < 0 {
			break
		}
		i += from
		from = i + 1
		j := i + rowSize + 8 // behind the next key
		if !bytes.HasPrefix(whole[j:], two) {
			continue
		}
		page := i / os.Getpagesize() * os.Getpagesize()
		for what, swap := range map[string]func(b []byte) bool{
			"values": func(b []byte) bool {
				copy(b[i:], whole[j:j+rowSize])
				copy(b[j:], whole[i:i+rowSize])
				return true
			},
			"places": func(b []byte) bool {
				// Of an inner page or of a bucket inside of a page.
				for at := page; at+2*element <= i; at++ {
					e, next := b[at:at+element], b[at+element:at+2*element]
					place, after := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(next[4:])
					if at+int(place)+8 == i && at+element+int(after)+8 == j {
						binary.NativeEndian.PutUint32(e[4:], after+element)
						binary.NativeEndian.PutUint32(next[4:], place-element)
						return true
					}
				}
				return false
			},
		} {
			broken := bytes.Clone(whole)
			if !swap(broken) {
				continue
			}
			got := make(map[Key]string)
			_, err := check(broken, func(k Key, v []byte) error { got[k] = string(v); return nil })
			switch {
			case err == nil: // a page that is free
				same(t, got, want)
			case !errors.Is(err, ErrDamaged):
				t.Errorf("%s: %v", what, err)
			default:
				swapped[what]++
			}
		}
	}
	if swapped["values"] == 0 || swapped["places"] == 0 {
		t.Errorf("refused were %v, want both", swapped)
	}
}

// TestNoFormat: a file that does not say its format is damaged, whatever other rows there are.
func TestNoFormat(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	newer := []byte{0, 0, 0, 0, 0, 0, 0, Format + 1}
	others := map[Key]string{{Bucket: Facts, Name: "other"}: string(newer), {Bucket: Roots, Name: formatKey.Name}: string(newer)}
	for k := range others {
		s.Put(k, newer, nil)
	}
	kept(t, s)
	mustClose(t, s)
	s, got := open(t, dir)
	same(t, got, others)
	s.Put(formatKey, nil, nil)
	kept(t, s)
	mustClose(t, s)
	if _, err := Open(dir, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want that it is damaged", err)
	}
}

// TestOpenRefuses is Open with an error of whom the rows are for.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Put(key(1), []byte("a"), nil)
	kept(t, s)
	mustClose(t, s)
	refuse := func(Key, []byte) error { return syscall.EXDEV }
	if _, err := Open(dir, refuse); !errors.Is(err, syscall.EXDEV) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v, want EXDEV, with the directory", err)
	}
	if _, err := Read(dir, refuse); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("read: %v, want EXDEV", err)
	}
	s, got := open(t, dir)
	same(t, got, map[Key]string{key(1): "a"})
	mustClose(t, s)
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(dir, nil)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("%v, want that it is in use by this process", err)
	}
}

// TestOthersDirectory: a directory in which others can put files is refused, and no link
// of theirs is followed.
func TestOthersDirectory(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if s, err := Open(dir, nil); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v, want that others can write to it", what, err)
			if err == nil {
				s.Close()
			}
		}
		if text, err := os.ReadFile(victim); string(text) != "precious" {
			t.Errorf("%s: another's file is %q, %v", what, text, err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("mode 0777")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1234, 0); err != nil {
			t.Fatal(err)
		}
		refused("another user's")
		if err := os.Chown(dir, 0, 1234); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o770); err != nil {
			t.Fatal(err)
		}
		refused("another group's")
		if err := os.Chmod(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, dir)
	mustClose(t, s)
}

// TestLinkToNothing: a file that is kept elsewhere, where it cannot be seen now, is not begun
// anew.
func TestLinkToNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.Symlink(filepath.Join(t.TempDir(), "not mounted", FileName), path); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want that it is not there", err)
		if err == nil {
			s.Close()
		}
	}
	if _, err := os.Readlink(path); err != nil {
		t.Error(err)
	}
}

// TestFailedCommit has a commit fail: nothing of it is there, nor of what came meanwhile, who
// waits is told with the errno, after Undo, and the next commit succeeds. What was kept before
// is.
func TestFailedCommit(t *testing.T) {
	for cause, want := range map[error]syscall.Errno{
		&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}: syscall.ENOSPC,
		errors.New("nobody knows why"):                             syscall.EIO,
	} {
		dir := t.TempDir()
		s, _ := open(t, dir)
		before := s.Put(key(9), []byte("z"), nil)
		if err := s.Wait(before); err != nil {
			t.Fatal(err)
		}
		var meanwhile uint64
		s.InCommit = func() error {
			meanwhile = s.Put(key(3), []byte("c"), "about")
			return cause
		}
		var undone []Change
		s.Undo = func(failed []Change, err error) {
			undone = append(failed, s.Discard()...)
			s.InCommit = nil
		}
		failures := s.Failures()
		n := s.Put(key(1), []byte("a"), nil)
		if err := s.Wait(n); !errors.Is(err, want) || !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "state: ") {
			t.Errorf("%v, want %v", err, want)
		}
		if err := s.Wait(meanwhile); !errors.Is(err, want) {
			t.Errorf("what came meanwhile: %v, want %v", err, want)
		}
		if err := s.AwaitInside(n); !errors.Is(err, want) {
			t.Errorf("asked with locks held: %v, want %v", err, want)
		}
		if s.Failures() == failures {
			t.Error("no failure is counted")
		}
		if len(undone) != 2 || undone[0].Key != key(1) || undone[1] != (Change{key(3), "about"}) {
			t.Errorf("undone are %v", undone)
		}
		if v, err := s.Get(key(1)); v != nil || err != nil {
			t.Errorf("the row is %q, %v", v, err)
		}
		again := s.Put(key(2), []byte("b"), nil)
		if err := s.Wait(again); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if err := s.Wait(n); !errors.Is(err, want) {
			t.Errorf("asked again: %v, want %v", err, want)
		}
		if err := s.Wait(before); err != nil {
			t.Errorf("what was kept before: %v", err)
		}
		mustClose(t, s)
		s, got := open(t, dir)
		same(t, got, map[Key]string{key(2): "b", key(9): "z"})
		mustClose(t, s)
	}
}

// TestCloseSaysWhatIsNotKept, and that nothing is any more.
func TestCloseSaysWhatIsNotKept(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	began, fail := make(chan bool), make(chan bool)
	s.InCommit = func() error {
		began <- true
		<-fail
		return syscall.ENOSPC
	}
	s.Put(key(1), []byte("a"), nil)
	<-began
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for done := false; !done; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		done = s.closed
		s.mu.Unlock()
	}
	if err := s.Own("x").Write(map[string][]byte{"a": []byte("1")}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a write when it is closed: %v, want EBADF", err)
	}
	fail <- true
	if err := <-closed; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// TestOwn writes a subsystem's rows: kept when Write returns, gone when it failed.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	o := s.Own("memory")
	if err := o.Write(map[string][]byte{"1": []byte("a"), "2": []byte("b")}); err != nil {
		t.Fatal(err)
	}
	s.InCommit = func() error { return syscall.EIO }
	if err := o.Write(map[string][]byte{"1": nil, "3": []byte("c")}); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want EIO", err)
	}
	// Nor is what has come since a commit began that fails.
	began, fail := make(chan bool), make(chan bool)
	s.InCommit = func() error {
		began <- true
		<-fail
		s.InCommit = nil
		return syscall.EIO
	}
	s.Put(key(1), []byte("a"), nil)
	<-began
	wrote := make(chan error)
	go func() { wrote <- o.Write(map[string][]byte{"5": []byte("e")}) }()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		waits = len(s.own) == 1
		s.mu.Unlock()
	}
	fail <- true
	if err := <-wrote; !errors.Is(err, syscall.EIO) {
		t.Errorf("behind a commit that fails: %v, want EIO", err)
	}
	if err := o.Write(map[string][]byte{"2": nil, "4": []byte("d")}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s, rows := open(t, dir)
	same(t, rows, map[Key]string{})
	got := make(map[string]string)
	if err := s.Own("memory").All(func(k string, v []byte) { got[k] = string(v) }); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"1": "a", "4": "d"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSharedCommits has changes come while a commit is under way: all of them are
// in the next one.
func TestSharedCommits(t *testing.T) {
	s, _ := open(t, t.TempDir())
	commits := 0
	began, goOn := make(chan bool), make(chan bool)
	s.InCommit = func() error {
		if commits++; commits == 1 {
			began <- true
			<-goOn
		}
		return nil
	}
	s.Put(key(1), []byte("a"), nil)
	<-began
	var waiters sync.WaitGroup
	var put sync.WaitGroup
	for n := range uint64(100) {
		put.Add(1)
		waiters.Go(func() {
			number := s.Put(key(n+2), []byte("b"), nil)
			put.Done()
			if err := s.Wait(number); err != nil {
				t.Error(err)
			}
		})
	}
	put.Wait()
	close(goOn)
	waiters.Wait()
	mustClose(t, s)
	if commits != 2 {
		t.Errorf("%d commits of 101 changes, want 2", commits)
	}
}

// TestForeignDatabase: a file of bbolt that is not ours is refused.
func TestForeignDatabase(t *testing.T) {
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(dir, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want that it is damaged", err)
	}
}

// TestAwaitInside has one wait, for a change and for a subsystem's rows, with the lock
// that Undo takes.
func TestAwaitInside(t *testing.T) {
	s, _ := open(t, t.TempDir())
	var lock sync.Mutex
	began, fail := make(chan bool), make(chan bool)
	s.InCommit = func() error {
		began <- true
		<-fail
		return syscall.EIO
	}
	s.Undo = func([]Change, error) {
		lock.Lock()
		defer lock.Unlock()
		s.Discard()
		s.InCommit = nil
	}
	lock.Lock()
	first := s.Put(key(1), []byte("a"), nil)
	<-began
	fail <- true
	if err := s.AwaitInside(first); !errors.Is(err, syscall.EIO) {
		t.Errorf("in the commit: %v, want EIO", err)
	}
	if err := s.AwaitInside(s.Put(key(2), []byte("b"), nil)); !errors.Is(err, syscall.EIO) {
		t.Errorf("before it is undone: %v, want EIO", err)
	}
	if err := s.Own("x").Write(map[string][]byte{"a": nil}); !errors.Is(err, syscall.EIO) {
		t.Errorf("a subsystem's rows: %v, want EIO", err)
	}
	lock.Unlock()
	third := s.Put(key(3), []byte("c"), nil)
	err := s.Wait(third)
	for range 100 {
		if err == nil {
			break
		}
		third = s.Put(key(3), []byte("c"), nil) // it was discarded with the others
		err = s.Wait(third)
	}
	if err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
