// Package p9test is for tests of what serves p9.Files and of p9.Files: a tree in
// memory, a wire client that sends what it is told to, and a differential oracle
// that runs the same requests against two servers.
package p9test

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
)

// Tree is a small file system: directories and files that can be made, removed,
// renamed, read and written.
type Tree struct {
	gate atomic.Pointer[func(op, name string)]
	slow atomic.Pointer[func(name string) bool]
	now  atomic.Bool

	mu       sync.Mutex
	root     *node
	ids      uint64
	files    int // not closed
	attaches int // calls of Attach that came through
	faults   []string
	caller   *ops.Caller
}

type node struct {
	id       uint64
	name     string
	dir      bool
	mode     p9.FileMode
	uid      p9.UID
	gid      p9.GID
	data     []byte
	parent   *node
	children []*node
	gone     bool
	cookie   uint64 // directory offset after this node
	cookies  uint64 // last cookie given to a child
}

// NewTree returns a tree with a root directory only.
func NewTree() *Tree {
	t := &Tree{}
	t.root = t.newNode("/", true, 0o755)
	t.root.parent = t.root
	return t
}

func (t *Tree) newNode(name string, dir bool, mode p9.FileMode) *node {
	t.ids++
	n := &node{id: t.ids, name: name, dir: dir, mode: mode & 0o777, cookies: 2}
	if dir {
		n.mode |= p9.ModeDirectory
	} else {
		n.mode |= p9.ModeRegular
	}
	return n
}

func (n *node) add(c *node) {
	n.cookies++
	c.cookie = n.cookies
	c.parent = n
	n.children = append(n.children, c)
}

func (n *node) remove(c *node) {
	n.children = slices.DeleteFunc(n.children, func(x *node) bool { return x == c })
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (n *node) qid() p9.QID { return p9.QID{Type: n.mode.QIDType(), Path: n.id} }

// Put makes a file, or a directory if data is nil, in the root.
func (t *Tree) Put(name string, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.newNode(name, data == nil, 0o644)
	n.data = data
	t.root.add(n)
}

// Open returns how many Files have been handed out and not closed.
func (t *Tree) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files
}

// Faults tells what a server did that it must not: files closed twice or
// opened twice, used after close.
func (t *Tree) Faults() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.faults)
}

// Caller is who attached last.
func (t *Tree) Caller() *ops.Caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.caller
}

// Attaches is how often somebody attached.
func (t *Tree) Attaches() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attaches
}

// Attach is p9srv's; aname is ignored unless it is unknown.
func (t *Tree) Attach(c *ops.Caller, aname string) (p9.File, error) {
	if aname != "" && aname != "/" {
		return nil, linux.ENOENT
	}
	t.pass("attach", aname)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.caller = c
	t.attaches++
	return t.fileLocked(t.root), nil
}

// Library serves the tree to p9.NewServer.
func (t *Tree) Library() p9.Attacher { return library{t} }

type library struct{ t *Tree }

func (l library) Attach() (p9.File, error) { return l.t.Attach(&ops.Caller{}, "") }

// SetGate has gate called without any lock before each operation on a node, with
// the operation's and the node's names. It may block or panic.
func (t *Tree) SetGate(gate func(op, name string)) { t.gate.Store(&gate) }

// SetSlow has slow decide which nodes' Files are slow.
func (t *Tree) SetSlow(slow func(name string) bool) { t.slow.Store(&slow) }

// SetPrompt has files written to by WriteNow ("write now" to the gate), or not.
func (t *Tree) SetPrompt(now bool) { t.now.Store(now) }

func (t *Tree) pass(op, name string) {
	if gate := t.gate.Load(); gate != nil {
		(*gate)(op, name)
	}
}

func (t *Tree) fileLocked(n *node) *file {
	t.files++
	return &file{t: t, n: n}
}

// file is a p9.File of a Tree.
type file struct {
	templatefs.NotImplementedFile
	p9.DefaultWalkGetAttr
	t      *Tree
	n      *node
	opened bool
	closed bool
}

// name is what the node is called, which another fid's request can be changing.
func (f *file) name() string {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	return f.n.name
}

