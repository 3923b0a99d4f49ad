package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	path := filepath.Join(s.dir, FileName)
	fresh := path + freshSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, options)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			db.Close()
			os.Remove(fresh)
		}
	}()
	db.NoSync = true // until it is whole
	if err := bbolt.Compact(db, s.db, shrinkBatch); err != nil {
		return err
	}
	if err := db.Sync(); err != nil {
		return err
	}
	db.NoSync = false
	content, err := os.ReadFile(fresh)
	if err != nil {
		return err
	}
	if sum, err := check(content, func(Key, []byte) error { return nil }); err != nil || sum != s.sum {
		return fmt.Errorf("what was written anew is not what there is: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	s.moved = true
	_ = s.keepName() // or by the next commit
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	old := s.db
	s.db = db
	_ = old.Close() // nobody reads what it has any more
	return nil
}

// keepName has the directory kept on disk after the file was written anew: without it a
// crash of the host would bring the one back that there was, without the commits since.
func (s *Store) keepName() error {
	if !s.moved {
		return nil
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.moved = false
	return nil
}
