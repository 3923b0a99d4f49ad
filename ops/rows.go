package ops

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"containerfs/tree"
)

// The rows of the state store. Numbers are varints, texts have their length before
// them. What a control file has of its own is by the file's name, since the ids of
// rows depend on what subsystems there are.

// Flags of rows.
const (
	rowNotify = 1 << iota
	rowReleasable
	rowLimits
	rowNamed
	rowNoprefix
	rowExplicit
	rowReleased
)

// errRow is of a row that no server wrote.
var errRow = fmt.Errorf("a row cannot be read: %w", syscall.EINVAL)

type rowWriter struct{ b []byte }

func (w *rowWriter) num(n uint64)   { w.b = binary.AppendUvarint(w.b, n) }
func (w *rowWriter) time(n int64)   { w.b = binary.AppendVarint(w.b, n) }
func (w *rowWriter) text(s string)  { w.num(uint64(len(s))); w.b = append(w.b, s...) }
func (w *rowWriter) bytes(s []byte) { w.num(uint64(len(s))); w.b = append(w.b, s...) }

func (w *rowWriter) perm(p perm) {
	w.num(uint64(p.uid))
	w.num(uint64(p.gid))
	w.num(uint64(p.mode))
}

// rowReader reads a row; after an error everything is 0.
type rowReader struct {
	b   []byte
	bad bool
}

func (r *rowReader) num() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *rowReader) time() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *rowReader) bytes() []byte {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *rowReader) text() string { return string(r.bytes()) }

func (r *rowReader) perm() perm {
	return perm{uint32(r.num()), uint32(r.num()), uint16(r.num()) & 0o777}
}

// count is a number of things that are at least a byte each.
func (r *rowReader) count() int {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *rowReader) done() error {
	if r.bad || len(r.b) > 0 {
		return errRow
	}
	return nil
}

// keptAttrs are attributes as a row has them.
type keptAttrs struct {
	dir                perm
	times              times
	ctime              int64
	makerUID, makerGID uint32
	files              map[string]fileAttrs // by the file's name
}

func (fs *FS) writeAttrs(w *rowWriter, c *tree.Container) {
	a := attrsOf(c)
	w.perm(a.dir)
	w.time(a.mtime.Load())
	w.time(a.ctime.Load())
	w.num(uint64(a.makerUID))
	w.num(uint64(a.makerGID))
	if len(a.files) == 0 {
		w.num(0)
		return
	}
	var files rowWriter
	n := uint64(0)
	file := func(name string, p perm, time int64) {
		n++
		files.text(name)
		files.perm(p)
		files.time(time)
	}
	if dir := a.files[dirRow]; dir.set {
		file(rowAtime, perm{}, dir.own)
	}
	for _, r := range fs.table(c).rows {
		fa, ok := a.files[r.id]
		if ok {
			file(r.name, fa.perm, fa.mtime)
		}
		if fa.set {
			file(rowAtime+r.name, perm{}, fa.own)
		}
	}
	w.num(n)
	w.b = append(w.b, files.b...)
}

// rowAtime begins the name, which is no file's, of what a row has of an atime that was set:
// of the file of the rest of the name, or of the directory. Servers of before pass over it.
const rowAtime = "@"

func (r *rowReader) attrs() (k keptAttrs) {
	k.dir = r.perm()
	k.times.mtime, k.ctime = r.time(), r.time()
	k.makerUID, k.makerGID = uint32(r.num()), uint32(r.num())
	for range r.count() {
		if k.files == nil {
			k.files = make(map[string]fileAttrs)
		}
		name := r.text()
		k.files[name] = fileAttrs{r.perm(), times{mtime: r.time()}}
	}
	for name, fa := range k.files {
		file, ok := strings.CutPrefix(name, rowAtime)
		if !ok {
			continue
		}
		delete(k.files, name)
		if file == "" {
			k.times.own, k.times.set = fa.mtime, true
		} else if of, ok := k.files[file]; ok {
			of.own, of.set = fa.mtime, true
			k.files[file] = of
		}
	}
	return k
}

// setAttrs makes the attributes of a container those that were kept. Files that are not
// there any more are forgotten. Update, or before it can be seen.
func (fs *FS) setAttrs(c *tree.Container, k keptAttrs) {
	a := attrsOf(c)
	a.dir, a.makerUID, a.makerGID = k.dir, k.makerUID, k.makerGID
	a.files = nil
	a.setDirTimes(k.times)
	a.ctime.Store(k.ctime)
	for name, fa := range k.files {
		if r := fs.table(c).byName[name]; r != nil {
			a.setFile(r.id, fa)
		}
	}
}

