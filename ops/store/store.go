package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// A Bucket is a kind of rows.
type Bucket uint8

// The buckets, but for those of Own.
const (
	Facts       Bucket = iota // by name, of the state as a whole
	Hierarchies               // by number
	Containers                // by id
	Groups                    // by number
	Roots                     // by the name of the subsystem
	Tasks                     // by tid
	buckets
)

var bucketNames = [buckets]string{"facts", "hierarchies", "containers", "groups", "roots", "tasks"}

// A Key names a row: by a number or, where that is 0, by a name.
type Key struct {
	Bucket Bucket
	Num    uint64
	Name   string
}

func (k Key) append(b []byte) []byte {
	if k.Name != "" {
		return append(b, k.Name...)
	}
	return binary.BigEndian.AppendUint64(b, k.Num)
}

// Store is an open state directory.
type Store struct {
	root   *os.Root // the directory, wherever it is by now
	opened *os.File // the same
	lock   *os.File

	// dbMu is held by who is not the committer while he reads db, and while that is
	// replaced. It comes after mu.
	dbMu sync.RWMutex
	db   *bbolt.DB

	// Undo, if any, is called after a commit that failed: of those changes, and of
	// all that Discard returns, nothing was kept. Set while nothing is put: before,
	// there is nothing that could be undone.
	Undo func(failed []Change, err error)

	// InCommit is called, if any, within each commit: tests have it fail there, or
	// end.
	InCommit func() error

	mu        sync.Mutex
	pending   map[Key]row
	own       []*owned
	discarded uint64   // all up to this were taken back
	failed    []failed // in order
	failure   error    // the last
	undoing   bool     // Undo is called, and has not discarded yet
	closed    bool
	work      sync.Cond // pending, own or closed
	progress  sync.Cond // committed or failures
	done      sync.WaitGroup

	// Changed with mu held.
	last      atomic.Uint64 // number of the last Put
	committed atomic.Uint64 // all up to this are kept, or were undone
	failures  atomic.Uint64

	// Used by the committer, and so by Undo.
	sum      digest      // of what is in the file
	torn     error       // why it is not known what is
	file     os.FileInfo // which one is open
	moved    bool        // the file is another, and the directory may not say so on disk
	noShrink time.Time   // before
}

// row is the value of a row, nil if it is removed, and what it is about.
type row struct {
	value []byte
	about any
}

// A Change is a row of which a change was not kept, and what Put was told that it
// is about.
type Change struct {
	Key   Key
	About any
}

// owned is what a subsystem wants to be written.
type owned struct {
	bucket string
	rows   map[string][]byte
	err    error
	done   bool
}

// Put sets a row, or with a nil value removes it. The value is the Store's from
// now on. Undo is told what it is about.
func (s *Store) Put(k Key, value []byte, about any) (number uint64) {
	return s.PutAll(Row{k, value, about})
}

// A Row is what Put is given.
type Row struct {
	Key   Key
	Value []byte
	About any
}

// PutAll is Put of several rows that are kept together: all or none. Of no rows the number is 0,
// which there is nothing to wait for.
func (s *Store) PutAll(rows ...Row) (number uint64) {
	if len(rows) == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.pending[r.Key] = row{r.Value, r.About}
	}
	s.work.Signal()
	return s.last.Add(1)
}

// Last is the number of the last Put.
func (s *Store) Last() uint64 { return s.last.Load() }

// Committed reports whether what has the number is kept, or was undone.
func (s *Store) Committed(number uint64) bool { return number <= s.committed.Load() }

// Resolved is up to which number changes are kept or undone.
func (s *Store) Resolved() uint64 { return s.committed.Load() }

// Failures counts the commits that failed: what was looked at between two equal
// values was not undone meanwhile.
func (s *Store) Failures() uint64 { return s.failures.Load() }

// Wait returns when the change that has the number is kept, or with the error if it
// could not be, after it was undone.
func (s *Store) Wait(number uint64) error {
	if s.Committed(number) && s.failures.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.Committed(number) {
		s.progress.Wait()
	}
	return s.outcomeLocked(number)
}

