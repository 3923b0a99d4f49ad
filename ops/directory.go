package ops

import (
	"errors"
	"fmt"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

const maxName = 255

// Readdir is p9.File's; count is a number of entries.
func (f *file) Readdir(offset uint64, count uint32) (ents p9.Dirents, err error) {
	if count == 0 {
		return nil, nil
	}
	err = f.List(offset, func(q p9.QID, offset uint64, name string) bool {
		ents = append(ents, p9.Dirent{QID: q, Offset: offset, Type: q.Type, Name: name})
		return uint32(len(ents)) < count
	})
	return ents, err
}

// List is Readdir without a list: entries are yielded while the model stands still,
// so that yield must neither block nor ask for more of it.
func (f *file) List(offset uint64, yield func(q p9.QID, offset uint64, name string) bool) (err error) {
	d, ok := f.n.(directory)
	if !ok {
		return linux.ENOTDIR
	}
	_, isProc := d.(procDir)
	if isProc && offset == 0 {
		f.at.fs.tree.Drain()
	}
	if err = f.list(d, offset, true, yield); err == errNotYet {
		return f.listKept(d, offset, yield)
	}
	return wire(err)
}

// listKept is List of what is kept: entries are yielded when all of them are.
func (f *file) listKept(d directory, offset uint64, yield func(q p9.QID, offset uint64, name string) bool) error {
	var entries []entry
	for {
		failures, number := f.at.fs.journal.store.Failures(), uint64(0)
		f.at.fs.tree.View(func() { number = f.at.fs.number(f.n) })
		_ = f.at.fs.journal.store.Wait(number)
		// What has changed since may be listed as well: then it is waited for.
		entries = entries[:0]
		err := f.list(d, offset, false, func(q p9.QID, offset uint64, name string) bool {
			entries = append(entries, entry{name, q, offset})
			return len(entries) < maxEntries
		})
		if err != nil {
			return wire(err)
		}
		f.at.fs.tree.View(func() { number = f.at.fs.number(f.n) })
		if f.at.fs.kept(number, failures) {
			break
		}
	}
	for _, e := range entries {
		if !yield(e.qid, e.offset, e.name) {
			break
		}
	}
	return nil
}

// maxEntries is how many entries are held for a listing that waits: more than one
// reply takes.
const maxEntries = 1 << 16

// errNotYet is list's when there is something that is not kept yet.
var errNotYet = errors.New("not kept yet")

// list yields entries; with kept only if all of them are.
func (f *file) list(d directory, offset uint64, kept bool, yield func(q p9.QID, offset uint64, name string) bool) (err error) {
	_, isProc := d.(procDir)
	f.at.fs.tree.View(func() {
		if _, _, err = d.attr(f.at.fs); err != nil {
			return
		}
		if j := f.at.fs.journal; kept && j != nil && !j.store.Committed(f.at.fs.number(f.n)) {
			err = errNotYet
			return
		}
		if isProc && offset == 0 {
			f.pids = f.at.fs.tree.AppendPIDs(nil)
			if err = f.holdSnapshot(); err != nil {
				return // before anything of it is listed
			}
		}
		if offset < 1 && !yield(d.qid(), 1, ".") {
			return
		}
		if offset < 2 {
			up := node(d)
			if up != f.at.root {
				up = d.parent()
			}
			if !yield(up.qid(), 2, "..") {
				return
			}
		}
		after := offset - min(offset, 2)
		shifted := func(e entry) bool { return yield(e.qid, e.offset+2, e.name) }
		err = d.list(f, after, shifted)
	})
	return err
}

// Mkdir is p9.File's. The owner is the caller; what the client says of the group
// is not believed.
func (f *file) Mkdir(name string, mode p9.FileMode, _ p9.UID, _ p9.GID) (p9.QID, error) {
	d, ok := f.n.(containerDir)
	if !ok {
		return p9.QID{}, f.at.told(deed{op: "mkdir", node: f.n, name: name}, errNotIn)
	}
	resolved := f.at.fs.resolved()
	c, err := f.at.mkdir(d.c, name, mode, false)
	if err = f.at.told(deed{op: "mkdir", node: f.n, name: name, changed: containerDir{c}, resolved: resolved}, err); err != nil {
		return p9.QID{}, err
	}
	return containerDir{c}.qid(), nil
}

// mkdir makes a container, for tasks as tree.MkdirRequest has it.
func (at *attachment) mkdir(parent *tree.Container, name string, mode p9.FileMode, forTasks bool) (*tree.Container, error) {
	if err := at.fs.mayChange(); err != nil {
		return nil, err
	}
	return at.fs.tree.Mkdir(tree.MkdirRequest{
		Actor:  &at.actor,
		Parent: parent,
		Name:   name,

		ForTasks: forTasks,
		Allow: func() error {
			if err := checkName(name); err != nil {
				return err
			}
			p := attrsOf(parent).dir
			if err := at.allowedIn(p, maySearch); err != nil {
				return err
			}
			if _, err := (containerDir{parent}).lookup(at.fs, name); err == nil {
				return syscall.EEXIST
			}
			if err := at.allowedIn(p, mayWrite); err != nil {
				return err
			}
			return at.mayOwnMore()
		},
		Data: func() any { return newAttrs(at.caller.UID, at.caller.gid(), uint16(mode)) },
	})
}

var (
	errNotIn        = fmt.Errorf("containers are made in hierarchies, and these by `mount` of ctl: %w", syscall.EPERM)
	errNotContainer = fmt.Errorf("not a container: %w", syscall.EPERM)
)

// checkName checks the name of a new container: ENAMETOOLONG or EINVAL.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("a name has at most %d bytes: %w", maxName, syscall.ENAMETOOLONG)
	}
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%q is no name: %w", name, syscall.EINVAL)
	}
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == '/' || (unicode.IsControl(r) && r != utf8.RuneError) {
			return fmt.Errorf("a name has no %q: %w", r, syscall.EINVAL)
		}
		i += n
	}
	return nil
}

