package ops

import (
	"sync"

	"github.com/hugelgupf/p9/linux"
)

// maxSnapshots bounds the bytes that the files of one user of a peer keep for reads to
// come: what tasks shows can be large, and a fid costs a client nothing. Tests lower
// it.
var maxSnapshots = 64 << 20

// snapshots counts what files keep. Its lock is a leaf.
type snapshots struct {
	mu    sync.Mutex
	bytes map[keeper]int
}

// keeper is whose files are counted together, over all connections.
type keeper struct {
	origin string
	uid    uint32
}

// change counts so many bytes more, unless these would be too many. The first are
// always let in.
func (k *snapshots) change(who keeper, by int) bool {
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
		k.bytes = make(map[keeper]int)
	}
	k.bytes[who] = n
	return true
}

// keep counts what the file keeps now in place of what it kept: EMFILE when that is
// too much, and then it keeps nothing.
func (f *file) keep() error {
	who := keeper{f.at.caller.Origin, f.at.caller.UID}
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

// keepNothing is for a file that is closed.
func (f *file) keepNothing() {
	if f.bytes > 0 {
		f.content, f.pids = nil, nil
		f.keep()
	}
}
