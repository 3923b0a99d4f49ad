package ops

import (
	"syscall"

	"github.com/hugelgupf/p9/p9"
)

// readOnly is a file of a caller that may change nothing (SPEC §17, access=ro):
// whatever would change something is EROFS, permitted or not.
type readOnly struct{ *file }

// openTruncate is O_TRUNC of Linux in p9.OpenFlags, which has no name for it.
const openTruncate p9.OpenFlags = 0o1000

func (f readOnly) erofs(op, name string) error {
	return f.at.told(deed{op: op, node: f.n, name: name}, syscall.EROFS)
}

func (f readOnly) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.file.Walk(names)
	if err != nil {
		return qids, nil, err
	}
	return qids, readOnly{to.(*file)}, nil
}

func (f readOnly) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	if flags.Mode() != p9.ReadOnly || flags&openTruncate != 0 {
		return p9.QID{}, 0, f.erofs("open", "")
	}
	return f.file.Open(flags)
}

func (f readOnly) SetAttr(p9.SetAttrMask, p9.SetAttr) error  { return f.erofs("setattr", "") }
func (f readOnly) WriteAt([]byte, int64) (int, error)        { return 0, f.erofs("write", "") }
func (f readOnly) WriteNow(b []byte, off int64) (int, error) { return f.WriteAt(b, off) }
func (f readOnly) Remove() error                             { return f.erofs("remove", "") }
func (f readOnly) UnlinkAt(name string, _ uint32) error      { return f.erofs("unlink", name) }
func (f readOnly) Rename(p9.File, string) error              { return f.erofs("rename", "") }
func (f readOnly) Link(_ p9.File, name string) error         { return f.erofs("link", name) }

func (f readOnly) RenameAt(name string, _ p9.File, _ string) error { return f.erofs("rename", name) }

func (f readOnly) Mkdir(name string, _ p9.FileMode, _ p9.UID, _ p9.GID) (p9.QID, error) {
	return p9.QID{}, f.erofs("mkdir", name)
}

func (f readOnly) Create(name string, _ p9.OpenFlags, _ p9.FileMode, _ p9.UID, _ p9.GID) (p9.File, p9.QID, uint32, error) {
	return nil, p9.QID{}, 0, f.erofs("create", name)
}

func (f readOnly) Symlink(_, name string, _ p9.UID, _ p9.GID) (p9.QID, error) {
	return p9.QID{}, f.erofs("symlink", name)
}

func (f readOnly) Mknod(name string, _ p9.FileMode, _, _ uint32, _ p9.UID, _ p9.GID) (p9.QID, error) {
	return p9.QID{}, f.erofs("mknod", name)
}
