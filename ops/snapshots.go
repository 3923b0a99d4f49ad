package ops

import (
	"sync"

	"github.com/hugelgupf/p9/linux"
)

// maxSnapshots bounds the bytes that the files of one user of a peer hold for reads to
// come: what tasks shows can be large, and a fid costs a client nothing. Tests lower
// it.
var maxSnapshots = 64 << 20

// snapshots counts what files hold. Its lock is a leaf.
type snapshots struct {
	mu    sync.Mutex
	bytes map[holder]int
}

// holder is whose files are counted together, over all connections.
type holder struct {
	origin string
	uid    uint32
}

// change counts so many bytes more, unless these would be too many. The first are
// always let in.
func (k *snapshots) change(who holder, by int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.bytes[who] + by
	switch {
	case by > 0 && n > maxSnapshots && n > by:
		return false
	case n == 0:
		delete(k.bytes, who)
		return true
	case k.bytes == nil:
		k.bytes = make(map[holder]int)
	}
	k.bytes[who] = n
	return true
}

// holdSnapshot counts what the file holds now in place of what it held: EMFILE when that
// is too much, and then it holds nothing.
func (f *file) holdSnapshot() error {
	who := holder{f.at.caller.Origin, f.at.caller.UID}
	n := cap(f.content) + 4*cap(f.pids)
	if !f.at.fs.snapshots.change(who, n-f.bytes) {
		f.content, f.pids = nil, nil
		f.at.fs.snapshots.change(who, -f.bytes)
		f.bytes = 0
		return linux.EMFILE
	}
	f.bytes = n
	return nil
}

// dropSnapshot is for a file that is closed.
func (f *file) dropSnapshot() {
	if f.bytes > 0 {
		f.content, f.pids = nil, nil
		f.holdSnapshot()
	}
}
