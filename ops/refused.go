package ops

import (
	"fmt"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// What no file here can do (SPEC §3 "Others").

// refuse is ENODEV in a removed container, and the error anywhere else. The name is that of
// what was to be in the directory, if any.
func (f *file) refuse(op, name string, why error) error {
	if err := f.gone(); err != nil {
		return wire(err)
	}
	return f.at.told(deed{op: op, node: f.n, name: name}, why)
}

// Create is p9.File's: regular files are not made by clients.
func (f *file) Create(name string, _ p9.OpenFlags, _ p9.FileMode, _ p9.UID, _ p9.GID) (p9.File, p9.QID, uint32, error) {
	return nil, p9.QID{}, 0, f.refuse("create", name, errNoFile)
}

var errNoFile = fmt.Errorf("there is no such file, and only containers can be made, by mkdir: %w", syscall.EACCES)

// Symlink is p9.File's.
func (f *file) Symlink(string, string, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, f.refuse("symlink", "", linux.EPERM)
}

// Link is p9.File's.
func (f *file) Link(p9.File, string) error { return f.refuse("link", "", linux.EPERM) }

// Mknod is p9.File's.
func (f *file) Mknod(string, p9.FileMode, uint32, uint32, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, f.refuse("mknod", "", linux.EPERM)
}

// Readlink is p9.File's.
func (f *file) Readlink() (string, error) { return "", linux.EINVAL }

// SetXattr is p9.File's.
func (f *file) SetXattr(string, []byte, p9.XattrFlags) error { return linux.EOPNOTSUPP }

// GetXattr is p9.File's.
func (f *file) GetXattr(string) ([]byte, error) { return nil, linux.EOPNOTSUPP }

// ListXattrs is p9.File's.
func (f *file) ListXattrs() ([]string, error) { return nil, linux.EOPNOTSUPP }

// RemoveXattr is p9.File's.
func (f *file) RemoveXattr(string) error { return linux.EOPNOTSUPP }

// FSync is p9.File's: what was answered is done.
func (f *file) FSync() error { return wire(f.gone()) }

// Lock is p9.File's. Control files have no locks: the advice is taken.
func (f *file) Lock(int, p9.LockType, p9.LockFlags, uint64, uint64, string) (p9.LockStatus, error) {
	if err := f.gone(); err != nil {
		return p9.LockStatusError, wire(err)
	}
	return p9.LockStatusOK, nil
}

// Renamed is p9.File's.
func (f *file) Renamed(p9.File, string) {}
