package ops

import (
	"fmt"
	"sort"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// node is a place in the name space. Its methods are called in View.
type node interface {
	qid() p9.QID

	// attr gives the permission that accesses are decided by, and the rest;
	// ENODEV when the node is gone.
	attr(fs *FS) (perm, p9.Attr, error)
}

// directory is a node with others below.
type directory interface {
	node
	parent() node

	// lookup finds an entry: ENOENT, or errUndrained when the entry might be
	// of a task that the model does not know yet.
	lookup(fs *FS, name string) (node, error)

	// list yields the entries that come after an offset to who lists it, in listing
	// order. `.` and `..` are not among them.
	list(f *file, after uint64, yield func(entry) bool) error
}

// entry is an element of a listing. A listing that is continued after an entry's
// offset goes on behind it, whatever came and went meanwhile.
type entry struct {
	name   string
	qid    p9.QID
	offset uint64
}

// regular is a node with contents.
type regular interface {
	node

	// drains reports whether the contents depend on what tasks did just now.
	drains() bool

	// read appends the contents to b. EINVAL when it cannot be read.
	read(at *attachment, b []byte) ([]byte, error)

	// write executes a command, outside View. EINVAL when it cannot be
	// written.
	write(at *attachment, data []byte) error
}

// errUndrained asks to drain the host's events and to look again. To a client it is ENOENT.
var errUndrained = fmt.Errorf("no such task yet: %w", syscall.ENOENT)

// walk follows names from a directory, searching each: the qids of the names
// found, and the node when all were. `..` stays at the attachment's root. View.
func (at *attachment) walk(n node, names []string) ([]p9.QID, node, error) {
	qids := make([]p9.QID, 0, len(names))
	for _, name := range names {
		d, ok := n.(directory)
		if !ok {
			return qids, nil, syscall.ENOTDIR
		}
		p, _, err := d.attr(at.fs)
		if err != nil {
			return qids, nil, err
		}
		if err := at.allowedIn(p, maySearch); err != nil {
			return qids, nil, err
		}
		switch name {
		case ".":
		case "..":
			if n != at.root {
				n = d.parent()
			}
		default:
			if n, err = d.lookup(at.fs, name); err != nil {
				return qids, nil, err
			}
		}
		qids = append(qids, n.qid())
	}
	return qids, n, nil
}

// Qid paths. A container has its id in the upper bits and 0 in the lower ones,
// where its control files have their row's id. Fixed nodes have paths that small
// that no container has them. A task's nodes have its start time and tid.
const (
	qidRowBits  = 16
	qidTopDir   = 1
	qidCtl      = 2
	qidTable    = 3
	qidProc     = 4
	qidEvents   = 5
	qidRules    = 6
	qidStatus   = 7
	qidTaskFlag = 1 << 63
)

func dirQID(path uint64) p9.QID  { return p9.QID{Type: p9.TypeDir, Path: path} }
func fileQID(path uint64) p9.QID { return p9.QID{Type: p9.TypeRegular, Path: path} }

// containerOf is the container that a node is, or is a file of; nil for the others.
func containerOf(n node) *tree.Container {
	switch n := n.(type) {
	case containerDir:
		return n.c
	case controlFile:
		return n.c
	case statusFile:
		return containerOf(n.dir)
	}
	return nil
}

// fixedDir and fixedFile are the attributes of what is always there: the
// server's user's, made when the server started.
func (fs *FS) fixedDir(nlink int) (perm, p9.Attr, error) {
	p := perm{fs.uid, fs.gid, 0o755}
	return p, fill(p, p9.ModeDirectory, nlink, times{mtime: fs.started}, fs.started), nil
}

func (fs *FS) fixedFile(mode uint16) (perm, p9.Attr, error) {
	p := perm{fs.uid, fs.gid, mode}
	return p, fill(p, p9.ModeRegular, 1, times{mtime: fs.started}, fs.started), nil
}

// containerDir is a container as a directory.
type containerDir struct{ c *tree.Container }

func (d containerDir) qid() p9.QID { return dirQID(d.c.ID() << qidRowBits) }

func (d containerDir) attr(*FS) (perm, p9.Attr, error) {
	if d.c.Removed() {
		return perm{}, p9.Attr{}, syscall.ENODEV
	}
	a := attrsOf(d.c)
	return a.dir, fill(a.dir, p9.ModeDirectory, 2+d.c.NumChildren(), a.dirTimes(), a.ctime.Load()), nil
}

func (d containerDir) parent() node {
	if d.c.IsRoot() {
		return topDir{}
	}
	return containerDir{d.c.Parent()}
}

func (d containerDir) lookup(fs *FS, name string) (node, error) {
	if d.c.Removed() {
		return nil, syscall.ENODEV
	}
	if r := fs.table(d.c).byName[name]; r != nil {
		return fs.controlFile(d.c, r), nil
	}
	if k := d.c.Child(name); k != nil {
		return containerDir{k}, nil
	}
	if name == StatusName {
		return statusFile{d}, nil
	}
	return nil, syscall.ENOENT
}

// Offsets of a listing: control files have their rows' ids, which grow and are the same with
// whatever subsystems, and children have theirs.
const offsetChildren = 1 << 32

func (d containerDir) list(f *file, after uint64, yield func(entry) bool) error {
	if d.c.Removed() {
		return syscall.ENODEV
	}
	if after < offsetChildren {
		rows := f.at.fs.table(d.c).rows
		first := sort.Search(len(rows), func(i int) bool { return uint64(rows[i].id) > after })
		for _, r := range rows[first:] {
			if !yield(entry{r.name, controlFile{c: d.c, r: r}.qid(), uint64(r.id)}) {
				return nil
			}
		}
		after = offsetChildren
	}
	d.c.Children(after-offsetChildren, func(k *tree.Container) bool {
		return yield(entry{k.Name(), containerDir{k}.qid(), offsetChildren + k.ID()})
	})
	return nil
}

// controlFile is a control file of a container.
type controlFile struct {
	c *tree.Container
	r *row

	// remounts are its subsystem's when it was looked up: one that comes back has new files.
	remounts int
}

// controlFile is the file of a row that a container has. View or Change.
func (fs *FS) controlFile(c *tree.Container, r *row) controlFile {
	f := controlFile{c: c, r: r}
	if r.ofSubsystem() {
		f.remounts = fs.tree.Remounts(r.subsystem())
	}
	return f
}

func (f controlFile) qid() p9.QID { return fileQID(f.c.ID()<<qidRowBits | uint64(f.r.id)) }

// removed reports whether the file is gone: with its container, or with its
// subsystem by a remount. View or Change.
func (f controlFile) removed(fs *FS) bool {
	if !f.r.ofSubsystem() {
		return f.c.Removed()
	}
	id := f.r.subsystem()
	return f.c.Removed() || fs.tree.Bound(id) != f.c.Hierarchy() || fs.tree.Remounts(id) != f.remounts
}

func (f controlFile) attr(fs *FS) (perm, p9.Attr, error) {
	if f.removed(fs) {
		return perm{}, p9.Attr{}, syscall.ENODEV
	}
	fa := attrsOf(f.c).file(f.r)
	a := fill(fa.perm, p9.ModeRegular, 1, fa.times, attrsOf(f.c).ctime.Load())
	if f.r.log != nil {
		a.Size = uint64(f.r.log(f.c).size())
	}
	return fa.perm, a, nil
}

func (f controlFile) stream(*FS) *eventLog {
	if f.r.log == nil {
		return nil
	}
	return f.r.log(f.c)
}

func (f controlFile) drains() bool { return f.r.drains }

func (f controlFile) read(at *attachment, b []byte) ([]byte, error) {
	switch {
	case f.removed(at.fs):
		return nil, syscall.ENODEV
	case f.r.read == nil:
		return nil, syscall.EINVAL
	}
	return f.r.read(f.c, b)
}

func (f controlFile) write(at *attachment, data []byte) error {
	switch {
	case f.r.write == nil && f.r.instead != "":
		return fmt.Errorf("it follows from %s, which can be written: %w", f.r.instead, syscall.EINVAL)
	case f.r.write == nil:
		return errReadOnly
	}
	return f.r.write(at, f.c, data)
}

// setAttr changes the owner, mode and times of a container. Inside Change.
func (d containerDir) setAttr(at *attachment, valid p9.SetAttrMask, attr p9.SetAttr) error {
	if d.c.Removed() {
		return syscall.ENODEV
	}
	a := attrsOf(d.c)
	p, t := a.dir, a.dirTimes()
	if err := at.change(&p, &t, valid, attr); err != nil {
		return err
	}
	at.fs.tree.Update(func() {
		at.fs.recorder.chown(a.dir.uid, p.uid, d.c.IsRoot())
		a.dir = p
		a.setDirTimes(t)
		a.ctime.Store(time.Now().UnixNano())
		at.fs.tree.Keep(d.c)
	})
	return nil
}

// setAttr changes the owner, mode and times of a control file. Inside Change.
func (f controlFile) setAttr(at *attachment, valid p9.SetAttrMask, attr p9.SetAttr) error {
	if f.removed(at.fs) {
		return syscall.ENODEV
	}
	a := attrsOf(f.c)
	fa := a.file(f.r)
	if err := at.change(&fa.perm, &fa.times, valid, attr); err != nil {
		return err
	}
	at.fs.tree.Update(func() {
		a.setFile(f.r.id, fa)
		at.fs.tree.Keep(f.c)
	})
	return nil
}
