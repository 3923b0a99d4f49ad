package ops

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// MaxWrite is the longest command: a longer write is E2BIG (SPEC §4).
const MaxWrite = 4096

// magic is the type that statfs answers.
const magic = 0x27e0eb

// pageSize is the size of the blocks that statfs tells of, as in the kernel's own file
// systems of this kind: clients that count pages of this host learn it there.
var pageSize = uint32(os.Getpagesize())

// magicRemote is what it answers for a log: the type of FUSE, which is a file
// server as well. GNU tail takes cgroup's type, and v9fs's own, for a file system
// of its host and waits for inotify, which is silent about what happens at a
// server. FUSE it knows to be remote, so that it looks again.
const magicRemote = 0x65735546

// file is a node as one fid has it: the p9.File of this package. Its methods but
// for those that use its contents may be called concurrently; p9srv keeps
// requests on one fid in order.
type file struct {
	at *attachment
	n  node
	h  *tree.Hierarchy // that it holds, if any

	// content is what reads are served from: made when the file is opened
	// for reading, and again by a read at 0 after a write. It is nil
	// before.
	content []byte
	stale   bool
	fetched []byte // what prepare got from the host, until it becomes content
	opened  bool

	pids  []int32 // the listing of proc, made when it begins
	bytes int     // of content and pids, as counted by holdSnapshot

	// See readStream.
	next, skipped int64
}

// open makes a file of a node. View.
func (at *attachment) open(n node) *file {
	f := &file{at: at, n: n}
	if c := containerOf(n); c != nil {
		f.h = c.Hierarchy()
		f.h.Hold()
	}
	return f
}

// Close is p9.File's.
func (f *file) Close() error {
	f.dropSnapshot()
	if f.h != nil {
		f.h.Release()
	}
	return nil
}

// Walk is p9.File's. When an element cannot be reached, the qids of those before
// it come with the error.
func (f *file) Walk(names []string) (qids []p9.QID, to p9.File, err error) {
	for drained := false; ; drained = true {
		if qids, to, err = f.walk(names); err == errUndone {
			continue
		}
		if err != errUndrained {
			break
		}
		if drained {
			err = syscall.ENOENT
			break
		}
		f.at.fs.tree.Drain()
	}
	if errors.Is(err, syscall.EACCES) {
		return qids, nil, f.at.told(deed{op: "walk", node: f.n, name: strings.Join(names, "/")}, err)
	}
	return qids, to, wire(err)
}

// errUndone is walk's when what it found was undone meanwhile.
var errUndone = errors.New("undone")

// walk looks names up, and returns when what it found, or found to be gone, is kept.
func (f *file) walk(names []string) (qids []p9.QID, to p9.File, err error) {
	var failures, number uint64
	j := f.at.fs.journal
	if j != nil {
		failures = j.store.Failures()
	}
	f.at.fs.tree.View(func() {
		var n node
		if qids, n, err = f.at.walk(f.n, names); err == nil {
			to = f.at.open(n)
		}
		switch {
		case j == nil:
		case err != nil:
			number = j.store.Last()
		default:
			number = f.at.fs.number(n)
		}
	})
	if j != nil && !f.at.fs.kept(number, failures) {
		if err == nil {
			to.Close()
		}
		return nil, nil, errUndone
	}
	return qids, to, err
}

// WalkGetAttr is p9.File's.
func (f *file) WalkGetAttr([]string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	return nil, nil, p9.AttrMask{}, p9.Attr{}, linux.ENOSYS
}

// StatFS is p9.File's.
func (f *file) StatFS() (p9.FSStat, error) {
	if err := f.gone(); err != nil {
		return p9.FSStat{}, wire(err)
	}
	st := p9.FSStat{Type: magic, BlockSize: pageSize, NameLength: maxName}
	if s, ok := f.n.(stream); ok && s.stream(f.at.fs) != nil {
		st.Type = magicRemote
	}
	return st, nil
}

var attrMask = p9.AttrMask{
	Mode: true, NLink: true, UID: true, GID: true, RDev: true,
	ATime: true, MTime: true, CTime: true, INo: true, Size: true, Blocks: true,
}

