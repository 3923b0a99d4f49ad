package main

import (
	"io"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// memory is a tree of files that the commands are tested on. Any operation on
// any path can be told to fail, which no real server could be asked for.
type memory struct {
	mu    sync.Mutex
	nodes map[string]*node       // by clean absolute path
	fail  map[string]linux.Errno // by "operation path"
	wrote []string               // every write as it came
	reads int
}

type node struct {
	mode    p9.FileMode
	uid     p9.UID
	gid     p9.GID
	content string
	names   []string // of a directory, in the order they were made
	number  uint64
}

func (m *memory) add(at string, mode p9.FileMode, content string) {
	m.nodes[at] = &node{mode: mode, uid: 7, gid: 8, content: content, number: uint64(len(m.nodes) + 1)}
	if at != "/" {
		dir := m.nodes[path.Dir(at)]
		dir.names = append(dir.names, path.Base(at))
	}
}

func (m *memory) failWith(op string, errno linux.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[op] = errno
}

// takeWrites returns what was written since it was last asked.
func (m *memory) takeWrites() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.wrote
	m.wrote = nil
	return w
}

// serveMemory serves a small tree on a unix socket for the test's life and
// returns it with its address.
func serveMemory(t *testing.T) (*memory, string) {
	t.Helper()
	m := &memory{nodes: map[string]*node{}, fail: map[string]linux.Errno{}}
	m.add("/", p9.ModeDirectory|0o555, "")
	m.add("/all", p9.ModeDirectory|0o755, "")
	m.add("/all/tasks", p9.ModeRegular|0o644, "1\n2\n3\n")
	m.add("/all/cpus", p9.ModeRegular|0o444, "0-3\n")
	m.add("/all/Zoe", p9.ModeDirectory|0o750, "")
	m.add("/all/Abe", p9.ModeDirectory|0o700, "")

	return m, p9test.Serve(t, p9srv.Config{Attacher: m}).String()
}

func (m *memory) Attach(*ops.Caller, string) (p9.File, error) {
	return &memoryFile{m: m, path: "/"}, m.failure("attach", "/")
}

func (m *memory) failure(op, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if errno, ok := m.fail[op+" "+path]; ok {
		return errno
	}
	return nil
}

type memoryFile struct {
	templatefs.NoopFile
	m    *memory
	path string
}

// do runs fn on the file's node unless the operation is told to fail.
func (f *memoryFile) do(op, at string, fn func(*node) error) error {
	if err := f.m.failure(op, at); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n := f.m.nodes[f.path]
	if n == nil {
		return linux.ENODEV
	}
	return fn(n)
}

func (n *node) qid() p9.QID { return p9.QID{Type: n.mode.QIDType(), Path: n.number} }

func (f *memoryFile) Walk(names []string) (qids []p9.QID, file p9.File, err error) {
	at := f.path
	for _, name := range names {
		at = path.Join(at, name)
		err := f.do("walk", at, func(*node) error {
			n := f.m.nodes[at]
			if n == nil {
				return linux.ENOENT
			}
			qids = append(qids, n.qid())
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return qids, &memoryFile{m: f.m, path: at}, nil
}

func (f *memoryFile) GetAttr(p9.AttrMask) (qid p9.QID, mask p9.AttrMask, attr p9.Attr, err error) {
	err = f.do("getattr", f.path, func(n *node) error {
		qid, mask = n.qid(), p9.AttrMask{Mode: true, UID: true, GID: true, NLink: true}
		attr = p9.Attr{Mode: n.mode, UID: n.uid, GID: n.gid, NLink: 1}
		return nil
	})
	return
}

// memoryPage is the size of pages of the host of this server, which is another one.
const memoryPage = 64 << 10

func (f *memoryFile) StatFS() (st p9.FSStat, err error) {
	err = f.do("statfs", f.path, func(*node) error { st.BlockSize = memoryPage; return nil })
	return
}

func (f *memoryFile) SetAttr(valid p9.SetAttrMask, attr p9.SetAttr) error {
	return f.do("setattr", f.path, func(n *node) error {
		if valid.Permissions {
			n.mode = n.mode.FileType() | attr.Permissions
		}
		if valid.UID {
			n.uid = attr.UID
		}
		if valid.GID {
			n.gid = attr.GID
		}
		return nil
	})
}

func (f *memoryFile) Open(p9.OpenFlags) (qid p9.QID, unit uint32, err error) {
	err = f.do("open", f.path, func(n *node) error { qid = n.qid(); return nil })
	return
}

func (f *memoryFile) ReadAt(p []byte, offset int64) (read int, err error) {
	err = f.do("read", f.path, func(n *node) error {
		f.m.reads++
		if n.mode.IsDir() {
			return linux.EISDIR
		}
		if offset >= int64(len(n.content)) {
			return io.EOF
		}
		read = copy(p, n.content[offset:])
		return nil
	})
	return
}

func (f *memoryFile) WriteAt(p []byte, _ int64) (int, error) {
	err := f.do("write", f.path, func(n *node) error {
		f.m.wrote = append(f.m.wrote, f.path+" "+string(p))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memoryFile) Mkdir(name string, mode p9.FileMode, _ p9.UID, _ p9.GID) (qid p9.QID, err error) {
	at := path.Join(f.path, name)
	err = f.do("mkdir", at, func(*node) error {
		if f.m.nodes[at] != nil {
			return linux.EEXIST
		}
		f.m.add(at, p9.ModeDirectory|mode, "")
		qid = f.m.nodes[at].qid()
		return nil
	})
	return
}

func (f *memoryFile) UnlinkAt(name string, flags uint32) error {
	at := path.Join(f.path, name)
	return f.do("rmdir", at, func(n *node) error {
		switch {
		case f.m.nodes[at] == nil:
			return linux.ENOENT
		case flags != 0x200: // AT_REMOVEDIR
			return linux.EPERM
		}
		delete(f.m.nodes, at)
		n.names = slices.DeleteFunc(n.names, func(s string) bool { return s == name })
		return nil
	})
}

func (f *memoryFile) RenameAt(old string, dir p9.File, name string) error {
	from, to := path.Join(f.path, old), path.Join(dir.(*memoryFile).path, name)
	return f.do("mv", from, func(n *node) error {
		switch {
		case path.Dir(from) != path.Dir(to):
			return linux.EIO
		case f.m.nodes[to] != nil:
			return linux.EEXIST
		}
		f.m.nodes[to] = f.m.nodes[from]
		delete(f.m.nodes, from)
		n.names[slices.Index(n.names, old)] = name
		return nil
	})
}

func (f *memoryFile) Readdir(offset uint64, count uint32) (entries p9.Dirents, err error) {
	err = f.do("readdir", f.path, func(n *node) error {
		names := append([]string{".", ".."}, n.names...)
		// Two at a time, so that a client that does not come back is caught.
		for i := int(offset); i < min(len(names), int(offset)+2); i++ {
			e := p9.Dirent{Name: names[i], Offset: uint64(i + 1)}
			if c := f.m.nodes[path.Join(f.path, names[i])]; c != nil {
				e.QID, e.Type = c.qid(), c.qid().Type
			}
			entries = append(entries, e)
		}
		return nil
	})
	return
}
