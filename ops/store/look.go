package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Seen is what Look has found in a state directory.
type Seen struct {
	Rows   int
	Holder int // the process that has it, 0 for none that can be seen
}

// Look looks at a state directory as Open does and changes nothing: it makes nothing
// and takes no lock, so that it is in nobody's way. Its errors are Open's, but for
// ErrInUse, since a server may have it, and change it meanwhile, and for ErrOpen. One
// that has no file yet is os.ErrNotExist.
func Look(dir string) (Seen, error) {
	return Read(dir, func(Key, []byte) error { return nil })
}

// Read is Look that calls f for each row of a file that is whole, as Open does.
func Read(dir string, f func(k Key, value []byte) error) (Seen, error) {
	seen := Seen{Holder: holder(filepath.Join(dir, lockName))}
	path := filepath.Join(dir, FileName)
	content, err := readFile(path)
	for range looks {
		if err != nil {
			return seen, err
		}
		_, err = check(content, func(k Key, value []byte) error { seen.Rows++; return f(k, value) })
		if err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			return seen, err
		}
		// It may have been written to while it was read. What is damaged stays as
		// it is.
		time.Sleep(lookAgain)
		again, errRead := readFile(path)
		if errRead == nil && bytes.Equal(again, content) {
			return seen, err
		}
		content, err = again, errRead
	}
	return seen, errBusy
}

var readFile = os.ReadFile // another in a test

// How often Look reads a file that is never the same, and what it waits between.
const (
	looks     = 20
	lookAgain = 20 * time.Millisecond
)

var errBusy = errors.New("it is written to all the time")

// holder is the process that has locked a file. Taking the lock to find out would
// refuse a server that starts just then.
func holder(path string) int {
	lock, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer lock.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil {
		return 0
	}
	text, _ := io.ReadAll(io.LimitReader(lock, 32))
	written := strings.TrimSpace(string(text))
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	inode := fmt.Sprintf(":%d", st.Ino)
	here := fmt.Sprintf("%02x:%02x%s", unix.Major(st.Dev), unix.Minor(st.Dev), inode)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		// Some file systems have another device number here than stat(2) gives.
		if pid, err := strconv.Atoi(f[4]); err == nil && (f[5] == here || f[4] == written && strings.HasSuffix(f[5], inode)) {
			return pid
		}
	}
	return 0
}
