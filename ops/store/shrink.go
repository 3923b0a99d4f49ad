package store

import (
	"errors"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// The database uses its free pages again and gives none back: its file is as large as it
// ever had to be, and each start reads all of it. Where hardly anything of it is used it is
// written anew.
var (
	shrinkFrom = int64(16 << 20) // bytes that a file has at least; tests lower it, and the next
	shrinkPart = int64(8)        // it is so many times as large as what is in it
)

const (
	shrinkAgain = 10 * time.Minute // after one that failed
	shrinkBatch = 64 << 10         // bytes of rows in a transaction
	freshSuffix = ".new"           // of a file that is not yet in the place of FileName
)

// shrink writes the file anew, if it is worth it. It is for the committer, between two
// commits. Where it cannot be done, as for want of room, the file stays as it is.
func (s *Store) shrink() {
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
	if s.torn != nil || free < shrinkFrom/shrinkPart*(shrinkPart-1) || time.Now().Before(s.noShrink) {
		return
	}
	var size int64
	_ = s.db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	if size < shrinkFrom || free < size/shrinkPart*(shrinkPart-1) {
		return
	}
	if s.rewrite() != nil {
		s.noShrink = time.Now().Add(shrinkAgain)
	}
}

// rewrite puts a file with the same rows in the place of the one that there is. With an
// error that one stays.
func (s *Store) rewrite() (err error) {
	there, err := s.root.Lstat(FileName)
	if err != nil {
		return err
	}
	if !os.SameFile(there, s.file) {
		return errNotThere
	}
	const fresh = FileName + freshSuffix
	if err := s.root.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var db *bbolt.DB
	defer func() {
		if err != nil {
			if db != nil {
				db.Close()
			}
			_ = s.root.Remove(fresh)
		}
	}()
	var file os.FileInfo
	anew := *options
	anew.OpenFile = func(_ string, flag int, mode os.FileMode) (f *os.File, err error) {
		if f, err = s.root.OpenFile(fresh, flag|os.O_EXCL, mode); err != nil {
			return nil, err
		}
		if file, err = f.Stat(); err == nil {
			err = likeThat(f, file, there)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	if db, err = bbolt.Open(fresh, 0o600, &anew); err != nil {
		return err
	}
	db.NoSync = true // until it is whole
	if err := bbolt.Compact(db, s.db, shrinkBatch); err != nil {
		return err
	}
	if err := db.Sync(); err != nil {
		return err
	}
	db.NoSync = false
	content, err := s.root.ReadFile(fresh)
	if err != nil {
		return err
	}
	sum, err := check(content, func(Key, []byte) error { return nil })
	if err == nil && sum != s.sum {
		err = damaged("rows that were written anew are others")
	}
	if err != nil {
		return err
	}
	if err := s.root.Rename(fresh, FileName); err != nil {
		// It can have its name all the same, as on a disk of another host.
		if there, e := s.root.Lstat(FileName); e != nil || !os.SameFile(there, file) {
			return err
		}
	}
	s.file, s.moved = file, true
	_ = s.keepName() // or by the next commit
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	old := s.db
	s.db = db
	_ = old.Close() // nobody reads what it has any more
	return nil
}

// errNotThere is of a file that was moved away, or that is elsewhere, with a link to it.
var errNotThere = errors.New("what is open is not what is in the directory")

// likeThat gives a file the mode and the owners of another.
func likeThat(f *os.File, is, want os.FileInfo) error {
	a, b := is.Sys().(*syscall.Stat_t), want.Sys().(*syscall.Stat_t)
	if a.Uid != b.Uid || a.Gid != b.Gid {
		if err := f.Chown(int(b.Uid), int(b.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(want.Mode().Perm())
}

// keepName has the directory kept on disk after the file was written anew: without it a
// crash of the host would bring the one back that there was, without the commits since.
func (s *Store) keepName() error {
	if !s.moved {
		return nil
	}
	if err := s.opened.Sync(); err != nil {
		return err
	}
	s.moved = false
	return nil
}
