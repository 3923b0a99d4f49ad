package ops

import (
	"fmt"
	"maps"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// perm is what permission to a node is decided by.
type perm struct {
	uid, gid uint32
	mode     uint16 // permission bits
}

// attrs is what a container carries for ops: tree.Container.Data.
type attrs struct {
	dir perm

	// Nanoseconds since the epoch. A change of the entries below sets them
	// without a lock.
	mtime, ctime atomic.Int64

	// maker is the owner that control files have until they are given
	// another; theirs is in files, by row id, if anything of it was changed.
	makerUID, makerGID uint32
	files              map[uint16]fileAttrs

	// number is that of the last change that the Journal was told of, 0 without;
	// touched: the times have changed since.
	number  uint64
	touched bool
}

type fileAttrs struct {
	perm
	times
}

// times are when a file was changed and read last. Nobody notes that it is read: atime is
// mtime until somebody sets it.
type times struct {
	mtime, own int64
	set        bool // own is atime
}

func (t times) atime() int64 {
	if t.set {
		return t.own
	}
	return t.mtime
}

// dirRow stands for the directory in attrs.files: only its atime is there.
const dirRow = ^uint16(0)

// dirTimes are those of the directory.
func (a *attrs) dirTimes() times {
	t := a.files[dirRow].times
	t.mtime = a.mtime.Load()
	return t
}

// setDirTimes sets them. Update.
func (a *attrs) setDirTimes(t times) {
	a.mtime.Store(t.mtime)
	if _, had := a.files[dirRow]; t.set || had {
		a.setFile(dirRow, fileAttrs{times: t})
	}
}

func newAttrs(uid, gid uint32, mode uint16) *attrs {
	a := new(attrs)
	a.init(uid, gid, mode)
	return a
}

func (a *attrs) init(uid, gid uint32, mode uint16) {
	a.dir = perm{uid, gid, mode & 0o777}
	a.makerUID, a.makerGID = uid, gid
	a.touch()
}

// touch notes that something was made, removed or renamed in the directory. With the
// tree's mu held, or before it can be seen.
func (a *attrs) touch() {
	a.touched = true
	now := time.Now().UnixNano()
	a.mtime.Store(now)
	a.ctime.Store(now)
}

// rootAttrs is what the root of a hierarchy carries.
type rootAttrs struct {
	attrs
	agent string // release_agent; guarded as attributes are
	log   *eventLog
}

// attrsOf is what a container carries.
func attrsOf(c *tree.Container) *attrs {
	if c.IsRoot() {
		return &rootOf(c.Hierarchy()).attrs
	}
	return c.Data().(*attrs)
}

// rootOf is what the root of a hierarchy carries.
func rootOf(h *tree.Hierarchy) *rootAttrs { return h.Root().Data().(*rootAttrs) }

// file is what a control file has: its own, or what follows from its row.
func (a *attrs) file(r *row) fileAttrs {
	if fa, ok := a.files[r.id]; ok {
		return fa
	}
	return fileAttrs{perm{a.makerUID, a.makerGID, r.mode}, times{mtime: a.ctime.Load()}}
}

// setFile changes the attributes of the control file of a row. The map is replaced, not
// changed: most containers share none, and the few are small.
func (a *attrs) setFile(id uint16, fa fileAttrs) {
	files := maps.Clone(a.files)
	if files == nil {
		files = make(map[uint16]fileAttrs, 1)
	}
	files[id] = fa
	a.files = files
}

// renewFiles forgets the attributes of the root's files that a remount took away,
// so that new ones of the same names do not have them. Update.
func (fs *FS) renewFiles(h *tree.Hierarchy) {
	a := attrsOf(h.Root())
	files := make(map[uint16]fileAttrs)
	if dir, ok := a.files[dirRow]; ok {
		files[dirRow] = dir
	}
	for _, r := range fs.table(h.Root()).rows {
		if fa, ok := a.files[r.id]; ok {
			files[r.id] = fa
		}
	}
	a.files = files
}

// Bits of an access, as in a mode.
const (
	mayRead   = 4
	mayWrite  = 2
	maySearch = 1
)

// allowed decides by mode, owner and groups, as any file system does: EACCES.
func (at *attachment) allowed(p perm, want uint16) error {
	if at.privileged() {
		return nil
	}
	bits := p.mode
	switch {
	case p.uid == at.caller.UID:
		bits >>= 6
	case at.caller.InGroup(p.gid):
		bits >>= 3
	}
	if want&^bits != 0 {
		return fmt.Errorf("mode %04o, owner %d, group %d: %w", p.mode, p.uid, p.gid, syscall.EACCES)
	}
	return nil
}

// allowedIn is allowed for a directory, where something in it is what is asked for.
func (at *attachment) allowedIn(p perm, want uint16) error {
	err := at.allowed(p, want)
	if err != nil {
		err = fmt.Errorf("its directory has %w", err)
	}
	return err
}

var errNotFileOwner = fmt.Errorf("only its owner may: %w", syscall.EPERM)

// nobodysID is no user's and no group's: chown(2) has it for none.
const nobodysID = ^uint32(0)

// change applies a setattr to an owner, mode and times. Who may: the owner and
// the privileged for the mode; the privileged for the owner; the owner, to a
// group of his, for the group; the owner, and for the time of now who may write,
// for times. Otherwise EPERM; EINVAL for what is no time, user or group, and for a size
// other than 0, which would not be a truncation.
func (at *attachment) change(p *perm, t *times, valid p9.SetAttrMask, attr p9.SetAttr) error {
	if err := checkAttr(valid, attr); err != nil {
		return err
	}
	if err := at.maySetAttr(*p, valid, attr); err != nil {
		return err
	}
	if valid.Permissions {
		p.mode = uint16(attr.Permissions) & 0o777
	}
	if valid.UID {
		p.uid = uint32(attr.UID)
	}
	if valid.GID {
		p.gid = uint32(attr.GID)
	}
	t.change(valid, attr)
	return nil
}

// checkAttr is EINVAL for what nothing can be set to.
func checkAttr(valid p9.SetAttrMask, attr p9.SetAttr) error {
	if valid.Size && attr.Size != 0 {
		return fmt.Errorf("no file here has a size to set: %w", syscall.EINVAL)
	}
	if valid.MTimeNotSystemTime && attr.MTimeNanoSeconds >= second || valid.ATimeNotSystemTime && attr.ATimeNanoSeconds >= second {
		return fmt.Errorf("a second has fewer nanoseconds: %w", syscall.EINVAL)
	}
	if valid.UID && uint32(attr.UID) == nobodysID || valid.GID && uint32(attr.GID) == nobodysID {
		return fmt.Errorf("%d is no user or group: %w", nobodysID, syscall.EINVAL)
	}
	return nil
}

// maySetAttr is EPERM, or what allowed says, for who may not set what he asks for.
func (at *attachment) maySetAttr(p perm, valid p9.SetAttrMask, attr p9.SetAttr) error {
	owner := at.privileged() || p.uid == at.caller.UID
	if valid.Permissions && !owner {
		return errNotFileOwner
	}
	if valid.UID && uint32(attr.UID) != p.uid && !at.privileged() {
		return tree.ErrNotPrivileged
	}
	if valid.GID && uint32(attr.GID) != p.gid && !at.privileged() &&
		!(owner && at.caller.InGroup(uint32(attr.GID))) {
		return fmt.Errorf("only its owner may, to a group of his: %w", syscall.EPERM)
	}
	if (valid.ATimeNotSystemTime || valid.MTimeNotSystemTime) && !owner {
		return errNotFileOwner
	}
	if (valid.ATime || valid.MTime) && !owner {
		return at.allowed(p, mayWrite)
	}
	return nil
}

// change applies a setattr to times.
func (t *times) change(valid p9.SetAttrMask, attr p9.SetAttr) {
	was, now := t.atime(), time.Now().UnixNano()
	switch {
	case valid.MTimeNotSystemTime:
		t.mtime = join(attr.MTimeSeconds, attr.MTimeNanoSeconds)
	case valid.MTime:
		t.mtime = now
	}
	switch {
	case valid.ATimeNotSystemTime:
		t.own, t.set = join(attr.ATimeSeconds, attr.ATimeNanoSeconds), true
	case valid.ATime && valid.MTime && !valid.MTimeNotSystemTime:
		t.own, t.set = 0, false // both are of now
	case valid.ATime:
		t.own, t.set = now, true
	case valid.MTimeNotSystemTime:
		t.own, t.set = was, true // it is not what was asked for
	}
}

// fill makes a p9.Attr.
func fill(p perm, typ p9.FileMode, nlink int, t times, ctime int64) p9.Attr {
	asec, ansec := split(t.atime())
	msec, mnsec := split(t.mtime)
	csec, cnsec := split(ctime)
	return p9.Attr{
		Mode:      typ | p9.FileMode(p.mode),
		UID:       p9.UID(p.uid),
		GID:       p9.GID(p.gid),
		NLink:     p9.NLink(nlink),
		BlockSize: blockSize,

		ATimeSeconds: asec, ATimeNanoSeconds: ansec,
		MTimeSeconds: msec, MTimeNanoSeconds: mnsec,
		CTimeSeconds: csec, CTimeNanoSeconds: cnsec,
	}
}

// Times are nanoseconds since 1970, which reaches so many seconds either way.
const (
	second     = 1_000_000_000
	maxSeconds = 9_000_000_000
)

// join is a time of the wire.
func join(sec, nsec uint64) int64 {
	return min(max(int64(sec), -maxSeconds), maxSeconds)*second + int64(nsec)
}

// split is a time as the wire has it, which can be before 1970.
func split(ns int64) (sec, nsec uint64) {
	n := ns % second
	if n < 0 {
		n += second
	}
	return uint64((ns - n) / second), uint64(n)
}

const blockSize = 4096