// atRemovedir is the flag of unlinkat(2) that asks for a directory.
const atRemovedir = 0x200

// errRenamed says that a name is another container's since it was looked up.
var errRenamed = errors.New("renamed meanwhile")

// checkElement refuses the names that are no entries: EINVAL.
func checkElement(name string) error {
	if name == "." || name == ".." {
		return syscall.EINVAL
	}
	return nil
}

// UnlinkAt is p9.File's: rmdir of a container. A control file cannot be
// unlinked: EPERM.
func (f *file) UnlinkAt(name string, flags uint32) error {
	d := deed{op: "rmdir", node: f.n, name: name, resolved: f.at.fs.resolved()}
	for {
		var n node
		var err error
		f.at.fs.tree.View(func() { _, n, err = f.at.walk(f.n, []string{name}) })
		if err == nil {
			err = checkElement(name)
		}
		if err != nil {
			return f.at.told(d, err)
		}
		err = f.at.remove(n, flags&atRemovedir != 0, func(c *tree.Container) error {
			if c.Parent().Child(name) != c {
				return errRenamed
			}
			return nil
		})
		if !errors.Is(err, errRenamed) && !errors.Is(err, syscall.ENODEV) {
			d.changed = n
			return f.at.told(d, err)
		}
	}
}

// Remove removes the file that the fid is of, whatever its name is now: Tremove.
func (f *file) Remove() error {
	_, isDir := f.n.(directory)
	if _, ok := f.n.(containerDir); ok && f.n == f.at.root {
		return f.done("rmdir", syscall.EBUSY) // its directory is not of this world
	}
	d := deed{op: "rmdir", node: f.n, resolved: f.at.fs.resolved()}
	return f.at.told(d, f.at.remove(f.n, isDir, nil))
}

// remove removes a node. Still, if any, is asked inside the change whether the
// container is the one that is meant.
func (at *attachment) remove(n node, asDir bool, still func(*tree.Container) error) error {
	if err := at.fs.mayChange(); err != nil {
		return err
	}
	d, ok := n.(containerDir)
	_, isDir := n.(directory)
	switch {
	case asDir && !isDir:
		return syscall.ENOTDIR
	case !asDir && isDir:
		return syscall.EISDIR
	case !ok:
		return errNotContainer
	}
	may := func() error {
		if d.c.IsRoot() {
			return nil // which is EBUSY for everybody
		}
		if still != nil {
			if err := still(d.c); err != nil {
				return err
			}
		}
		return at.allowedIn(attrsOf(d.c.Parent()).dir, mayWrite|maySearch)
	}
	return at.inTurn(func() error { return at.fs.tree.Rmdir(d.c, may) })
}

