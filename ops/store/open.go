package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Format is the version of what the rows mean. A file of a higher one is refused.
const Format = 1

// Refusals of Open. Nothing was written then.
var (
	ErrInUse   = errors.New("in use by another server")
	ErrNewer   = errors.New("of a newer format than this server knows")
	ErrDamaged = errors.New("damaged")
	ErrOpen    = errors.New("others than the server's user can write to it: who does is who says where tasks are")
)

// FileName is the file in a state directory that a server has open.
const FileName = "state.db"

const lockName = "lock"

// formatKey is the row that says what the others are.
var formatKey = Key{Bucket: Facts, Name: "format"}

// Open opens a state directory, which is made if there is none, and calls f for
// each row that it has, in the order of buckets' names and of keys. What f gets
// is only good until it returns; its error is Open's.
func Open(dir string, f func(k Key, value []byte) error) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("state directory %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkMode(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock, pending: make(map[Key]row)}
	s.work.L, s.progress.L = &s.mu, &s.mu
	if s.root, err = os.OpenRoot(dir); err == nil {
		s.opened, err = s.root.Open(".")
	}
	if err == nil {
		err = s.load(filepath.Join(dir, FileName), f)
	}
	if err != nil {
		s.letGo()
		return nil, err
	}
	s.done.Add(1)
	go s.run()
	return s, nil
}

// checkMode refuses a directory in which others can put files of theirs.
func checkMode(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	self, group := uint32(os.Geteuid()), uint32(os.Getegid())
	if st.Uid != 0 && st.Uid != self || st.Mode&0o002 != 0 || st.Mode&0o020 != 0 && st.Gid != 0 && st.Gid != group {
		return fmt.Errorf("%w (mode %04o, owner %d, group %d)", ErrOpen, st.Mode&0o7777, st.Uid, st.Gid)
	}
	return nil
}

// lockDir makes the directory this process's. The file says whose it is.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		who, _ := io.ReadAll(io.LimitReader(lock, 32))
		lock.Close()
		return nil, fmt.Errorf("%w, process %s", ErrInUse, strings.TrimSpace(string(who)))
	}
	if err == nil {
		// Where there is no room for the number, it is just not said.
		if err := lock.Truncate(0); err == nil {
			_, _ = lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
		}
		return lock, nil
	}
	lock.Close()
	return nil, fmt.Errorf("lock: %w", err)
}

// load reads the file, or makes it, and opens it for changes.
func (s *Store) load(path string, f func(Key, []byte) error) error {
	// A directory that cannot be written to is refused now, not at the first
	// change.
	switch file, err := os.OpenFile(path, os.O_RDWR, 0); {
	case errors.Is(err, os.ErrNotExist):
		if _, there := os.Lstat(path); there == nil {
			return fmt.Errorf("a link to what is not there: %w", err)
		}
		if err := create(path); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		file.Close()
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if s.sum, err = check(content, f); err != nil {
		return err
	}
	if s.file, err = os.Stat(path); err != nil {
		return err
	}
	s.db, err = bbolt.Open(path, 0o600, options)
	return err
}

// check looks at the whole file before it hands out anything.
func check(content []byte, f func(Key, []byte) error) (digest, error) {
	names := make(map[string]Bucket, len(bucketNames))
	for b, name := range bucketNames {
		names[name] = Bucket(b)
	}
	format := uint64(0)
	found := make(map[string]bool)
	sum, err := verify(content, func(bucket string, key, value []byte) error {
		found[bucket] = true
		if b, ok := names[bucket]; ok && b == Facts && string(key) == formatKey.Name && len(value) == 8 {
			format = binary.BigEndian.Uint64(value)
		}
		return nil
	})
	switch {
	case err != nil:
		return sum, err
	case format > Format:
		return sum, fmt.Errorf("%w: %d, this one knows %d", ErrNewer, format, Format)
	case format == 0:
		return sum, damaged("it does not say its format")
	}
	_, err = verify(content, func(bucket string, key, value []byte) error {
		b, ok := names[bucket]
		if !ok {
			return nil // a subsystem's
		}
		k := Key{Bucket: b, Name: string(key)}
		if b != Facts && b != Roots {
			if len(key) != 8 {
				return damaged("a key of %s", nameOf(bucket))
			}
			k = Key{Bucket: b, Num: binary.BigEndian.Uint64(key)}
		}
		if k == formatKey {
			return nil
		}
		return f(k, value)
	})
	return sum, err
}

var options = &bbolt.Options{
	Timeout:        time.Second, // nobody but us has it: the directory is locked
	NoFreelistSync: true,
	FreelistType:   bbolt.FreelistMapType,
}

// create makes an empty file, which is there as a whole or not at all.
func create(path string) error {
	fresh := path + freshSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, options)
	if err != nil {
		return noSpaceLeft(err)
	}
	defer os.Remove(fresh) // unless it has its name by then
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range append(bucketNames[:], digestBucket) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		var w written
		format := binary.BigEndian.AppendUint64(nil, Format)
		if err := w.put(tx.Bucket([]byte(bucketNames[Facts])), bucketNames[Facts], formatKey.append(nil), format); err != nil {
			return err
		}
		return w.sum.put(tx)
	})
	if e := db.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return noSpaceLeft(err)
}

// noSpaceLeft says what is meant where the write of less than was asked for has no
// errno.
func noSpaceLeft(err error) error {
	if errors.Is(err, io.ErrShortWrite) {
		return syscall.ENOSPC
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
