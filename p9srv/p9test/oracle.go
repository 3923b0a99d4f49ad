package p9test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// Oracle sends the same random requests to two servers and compares what they
// answer: one is under test, the other knows better. Their trees must be equal
// at the start, and of the same making.
type Oracle struct {
	Names  []string // to make, walk to, rename and remove; some that exist, some that do not
	Files  []string // names of what can be read and written, if in Names or not
	Values []string // to write

	// Root is where the requests begin, from the attach.
	Root []string

	// Differs reports differences that are meant.
	Differs func(op string, tested, oracle linux.Errno) bool
}

// LibraryDiffers are the deliberate differences between p9srv and the p9
// library's server, which answers EINVAL to whatever its dispatcher does not like.
func LibraryDiffers(op string, tested, library linux.Errno) bool {
	switch {
	case library == linux.EINVAL && tested != 0:
		// ENOTDIR for operations of a directory on a file, EBADF for I/O on what
		// is not open, ENOENT for what is removed, EBUSY for the root.
		return true
	case library == linux.EPERM && tested == linux.EBADF:
		return op == "read" || op == "write" // open, but not for that
	case tested == linux.EISDIR:
		return op == "read" && library == 0 // Tread of a directory
	case op == "renameat":
		return library == 0 && tested == linux.ENOENT // of a name to itself is not looked at
	}
	return false
}

// handle is a file of both sides.
type handle struct{ a, b p9.File }

type run struct {
	Oracle
	t       testing.TB
	rnd     *rand.Rand
	handles []handle // handles[0] is the root
	paths   map[uint64]uint64
	trace   []string
}

// Run does so many random operations from the roots of two attaches.
func (o Oracle) Run(t testing.TB, seed uint64, steps int, tested, oracle p9.File) {
	t.Helper()
	r := &run{Oracle: o, t: t, rnd: rand.New(rand.NewPCG(seed, 0)), paths: make(map[uint64]uint64)}
	r.handles = []handle{r.walk(handle{tested, oracle}, o.Root...)}
	if r.handles[0].a == nil {
		t.Fatalf("cannot walk to %v", o.Root)
	}
	defer func() {
		for _, h := range r.handles {
			r.close(h)
		}
	}()
	for i := range steps {
		r.step()
		if t.Failed() {
			t.Fatalf("seed %d, step %d, after:\n%s", seed, i, strings.Join(r.trace[max(0, len(r.trace)-30):], "\n"))
		}
	}
	r.compareTree(r.handles[0], "")
}

func (r *run) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

func errnoOf(err error) linux.Errno {
	var e linux.Errno
	switch {
	case err == nil || err == io.EOF:
		return 0
	case errors.As(err, &e):
		return e
	}
	return linux.EIO
}

// same compares two answers and reports whether both are successes.
func (r *run) same(op string, errA, errB error, a, b any) bool {
	r.t.Helper()
	ea, eb := errnoOf(errA), errnoOf(errB)
	r.note("%s: %v %v", op, ea, a)
	if ea != eb && !r.Differs(op, ea, eb) {
		r.t.Errorf("%s: %q, oracle says %q", op, ea, eb)
	}
	if ea != 0 || eb != 0 {
		return false
	}
	if sa, sb := fmt.Sprint(a), fmt.Sprint(b); sa != sb {
		r.t.Errorf("%s:\n%s\noracle says\n%s", op, sa, sb)
	}
	return true
}

// qid translates a qid of the tested side into what the oracle's must be: the
// paths of the same file may differ, but always in the same way.
func (r *run) qid(a, b p9.QID) p9.QID {
	if p, ok := r.paths[a.Path]; ok {
		a.Path = p
		return a
	}
	r.paths[a.Path] = b.Path
	a.Path = b.Path
	return a
}

func (r *run) pick(list []string) string { return list[r.rnd.IntN(len(list))] }
func (r *run) handle() handle            { return r.handles[r.rnd.IntN(len(r.handles))] }

func (r *run) close(h handle) { r.same("close", h.a.Close(), h.b.Close(), nil, nil) }