// RenameAt is p9.File's: a container gets another name in place.
func (f *file) RenameAt(oldName string, newDir p9.File, newName string) error {
	to, ok := newDir.(*file)
	if !ok {
		return linux.EXDEV
	}
	d := deed{op: "rename", node: f.n, name: oldName, to: newName, resolved: f.at.fs.resolved()}
	var err error
	d.changed, err = f.at.rename(f.n, oldName, to.n, newName, nil, nil)
	return f.at.told(d, err)
}

// rename renames what has a name in a directory, if allow has nothing against that
// container, or is nil. It returns the container. Allow and also are as tree.RenameRequest has
// them.
func (at *attachment) rename(from node, oldName string, to node, newName string, allow func(*tree.Container) error, also func(*tree.Container)) (n node, err error) {
	if err := at.fs.mayChange(); err != nil {
		return nil, err
	}
	at.fs.tree.View(func() { _, n, err = at.walk(from, []string{oldName}) })
	if err == nil {
		err = checkElement(oldName)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := n.(directory); !ok {
		return nil, syscall.ENOTDIR
	}
	dir, ok := from.(containerDir)
	if !ok {
		return nil, errNotContainer
	}
	if err := checkName(newName); err != nil {
		return nil, err
	}
	r := tree.RenameRequest{
		Parent: dir.c, Old: oldName, New: newName, Also: also,
		Allow: func(c *tree.Container) (err error) {
			if allow != nil {
				if err := allow(c); err != nil {
					return err
				}
			}
			n = containerDir{c}
			at.fs.tree.View(func() { err = at.mayBecome(containerDir{c}, to, newName) })
			if err != nil {
				return err
			}
			if from != to {
				return errOtherParent
			}
			return at.allowedIn(attrsOf(dir.c).dir, mayWrite|maySearch)
		},
	}
	err = at.inTurn(func() error { return at.fs.tree.Rename(r) })
	return n, err
}

// errOtherParent has the number that SPEC §3 gives it.
var errOtherParent = fmt.Errorf("a container keeps its parent: %w", syscall.EIO)

// mayBecome is EEXIST when a directory has another entry of that name than n.
// View.
func (at *attachment) mayBecome(n node, to node, name string) error {
	d, ok := to.(directory)
	if !ok {
		return syscall.ENOTDIR
	}
	p, _, err := d.attr(at.fs)
	if err == nil {
		err = at.allowedIn(p, maySearch)
	}
	if err != nil {
		return err
	}
	if k, err := d.lookup(at.fs, name); err == nil && k != n {
		return syscall.EEXIST
	}
	return nil
}

// Rename is p9.File's, as Trename asks for it: of the container that the fid is
// of, whatever its name is now.
func (f *file) Rename(newDir p9.File, newName string) error {
	to, ok := newDir.(*file)
	if !ok {
		return linux.EXDEV
	}
	d, ok := f.n.(containerDir)
	_, isDir := f.n.(directory)
	switch {
	case !isDir:
		return f.done("rename", syscall.ENOTDIR)
	case !ok || d.c.IsRoot():
		return f.done("rename", syscall.EPERM)
	case f.n == f.at.root:
		return f.done("rename", syscall.EBUSY)
	}
	resolved := f.at.fs.resolved()
	isThis := func(c *tree.Container) error {
		if c != d.c {
			return errRenamed
		}
		return nil
	}
	for {
		if err := f.gone(); err != nil {
			return f.done("rename", err)
		}
		var name string
		f.at.fs.tree.View(func() { name = d.c.Name() })
		_, err := f.at.rename(d.parent(), name, to.n, newName, isThis, nil)
		if !errors.Is(err, errRenamed) && !errors.Is(err, syscall.ENOENT) {
			return f.at.told(deed{op: "rename", node: d.parent(), name: name, to: newName, changed: f.n, resolved: resolved}, err)
		}
	}
}