// enter locks the tree for an operation.
func (f *file) enter(op string) func() {
	f.t.pass(op, f.name())
	f.t.mu.Lock()
	if f.closed {
		f.t.faults = append(f.t.faults, op+" after close of "+f.n.name)
	}
	return f.t.mu.Unlock
}

func (f *file) Slow() bool {
	slow := f.t.slow.Load()
	return slow != nil && (*slow)(f.name())
}

func (f *file) Walk(names []string) ([]p9.QID, p9.File, error) {
	defer f.enter("walk")()
	n := f.n
	var qids []p9.QID
	for _, name := range names {
		var next *node
		switch {
		case !n.dir:
			return qids, nil, linux.ENOTDIR
		case n.gone:
			return qids, nil, linux.ENOENT
		case name == "..":
			next = n.parent
		default:
			next = n.child(name)
		}
		if next == nil {
			return qids, nil, linux.ENOENT
		}
		n = next
		qids = append(qids, n.qid())
	}
	return qids, f.t.fileLocked(n), nil
}

func (f *file) StatFS() (p9.FSStat, error) {
	defer f.enter("statfs")()
	return p9.FSStat{Type: 0x27e0eb, BlockSize: 4096, NameLength: 255}, nil
}

func (f *file) GetAttr(req p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	defer f.enter("getattr")()
	n := f.n
	return n.qid(), req, p9.Attr{Mode: n.mode, UID: n.uid, GID: n.gid, NLink: 1, Size: uint64(len(n.data))}, nil
}

func (f *file) SetAttr(valid p9.SetAttrMask, attr p9.SetAttr) error {
	defer f.enter("setattr")()
	if f.n.gone {
		return linux.ENOENT
	}
	if valid.Permissions {
		f.n.mode = f.n.mode&p9.FileModeMask | attr.Permissions&0o777
	}
	if valid.UID {
		f.n.uid = attr.UID
	}
	if valid.GID {
		f.n.gid = attr.GID
	}
	if valid.Size && !f.n.dir && attr.Size < uint64(len(f.n.data)) {
		f.n.data = f.n.data[:attr.Size]
	}
	return nil
}

func (f *file) Close() error {
	f.t.pass("close", f.name())
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.closed {
		f.t.faults = append(f.t.faults, "second close of "+f.n.name)
		return nil
	}
	f.closed = true
	f.t.files--
	return nil
}

func (f *file) Open(mode p9.OpenFlags) (p9.QID, uint32, error) {
	defer f.enter("open")()
	if f.opened {
		f.t.faults = append(f.t.faults, "second open of "+f.n.name)
	}
	if f.n.gone {
		return p9.QID{}, 0, linux.ENOENT
	}
	f.opened = true
	return f.n.qid(), 0, nil
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	defer f.enter("read")()
	if offset >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	return copy(p, f.n.data[offset:]), nil
}

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	defer f.enter("write")()
	return f.write(p, offset)
}

func (f *file) WriteNow(p []byte, offset int64) (int, error) {
	defer f.enter("write now")()
	if !f.t.now.Load() {
		return 0, ops.ErrWouldWait
	}
	return f.write(p, offset)
}

func (f *file) write(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > 1<<24 {
		return 0, linux.EFBIG
	}
	if end := int(offset) + len(p); end > len(f.n.data) {
		f.n.data = append(f.n.data, make([]byte, end-len(f.n.data))...)
	}
	return copy(f.n.data[offset:], p), nil
}

func (f *file) FSync() error { f.enter("fsync")(); return nil }

func (f *file) Lock(int, p9.LockType, p9.LockFlags, uint64, uint64, string) (p9.LockStatus, error) {
	f.enter("lock")()
	return p9.LockStatusOK, nil
}

// make adds a new node to the directory.
func (f *file) make(name string, dir bool, mode p9.FileMode) (*node, error) {
	switch {
	case !f.n.dir:
		return nil, linux.ENOTDIR
	case f.n.gone:
		return nil, linux.ENOENT
	case f.n.child(name) != nil:
		return nil, linux.EEXIST
	}
	n := f.t.newNode(name, dir, mode)
	f.n.add(n)
	return n, nil
}