// walk returns what both sides walk to, or nothing.
func (r *run) walk(h handle, names ...string) handle {
	walk := func(f p9.File) (qids []p9.QID, to p9.File, err error) {
		// The client takes a walk that ended early for a success.
		if qids, to, err = f.Walk(names); err == nil && len(qids) < len(names) {
			err = linux.ENOENT
		}
		return qids, to, err
	}
	qa, fa, ea := walk(h.a)
	qb, fb, eb := walk(h.b)
	if len(qa) == len(qb) {
		for i := range qa {
			qa[i] = r.qid(qa[i], qb[i])
		}
	}
	// A walk through a file ends with ENOTDIR only if it ends there at once.
	if ea != nil && eb != nil && len(names) > 1 {
		ea, eb = nil, nil
		r.same("walk "+strings.Join(names, "/"), linux.ENOENT, linux.ENOENT, nil, nil)
		return handle{}
	}
	if r.same("walk "+strings.Join(names, "/"), ea, eb, qa, qb) {
		return handle{fa, fb}
	}
	return handle{}
}

func (r *run) step() {
	h := r.handle()
	switch op := r.rnd.IntN(20); op {
	case 0, 1, 2, 3:
		var names []string
		for range r.rnd.IntN(3) {
			names = append(names, r.pick(append(r.Names, r.Files...)))
		}
		if to := r.walk(h, names...); to.a != nil {
			r.handles = append(r.handles, to)
		}
	case 4, 5:
		if i := r.rnd.IntN(len(r.handles)); i > 0 && len(r.handles) > 8 {
			r.close(r.handles[i])
			r.handles = slices.Delete(r.handles, i, i+1)
		}
	case 6, 7, 8:
		name := r.pick(r.Names)
		qa, ea := h.a.Mkdir(name, 0o755, p9.NoUID, p9.NoGID)
		qb, eb := h.b.Mkdir(name, 0o755, p9.NoUID, p9.NoGID)
		if ea == nil && eb == nil {
			qa = r.qid(qa, qb)
		}
		r.same("mkdir", ea, eb, qa, qb)
	case 9:
		name, flags := r.pick(r.Names), uint32(r.rnd.IntN(2)*0x200)
		r.same("unlinkat", h.a.UnlinkAt(name, flags), h.b.UnlinkAt(name, flags), nil, nil)
	case 10:
		h2, from, to := r.handle(), r.pick(r.Names), r.pick(r.Names)
		r.same("renameat", h.a.RenameAt(from, h2.a, to), h.b.RenameAt(from, h2.b, to), nil, nil)
	case 11:
		h2, to := r.handle(), r.pick(r.Names)
		r.same("rename", h.a.Rename(h2.a, to), h.b.Rename(h2.b, to), nil, nil)
	case 12:
		r.getattr(h)
	case 13:
		mode := p9.SetAttr{Permissions: p9.FileMode(0o700 + r.rnd.IntN(0o100))}
		valid := p9.SetAttrMask{Permissions: true}
		r.same("setattr", h.a.SetAttr(valid, mode), h.b.SetAttr(valid, mode), nil, nil)
	case 14:
		r.create(h)
	case 15, 16:
		r.readWrite(h, false)
	case 17, 18:
		if to := r.walk(h, r.pick(r.Files)); to.a != nil {
			r.readWrite(to, true)
			r.close(to)
		}
	case 19:
		r.others(h)
	}
}

func (r *run) getattr(h handle) {
	mask := p9.AttrMask{Mode: true, UID: true, GID: true, NLink: true, Size: true}
	qa, va, aa, ea := h.a.GetAttr(mask)
	qb, vb, ab, eb := h.b.GetAttr(mask)
	if ea == nil && eb == nil {
		qa = r.qid(qa, qb)
	}
	type attr struct {
		qid        p9.QID
		valid      p9.AttrMask
		mode, n, s any
	}
	r.same("getattr", ea, eb, attr{qa, va, aa.Mode, aa.NLink, aa.Size}, attr{qb, vb, ab.Mode, ab.NLink, ab.Size})
}

func (r *run) create(h handle) {
	c := r.walk(h)
	if c.a == nil {
		return
	}
	name, flags := r.pick(r.Names), p9.OpenFlags(r.rnd.IntN(3))
	_, qa, _, ea := c.a.Create(name, flags, 0o644, p9.NoUID, p9.NoGID)
	_, qb, _, eb := c.b.Create(name, flags, 0o644, p9.NoUID, p9.NoGID)
	if ea == nil && eb == nil {
		qa = r.qid(qa, qb)
	}
	if r.same("create", ea, eb, qa, qb) {
		r.io(c)
	}
	r.close(c)
}