// containerRow is the row of a container. View.
func (fs *FS) containerRow(c *tree.Container) []byte {
	k := c.Kept()
	w := rowWriter{make([]byte, 0, 64+len(k.Name))}
	w.num(c.Parent().ID())
	w.text(k.Name)
	flags := uint64(0)
	if k.NotifyOnRelease {
		flags |= rowNotify
	}
	if k.Releasable {
		flags |= rowReleasable
	}
	if k.Released {
		flags |= rowReleased
	}
	limited := k.Limits != tree.Limits{Descendants: tree.NoLimit, Depth: tree.NoLimit}
	if limited {
		flags |= rowLimits
	}
	w.num(flags)
	if limited {
		w.time(int64(k.Limits.Descendants))
		w.time(int64(k.Limits.Depth))
	}
	fs.writeAttrs(&w, c)
	w.num(uint64(len(k.States)))
	for _, s := range k.States {
		w.bytes(s)
	}
	return w.b
}

func readContainerRow(id uint64, b []byte) (parent uint64, k tree.Kept, a keptAttrs, err error) {
	r := rowReader{b: b}
	parent = r.num()
	k.ID, k.Name = id, r.text()
	flags := r.num()
	k.NotifyOnRelease, k.Releasable = flags&rowNotify != 0, flags&rowReleasable != 0
	k.Released = flags&rowReleased != 0
	k.Limits = tree.Limits{Descendants: tree.NoLimit, Depth: tree.NoLimit}
	if flags&rowLimits != 0 {
		k.Limits = tree.Limits{Descendants: int(r.time()), Depth: int(r.time())}
	}
	a = r.attrs()
	k.States = make([][]byte, r.count())
	for i := range k.States {
		k.States[i] = r.bytes()
	}
	return parent, k, a, r.done()
}

// hierarchyRow is the row of a hierarchy and of its root. View.
func (fs *FS) hierarchyRow(h *tree.Hierarchy) []byte {
	k := h.Kept()
	var w rowWriter
	w.text(k.Name)
	flags := uint64(0)
	for _, f := range []struct {
		set  bool
		flag uint64
	}{{k.Named, rowNamed}, {k.Noprefix, rowNoprefix}, {k.Explicit, rowExplicit}, {k.Root.NotifyOnRelease, rowNotify}, {k.Root.Releasable, rowReleasable}} {
		if f.set {
			flags |= f.flag
		}
	}
	w.num(flags)
	var names []string
	for id, name := range fs.names {
		if k.Subsystems.Has(id) {
			names = append(names, name)
		}
	}
	w.num(uint64(len(names)))
	for _, name := range names {
		w.text(name)
	}
	w.num(k.Root.ID)
	w.text(rootOf(h).agent)
	fs.writeAttrs(&w, h.Root())
	return w.b
}

// keptHierarchy is a hierarchy as its row has it.
type keptHierarchy struct {
	tree.KeptHierarchy
	agent string
	attrs keptAttrs
	// missing is a subsystem that this server does not have, "" if it has all.
	missing string
}

func (fs *FS) readHierarchyRow(num uint64, b []byte) (k keptHierarchy, err error) {
	r := rowReader{b: b}
	k.Number, k.Name = num, r.text()
	flags := r.num()
	k.Named, k.Noprefix, k.Explicit = flags&rowNamed != 0, flags&rowNoprefix != 0, flags&rowExplicit != 0
	k.Root.NotifyOnRelease, k.Root.Releasable = flags&rowNotify != 0, flags&rowReleasable != 0
	for range r.count() {
		name := r.text()
		if id := fs.subsystem(name); id >= 0 {
			k.Subsystems |= 1 << id
		} else {
			k.missing = name
		}
	}
	k.Root.ID = r.num()
	k.agent = r.text()
	k.attrs = r.attrs()
	return k, r.done()
}

// subsystem is the id of the subsystem of a name, or -1.
func (fs *FS) subsystem(name string) int { return slices.Index(fs.names, name) }

// groupRow is the row of a css group.
func groupRow(g *tree.Group) []byte {
	var w rowWriter
	for _, c := range g.Containers() {
		w.num(c.ID())
	}
	return w.b
}

func readGroupRow(b []byte) (ids []uint64, err error) {
	r := rowReader{b: b}
	for len(r.b) > 0 {
		ids = append(ids, r.num())
	}
	return ids, r.done()
}

func nextRow(n tree.Next) []byte {
	return tree.AppendNumbers(nil, n.Container, n.Hierarchy, n.Group)
}

func readNextRow(b []byte) (n tree.Next, err error) {
	return n, tree.Numbers(b, &n.Container, &n.Hierarchy, &n.Group)
}

func permRow(p perm) []byte {
	var w rowWriter
	w.perm(p)
	return w.b
}

func readPermRow(b []byte) (perm, error) {
	r := rowReader{b: b}
	return r.perm(), r.done()
}

// placeRow is the row of a task that is not in the roots: when it started, and its
// css group.
func placeRow(p tree.Place) []byte {
	var w rowWriter
	w.time(int64(p.Start))
	w.num(p.Group)
	return w.b
}

func readPlaceRow(b []byte) (p tree.Place, err error) {
	r := rowReader{b: b}
	p = tree.Place{Start: tree.Start(r.time()), Group: r.num()}
	return p, r.done()
}

var errNotKept = fmt.Errorf("what was changed could neither be kept nor undone: nothing is changed until the server is started again: %w", syscall.EIO)