func (f *file) Create(name string, _ p9.OpenFlags, mode p9.FileMode, _ p9.UID, _ p9.GID) (p9.File, p9.QID, uint32, error) {
	defer f.enter("create")()
	n, err := f.make(name, false, mode)
	if err != nil {
		return nil, p9.QID{}, 0, err
	}
	c := f.t.fileLocked(n)
	c.opened = true
	return c, n.qid(), 0, nil
}

func (f *file) Mkdir(name string, mode p9.FileMode, _ p9.UID, _ p9.GID) (p9.QID, error) {
	defer f.enter("mkdir")()
	n, err := f.make(name, true, mode)
	if err != nil {
		return p9.QID{}, err
	}
	return n.qid(), nil
}

// unlink removes a node as unlinkat(2) does.
func (t *Tree) unlink(n *node, flags uint32) error {
	const removeDir = 0x200 // AT_REMOVEDIR
	switch {
	case n.gone:
		return linux.ENOENT
	case n == t.root:
		return linux.EBUSY
	case len(n.children) > 0:
		return linux.ENOTEMPTY
	case n.dir && flags&removeDir == 0:
		return linux.EISDIR
	case !n.dir && flags&removeDir != 0:
		return linux.ENOTDIR
	}
	n.gone = true
	n.parent.remove(n)
	return nil
}

func (f *file) UnlinkAt(name string, flags uint32) error {
	defer f.enter("unlinkat")()
	n := f.n.child(name)
	if n == nil {
		return linux.ENOENT
	}
	return f.t.unlink(n, flags)
}

// Remove is what p9srv calls for Tremove.
func (f *file) Remove() error {
	defer f.enter("remove")()
	flags := uint32(0)
	if f.n.dir {
		flags = 0x200
	}
	return f.t.unlink(f.n, flags)
}

func (t *Tree) move(n *node, to *file, name string) error {
	switch {
	case n == t.root:
		return linux.EBUSY
	case n.gone || to.n.gone:
		return linux.ENOENT
	}
	if c := to.n.child(name); c == n {
		return nil
	} else if c != nil {
		return linux.EEXIST
	}
	for p := to.n; p != t.root; p = p.parent {
		if p == n {
			return linux.EINVAL
		}
	}
	n.parent.remove(n)
	n.name = name
	to.n.add(n)
	return nil
}

func (f *file) RenameAt(oldName string, newDir p9.File, newName string) error {
	defer f.enter("renameat")()
	n := f.n.child(oldName)
	if n == nil {
		return linux.ENOENT
	}
	return f.t.move(n, newDir.(*file), newName)
}

func (f *file) Rename(newDir p9.File, newName string) error {
	defer f.enter("rename")()
	return f.t.move(f.n, newDir.(*file), newName)
}

func (f *file) Renamed(p9.File, string) {}

func (f *file) Readdir(offset uint64, count uint32) (p9.Dirents, error) {
	defer f.enter("readdir")()
	var list p9.Dirents
	add := func(n *node, name string, cookie uint64) {
		if cookie > offset && len(list) < int(count) {
			typ := p9.QIDType(8)
			if n.dir {
				typ = 4
			}
			list = append(list, p9.Dirent{QID: n.qid(), Offset: cookie, Type: typ, Name: name})
		}
	}
	add(f.n, ".", 1)
	add(f.n.parent, "..", 2)
	for _, c := range f.n.children {
		add(c, c.name, c.cookie)
	}
	return list, nil
}

func (f *file) Symlink(string, string, p9.UID, p9.GID) (p9.QID, error) {
	f.enter("symlink")()
	return p9.QID{}, linux.EPERM
}

func (f *file) Link(p9.File, string) error { f.enter("link")(); return linux.EPERM }

func (f *file) Mknod(string, p9.FileMode, uint32, uint32, p9.UID, p9.GID) (p9.QID, error) {
	f.enter("mknod")()
	return p9.QID{}, linux.EPERM
}

func (f *file) Readlink() (string, error) { f.enter("readlink")(); return "", linux.EINVAL }