// GetAttr is p9.File's.
func (f *file) GetAttr(p9.AttrMask) (qid p9.QID, mask p9.AttrMask, attr p9.Attr, err error) {
	f.at.fs.look(f.n, func() { _, attr, err = f.n.attr(f.at.fs) })
	return f.n.qid(), attrMask, attr, wire(err)
}

// SetAttr is p9.File's.
func (f *file) SetAttr(valid p9.SetAttrMask, attr p9.SetAttr) error {
	n, ok := f.n.(interface {
		setAttr(*attachment, p9.SetAttrMask, p9.SetAttr) error
	})
	// Truncation is ignored everywhere. `echo >` begins with it, and has Linux
	// send times of now as well.
	truncation := p9.SetAttrMask{Size: true, MTime: true, CTime: true}
	if valid.Size && attr.Size == 0 && valid.IsSubsetOf(truncation) {
		return wire(f.gone())
	}
	if valid.IsSubsetOf(p9.SetAttrMask{CTime: true}) {
		return wire(f.gone()) // which is ours to set
	}
	if !ok {
		return f.refuse("setattr", "", linux.EPERM)
	}
	resolved := f.at.fs.resolved()
	err := f.at.fs.mayChange()
	if err == nil {
		err = f.at.fs.tree.Change(func() error { return n.setAttr(f.at, valid, attr) })
	}
	return f.at.told(deed{op: "setattr", node: f.n, set: describeAttr(valid, attr), resolved: resolved}, err)
}

// Slow tells p9srv that Open for reading, ReadAt or Readdir may wait: for the host, or
// for what they show to be kept. What has been opened is read from memory, unless it was
// written to since.
func (f *file) Slow() bool {
	if f.at.fs.unkept(f.n) {
		return true
	}
	switch n := f.n.(type) {
	case regular:
		if f.opened && !f.stale {
			return false
		}
		return n.drains() || asksHost(n)
	case procDir:
		return true
	}
	return false
}

// asksHost reports whether something has to be done before r is read.
func asksHost(r regular) bool {
	c, ok := r.(controlFile)
	return ok && (c.r.prepare != nil || c.r.fetch != nil)
}

// prepare has what r shows up to date.
func (f *file) prepare(r regular) error {
	if r.drains() {
		f.at.fs.tree.Drain()
	}
	c, ok := r.(controlFile)
	switch {
	case !ok:
	case c.r.fetch != nil:
		fetch := func() (err error) {
			f.fetched, err = readable(c.r.fetch(c.c))
			return err
		}
		if c.r.prepare != nil {
			return f.at.inTurn(fetch)
		}
		return fetch()
	case c.r.prepare != nil:
		return f.at.inTurn(func() error { return c.r.prepare(c.c) })
	}
	return nil
}

// contents are what r shows, after prepare. View.
func (f *file) contents(r regular) ([]byte, error) {
	if c, ok := r.(controlFile); ok && c.r.fetch != nil {
		if c.removed(f.at.fs) {
			return nil, syscall.ENODEV
		}
		return f.fetched, nil
	}
	return readable(r.read(f.at, nil))
}

// Open is p9.File's. What can be read is read now: a file has one consistent
// value per open.
func (f *file) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	var want uint16
	switch flags.Mode() {
	case p9.ReadOnly:
		want = mayRead
	case p9.WriteOnly:
		want = mayWrite
	default:
		want = mayRead | mayWrite
	}
	reads := want&mayRead != 0
	r, isRegular := f.n.(regular)
	var err error
	may := func() {
		var p perm
		if p, _, err = f.n.attr(f.at.fs); err == nil {
			err = f.at.allowed(p, want)
		}
	}
	if isRegular && reads {
		if f.at.fs.tree.View(may); err == nil {
			err = f.prepare(r)
		}
		if err != nil {
			return f.n.qid(), 0, f.done("open", err)
		}
	}
	f.at.fs.look(f.n, func() {
		if may(); err != nil || !reads {
			return
		}
		if isRegular {
			f.content, err = f.contents(r)
		}
	})
	if err == nil {
		err = f.holdSnapshot()
	}
	f.opened = err == nil
	return f.n.qid(), 0, f.done("open", err)
}