// AwaitInside is Wait for who has locks that Undo takes: when a commit fails it
// returns before anything is undone.
func (s *Store) AwaitInside(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.Committed(number) && !s.undoing {
		s.progress.Wait()
	}
	if s.undoing && !s.Committed(number) {
		return s.failure // it will be discarded
	}
	return s.outcomeLocked(number)
}

// outcomeLocked is what became of a change that is kept or undone.
func (s *Store) outcomeLocked(number uint64) error {
	for _, f := range s.failed {
		if f.after < number && number <= f.last {
			return f.err
		}
	}
	return nil
}

// maxFailed is how many failures are remembered for those who wait: they are told
// long before there are so many.
const maxFailed = 1024

// failed are the numbers of changes that were undone, and why.
type failed struct {
	after, last uint64
	err         error
}

// Discard takes back all that was put and is in no commit yet. Undo calls it, with
// the locks held that keep changes out.
func (s *Store) Discard() (changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.pending {
		changes = append(changes, Change{k, r.about})
	}
	clear(s.pending)
	s.discarded, s.undoing = s.Last(), false
	return changes
}

// Get is the value of a row that is kept, nil if there is none. It is for Undo.
func (s *Store) Get(k Key) (value []byte, err error) {
	if s.torn != nil {
		return nil, s.torn
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		if row := tx.Bucket([]byte(bucketNames[k.Bucket])).Get(k.append(nil)); row != nil {
			value = append([]byte{}, row[:len(row)-sumSize]...)
		}
		return nil
	})
	return value, err
}

// run commits what is there until the Store is closed.
func (s *Store) run() {
	defer s.done.Done()
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && len(s.own) == 0 && !s.closed {
			s.work.Wait()
		}
		rows, own, number := s.pending, s.own, s.Last()
		s.pending, s.own = make(map[Key]row), nil
		ends := s.closed && len(rows) == 0 && len(own) == 0
		s.mu.Unlock()
		if ends {
			return
		}
		err := s.commit(rows, own)
		if err != nil {
			s.fail(err, rows, own, number)
			continue
		}
		s.mu.Lock()
		s.committed.Store(number)
		finish(own, nil)
		s.progress.Broadcast()
		s.mu.Unlock()
		s.shrink()
	}
}

func finish(own []*owned, err error) {
	for _, o := range own {
		o.err, o.done = err, true
	}
}

// fail undoes a commit that failed, of what was put up to a number. Who waits with
// the locks that Undo takes is told before.
func (s *Store) fail(err error, rows map[Key]row, own []*owned, number uint64) {
	err = &CommitError{err}
	s.mu.Lock()
	s.failures.Add(1)
	s.failure = err
	undo := s.Undo
	s.undoing = undo != nil
	finish(own, err)
	finish(s.own, err)
	s.own = nil
	s.progress.Broadcast()
	s.mu.Unlock()
	if undo != nil {
		changes := make([]Change, 0, len(rows))
		for k, r := range rows {
			changes = append(changes, Change{k, r.about})
		}
		undo(changes, err)
	}
	s.mu.Lock()
	if len(s.failed) == maxFailed {
		s.failed = slices.Delete(s.failed, 0, maxFailed/2)
	}
	last := max(number, s.discarded)
	s.failed = append(s.failed, failed{s.committed.Load(), last, err})
	s.failures.Add(1) // before the next look at what was undone
	s.committed.Store(last)
	s.undoing = false
	s.progress.Broadcast()
	s.mu.Unlock()
}

// CommitError is why something could not be kept. It has the errno of the host,
// EIO where it gave none.
type CommitError struct{ Err error }

func (e *CommitError) Error() string { return "state: " + e.Err.Error() }

// Unwrap gives the errno to errors.Is and errors.As.
func (e *CommitError) Unwrap() []error {
	var errno syscall.Errno
	if errors.As(e.Err, &errno) {
		return []error{e.Err}
	}
	return []error{syscall.EIO, e.Err}
}

