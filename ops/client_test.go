package ops

import (
	"io"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// client is who asks, at the root of an attach.
type client struct {
	t    testing.TB
	root p9.File
}

// as attaches to the whole name space.
func (w *world) as(c *Caller) *client {
	w.t.Helper()
	return w.attach(c, "")
}

// attach attaches and must succeed. The fid is clunked when the test ends.
func (w *world) attach(c *Caller, aname string) *client {
	w.t.Helper()
	f, err := w.fs.Attach(c, aname)
	if err != nil {
		w.t.Fatalf("attach %q: %v", aname, err)
	}
	k := &client{w.t, f}
	w.t.Cleanup(func() { f.Close() })
	return k
}

func (k *client) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// walk walks to a path. An element can be anything but a slash.
func (k *client) walk(path string) (p9.File, error) {
	_, f, err := k.root.Walk(names(path))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// open walks to a path and opens what is there.
func (k *client) open(path string, flags p9.OpenFlags) (p9.File, error) {
	f, err := k.walk(path)
	if err != nil {
		return nil, err
	}
	if _, _, err := f.Open(flags); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (k *client) read(path string) (string, error) {
	f, err := k.open(path, p9.ReadOnly)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readAll(f)
}

// want reads what must be there.
func (k *client) want(path, want string) {
	k.t.Helper()
	if got, err := k.read(path); err != nil || got != want {
		k.t.Errorf("%s has %q, %v; want %q", path, got, err, want)
	}
}

// readAll reads from offset 0 to the end in pieces, as a client does.
func readAll(f p9.File) (string, error) {
	var all []byte
	for b := make([]byte, 100); ; {
		n, err := f.ReadAt(b, int64(len(all)))
		all = append(all, b[:n]...)
		if err == io.EOF || (err == nil && n == 0) {
			return string(all), nil
		}
		if err != nil {
			return string(all), err
		}
	}
}

func (k *client) write(path, data string) error {
	f, err := k.open(path, p9.WriteOnly)
	if err != nil {
		return err
	}
	defer f.Close()
	return writeTo(f, data)
}

func writeTo(f p9.File, data string) error {
	n, err := f.WriteAt([]byte(data), 0)
	if err == nil && n != len(data) {
		return linux.EIO
	}
	return err
}

// parent walks to the directory that a path's last element is in.
func (k *client) parent(path string) (dir p9.File, name string, err error) {
	i := strings.LastIndexByte(path, '/')
	dir, err = k.walk(path[:max(i, 0)])
	return dir, path[i+1:], err
}

func (k *client) mkdir(path string) error { return k.mkdirMode(path, 0o755) }

func (k *client) mkdirMode(path string, mode p9.FileMode) error {
	dir, name, err := k.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = dir.Mkdir(name, mode, p9.NoUID, p9.NoGID)
	return err
}

func (k *client) rmdir(path string) error { return k.unlinkAt(path, atRemovedir) }

func (k *client) unlink(path string) error { return k.unlinkAt(path, 0) }

func (k *client) unlinkAt(path string, flags uint32) error {
	dir, name, err := k.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.UnlinkAt(name, flags)
}

// rename renames to another path, by Trenameat.
func (k *client) rename(path, to string) error {
	dir, name, err := k.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	toDir, toName, err := k.parent(to)
	if err != nil {
		return err
	}
	defer toDir.Close()
	return dir.RenameAt(name, toDir, toName)
}

func (k *client) attr(path string) (p9.Attr, error) {
	f, err := k.walk(path)
	if err != nil {
		return p9.Attr{}, err
	}
	defer f.Close()
	_, _, a, err := f.GetAttr(p9.AttrMask{})
	return a, err
}

func (k *client) setattr(path string, valid p9.SetAttrMask, a p9.SetAttr) error {
	f, err := k.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.SetAttr(valid, a)
}

func (k *client) chmod(path string, mode p9.FileMode) error {
	return k.setattr(path, p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: mode})
}

func (k *client) chown(path string, uid, gid uint32) error {
	return k.setattr(path, p9.SetAttrMask{UID: true, GID: true}, p9.SetAttr{UID: p9.UID(uid), GID: p9.GID(gid)})
}

// list lists a directory, so many entries at a time.
func (k *client) list(path string, count uint32) (all p9.Dirents, err error) {
	f, err := k.open(path, p9.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for offset := uint64(0); ; offset = all[len(all)-1].Offset {
		ents, err := f.Readdir(offset, count)
		if err != nil || len(ents) == 0 {
			return all, err
		}
		all = append(all, ents...)
	}
}

// names are those of a directory's entries but `.` and `..`.
func (k *client) names(path string) (names []string) {
	k.t.Helper()
	ents, err := k.list(path, 1000)
	if err != nil {
		k.t.Fatalf("list %s: %v", path, err)
	}
	for _, e := range ents[2:] {
		names = append(names, e.Name)
	}
	return names
}
