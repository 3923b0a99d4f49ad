package p9srv

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
)

// allIDs is how many uids there are: the last number is nobody's.
const allIDs = 1<<32 - 1

// strangersID is the uid that the kernel shows for all users who have none in the user
// namespace of this process. ok is false where all have one, as outside of any such namespace.
var strangersID = sync.OnceValues(func() (uid uint32, ok bool) {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if errors.Is(err, os.ErrNotExist) || err == nil && mapsAll(string(uids)) {
		return 0, false
	}
	uid = squashed // the kernel's default
	if b, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			uid = uint32(n)
		}
	}
	return uid, true
})

// mapsAll reports whether all uids are in a uid_map, whose ranges do not overlap.
func mapsAll(text string) bool {
	n := uint64(0)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 {
			length, _ := strconv.ParseUint(f[2], 10, 32)
			n += length
		}
	}
	return n >= allIDs
}

var errStrangers = errors.New("its uid is that of all users who have none in the server's user namespace")

// checkNumber is an error for a uid by which nobody is known.
func checkNumber(uid uint32) error {
	if strangers, ok := strangersID(); ok && uid == strangers {
		return errStrangers
	}
	return nil
}