// readable lets a file without a reader be opened: only its reads fail.
func readable(b []byte, err error) ([]byte, error) {
	if errors.Is(err, syscall.EINVAL) {
		return nil, nil
	}
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// ReadAt is p9.File's.
func (f *file) ReadAt(b []byte, offset int64) (int, error) {
	if s, ok := f.n.(stream); ok {
		if l := s.stream(f.at.fs); l != nil {
			if err := f.gone(); err != nil {
				return 0, wire(err)
			}
			n, err := f.readStream(l, b, offset)
			if j := f.at.fs.journal; j != nil {
				_ = j.store.Wait(j.store.Last())
			}
			return n, err
		}
	}
	r, ok := f.n.(regular)
	if !ok {
		return 0, linux.EISDIR
	}
	if f.stale && offset == 0 {
		err := f.prepare(r)
		if err == nil {
			f.at.fs.look(f.n, func() { f.content, err = f.contents(r) })
		}
		if err != nil {
			return 0, f.done("read", err)
		}
		if err := f.holdSnapshot(); err != nil {
			return 0, f.done("read", err)
		}
		f.stale = false
	}
	// A snapshot can be read to its end whatever became of the container.
	if c, ok := r.(controlFile); !ok || !c.r.snapshot {
		if err := f.gone(); err != nil {
			return 0, wire(err)
		}
	}
	if f.content == nil {
		return 0, linux.EINVAL
	}
	if offset < 0 || offset >= int64(len(f.content)) {
		return 0, io.EOF
	}
	return copy(b, f.content[offset:]), nil
}

// gone is ENODEV for what was removed.
func (f *file) gone() (err error) {
	look := func() { _, _, err = f.n.attr(f.at.fs) }
	if f.at.fs.tree.View(look); err != nil {
		f.at.fs.look(f.n, look) // that it was removed may not be kept yet, and be undone
	}
	return err
}

// WriteAt is p9.File's: one write is one command, wherever it is written.
func (f *file) WriteAt(b []byte, _ int64) (int, error) {
	r, ok := f.n.(regular)
	if !ok {
		return 0, f.done("write", errReadOnly) // a log; p9srv opens no directory for writing
	}
	return f.command(b, r.write)
}

var errTooLong = fmt.Errorf("a command has at most %d bytes: %w", MaxWrite, syscall.E2BIG)

// ErrWouldWait is WriteNow's where WriteAt can take long. Nothing was done.
var ErrWouldWait = tree.ErrWouldWait

// WriteNow is WriteAt where that takes microseconds, as far as is known. It can have to wait
// for what somebody else changes of the same container at that very moment to be kept.
func (f *file) WriteNow(b []byte, _ int64) (int, error) {
	c, ok := f.n.(controlFile)
	if !ok || c.r.now == nil || f.at.fs.unkept(f.n) {
		return 0, ErrWouldWait
	}
	return f.command(b, func(at *attachment, data []byte) error { return c.r.now(at, c.c, data) })
}

func (f *file) command(b []byte, write func(*attachment, []byte) error) (int, error) {
	resolved := f.at.fs.resolved()
	err := f.gone()
	if err == nil && len(b) > MaxWrite {
		err = errTooLong
	}
	if err == nil {
		err = f.at.fs.mayChange()
	}
	if err == nil {
		err = write(f.at, b)
	}
	if err == ErrWouldWait {
		return 0, err
	}
	if err := f.at.told(deed{op: "write", node: f.n, data: b, resolved: resolved}, err); err != nil {
		return 0, err
	}
	f.stale = f.content != nil
	return len(b), nil
}

// done is told of a deed of which there is no more to say.
func (f *file) done(op string, err error) error { return f.at.told(deed{op: op, node: f.n}, err) }

// wire makes an error a linux.Errno, number for number.
func wire(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return linux.Errno(errno)
	}
	var done linux.Errno
	if errors.As(err, &done) {
		return done
	}
	return linux.EIO
}