// readWrite opens a copy of h, or h itself if it is nobody else's, and uses it.
func (r *run) readWrite(h handle, own bool) {
	c := h
	if !own {
		if c = r.walk(h); c.a == nil {
			return
		}
		defer r.close(c)
	}
	if r.rnd.IntN(4) > 0 {
		flags := p9.OpenFlags(r.rnd.IntN(3))
		qa, _, ea := c.a.Open(flags)
		qb, _, eb := c.b.Open(flags)
		if ea == nil && eb == nil {
			qa = r.qid(qa, qb)
		}
		r.same(fmt.Sprintf("open %d", flags), ea, eb, qa, qb)
	}
	r.io(c)
}

func (r *run) io(c handle) {
	for range 1 + r.rnd.IntN(3) {
		switch r.rnd.IntN(4) {
		case 0:
			v := []byte(r.pick(r.Values))
			na, ea := c.a.WriteAt(v, 0)
			nb, eb := c.b.WriteAt(v, 0)
			r.same("write", ea, eb, na, nb)
		case 1:
			r.same("fsync", c.a.FSync(), c.b.FSync(), nil, nil)
		case 2:
			r.readdir(c)
		default:
			offset, pa, pb := int64(r.rnd.IntN(6)), make([]byte, 1+r.rnd.IntN(9000)), make([]byte, 9000)
			na, ea := c.a.ReadAt(pa, offset)
			nb, eb := c.b.ReadAt(pb[:len(pa)], offset)
			r.same("read", ea, eb, fmt.Sprintf("%q", pa[:na]), fmt.Sprintf("%q", pb[:nb]))
		}
	}
}

// readdir compares whole listings that are read in small pieces.
func (r *run) readdir(c handle) []string {
	room := uint32(100 + r.rnd.IntN(5000))
	list := func(f p9.File) (all p9.Dirents, err error) {
		for offset := uint64(0); ; {
			d, err := f.Readdir(offset, room)
			if err != nil || len(d) == 0 {
				return all, err
			}
			all = append(all, d...)
			offset = d[len(d)-1].Offset
		}
	}
	la, ea := list(c.a)
	lb, eb := list(c.b)
	var names []string
	show := func(l p9.Dirents, other p9.Dirents) (out []string) {
		for i, d := range l {
			q := d.QID
			if len(l) == len(other) && other != nil {
				q = r.qid(q, other[i].QID)
			}
			out = append(out, fmt.Sprint(d.Name, " ", d.Type, " ", q))
		}
		return out
	}
	if r.same("readdir", ea, eb, show(la, lb), show(lb, nil)) {
		for _, d := range la {
			names = append(names, d.Name)
		}
	}
	return names
}

func (r *run) others(h handle) {
	sa, ea := h.a.StatFS()
	sb, eb := h.b.StatFS()
	r.same("statfs", ea, eb, sa.Type, sb.Type)
	_, ea = h.a.Readlink()
	_, eb = h.b.Readlink()
	r.same("readlink", ea, eb, nil, nil)
	name := r.pick(r.Names)
	_, ea = h.a.Symlink("x", name, p9.NoUID, p9.NoGID)
	_, eb = h.b.Symlink("x", name, p9.NoUID, p9.NoGID)
	r.same("symlink", ea, eb, nil, nil)
	_, ea = h.a.Mknod(name, 0o644, 0, 0, p9.NoUID, p9.NoGID)
	_, eb = h.b.Mknod(name, 0o644, 0, 0, p9.NoUID, p9.NoGID)
	r.same("mknod", ea, eb, nil, nil)
	h2 := r.handle()
	r.same("link", h.a.Link(h2.a, name), h.b.Link(h2.b, name), nil, nil)
}

// compareTree compares what the two sides have come to.
func (r *run) compareTree(h handle, path string) {
	c := r.walk(h)
	if c.a == nil {
		return
	}
	defer r.close(c)
	r.getattr(c)
	_, _, ea := c.a.Open(p9.ReadOnly)
	_, _, eb := c.b.Open(p9.ReadOnly)
	if !r.same("open "+path, ea, eb, nil, nil) {
		return
	}
	for _, name := range r.readdir(c) {
		if name == "." || name == ".." {
			continue
		}
		if to := r.walk(h, name); to.a != nil {
			r.compareTree(to, path+"/"+name)
			r.close(to)
		}
	}
}