// commit writes rows in one transaction.
func (s *Store) commit(rows map[Key]row, own []*owned) error {
	if s.torn != nil {
		return s.torn
	}
	if err := s.keepName(); err != nil {
		return err
	}
	w := written{sum: s.sum}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		w.id = tx.ID()
		keys := make([]Key, 0, len(rows))
		for k := range rows {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, compare) // neighbours share pages
		for _, k := range keys {
			name := bucketNames[k.Bucket]
			if err := w.put(tx.Bucket([]byte(name)), name, k.append(nil), rows[k].value); err != nil {
				return err
			}
		}
		for _, o := range own {
			b, err := tx.CreateBucketIfNotExists([]byte(o.bucket))
			if err != nil {
				return err
			}
			for key, value := range o.rows {
				if err := w.put(b, o.bucket, []byte(key), value); err != nil {
					return err
				}
			}
		}
		if s.InCommit != nil {
			if err := s.InCommit(); err != nil {
				return err
			}
		}
		return w.sum.put(tx)
	})
	if err != nil {
		s.takeBack(w)
		return err
	}
	s.sum = w.sum
	return nil
}

// takeBack undoes in the file what a commit has written that failed. Its last step
// is the sync of its meta page: if that fails, the page is there for all that look.
func (s *Store) takeBack(w written) {
	shows := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		shows = tx.ID() == w.id
		return nil
	})
	if err == nil && shows {
		err = s.db.Update(func(tx *bbolt.Tx) error {
			for _, f := range slices.Backward(w.former) {
				b := tx.Bucket([]byte(f.bucket))
				if f.row == nil {
					if err := b.Delete(f.key); err != nil {
						return err
					}
				} else if err := b.Put(f.key, f.row); err != nil {
					return err
				}
			}
			return s.sum.put(tx)
		})
	}
	if err != nil {
		s.torn = fmt.Errorf("a commit failed, and could not be taken back: %w", err)
	}
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Num, b.Num), strings.Compare(a.Name, b.Name))
}

// written is what a commit writes.
type written struct {
	id     int // of the transaction
	sum    digest
	former []former // in the order of writing
}

// former is a row as it was before, nil if there was none.
type former struct {
	bucket   string
	key, row []byte
}

// put sets or removes one row.
func (w *written) put(b *bbolt.Bucket, bucket string, key, value []byte) error {
	f := former{bucket, key, nil}
	if old := b.Get(key); old != nil {
		w.sum.remove(old)
		f.row = append([]byte{}, old...)
	}
	w.former = append(w.former, f)
	if value == nil {
		return b.Delete(key)
	}
	row := seal(bucket, key, value)
	w.sum.add(row)
	return b.Put(key, row)
}

// Own is the bucket of a subsystem.
type Own struct {
	s      *Store
	bucket string
}

// Own returns the bucket of the subsystem of that name.
func (s *Store) Own(subsystem string) *Own { return &Own{s, "own." + subsystem} }

// Write sets rows, those with nil values are removed, and returns when that is
// kept: all or nothing. It may be called with any lock held.
func (o *Own) Write(rows map[string][]byte) error {
	w := &owned{bucket: o.bucket, rows: rows}
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return &CommitError{syscall.EBADF}
	case s.undoing:
		return s.failure
	}
	s.own = append(s.own, w)
	s.work.Signal()
	for !w.done {
		s.progress.Wait()
	}
	return w.err
}

// All calls f for all rows that are kept, in the order of their keys. What f gets
// is its own.
func (o *Own) All(f func(key string, value []byte)) error {
	o.s.dbMu.RLock()
	defer o.s.dbMu.RUnlock()
	return o.s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(o.bucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			f(string(k), append([]byte{}, v[:len(v)-sumSize]...))
			return nil
		})
	})
}

// Close commits what is left and lets the directory go. What could not be kept is
// its error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	before := s.failures.Load()
	s.closed = true
	s.work.Signal()
	s.mu.Unlock()
	s.done.Wait()
	s.mu.Lock()
	var err error
	if s.failures.Load() != before {
		err = s.failure
	}
	s.mu.Unlock()
	if e := s.db.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("state: %w", e))
	}
	s.letGo()
	return err
}

// letGo gives the directory back.
func (s *Store) letGo() {
	if s.opened != nil {
		s.opened.Close()
	}
	if s.root != nil {
		s.root.Close()
	}
	s.lock.Close()
}
