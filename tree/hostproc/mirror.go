package hostproc

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// A Mirror is a named hierarchy with one directory per css group, named by the
// group's number; the hierarchy's root is group 0. It implements tree.Mirror.
// Who else may write there can move tasks and make directories: see Where.
type Mirror struct {
	name string
	proc *procFS

	life sync.RWMutex // root is used under it
	root *kernfs.Dir  // nil when closed

	mu   sync.Mutex
	made map[uint64]struct{} // groups that Make made a directory for
}

var _ tree.Mirror = (*Mirror)(nil)

// OpenMirror opens the mirror of an id, of which the hierarchy's name is made,
// and makes it if there is none. A refusal matches kernfs.ErrRefused. Directories
// that are there already are nobody's until Make is called for their groups. One that is
// made has the controller, unless that is "": see kernfs.OpenNamedWith.
func OpenMirror(id, controller string) (*Mirror, error) {
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	name := kernfs.MirrorPrefix + id
	root, err := kernfs.OpenNamedWith(name, controller)
	if err != nil {
		proc.close()
		return nil, err
	}
	return &Mirror{name: name, proc: proc, root: root, made: map[uint64]struct{}{}}, nil
}

// Name is the name of the hierarchy, as /proc/<pid>/cgroup shows it.
func (m *Mirror) Name() string { return m.name }

// Controllers are those that the hierarchy has.
func (m *Mirror) Controllers() ([]string, error) { return kernfs.Controllers(m.name) }

// Close leaves where tasks are as it is, for the next server of the same id. The
// kernel keeps the mirror while it has directories; when no task is in any it is retired.
func (m *Mirror) Close(limit time.Duration) error {
	return m.end(func(root *kernfs.Dir) error {
		names, err := root.Dirs()
		if err != nil {
			root.Close()
			return err
		}
		left := false
		for _, name := range names {
			if err := root.Remove(name); err != nil && !kernfs.IsGone(err) {
				left = true
			}
		}
		if left {
			return root.Close()
		}
		return kernfs.Retire(root, limit)
	})
}

// Retire puts all tasks back into the root, removes the directories and waits,
// for at most so long, until the kernel has removed the hierarchy.
func (m *Mirror) Retire(limit time.Duration) error {
	return m.end(func(root *kernfs.Dir) error { return kernfs.Retire(root, limit) })
}

func (m *Mirror) end(how func(*kernfs.Dir) error) error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.root == nil {
		return nil
	}
	root := m.root
	m.root = nil
	m.proc.close()
	return how(root)
}

// dir returns the root with life locked for reading, or an error without.
func (m *Mirror) dir() (*kernfs.Dir, error) {
	m.life.RLock()
	if m.root == nil {
		m.life.RUnlock()
		return nil, &OpError{"use", "mirror " + m.name, unix.ENODEV}
	}
	return m.root, nil
}

// Make implements tree.Mirror.
func (m *Mirror) Make(group uint64) error {
	root, err := m.dir()
	if err != nil {
		return err
	}
	defer m.life.RUnlock()
	return m.make(root, group)
}

func (m *Mirror) make(root *kernfs.Dir, group uint64) error {
	if group == 0 {
		return nil
	}
	if err := root.Make(groupDir(group)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	m.mu.Lock()
	m.made[group] = struct{}{}
	m.mu.Unlock()
	return nil
}

// Remove implements tree.Mirror. A directory that is gone counts as removed.
func (m *Mirror) Remove(groups []uint64) (busy []uint64) {
	root, err := m.dir()
	if err != nil {
		return groups
	}
	defer m.life.RUnlock()
	for _, group := range groups {
		if group == 0 {
			continue
		}
		if err := root.Remove(groupDir(group)); err != nil && !kernfs.IsGone(err) {
			busy = append(busy, group)
			continue
		}
		m.mu.Lock()
		delete(m.made, group)
		m.mu.Unlock()
	}
	return busy
}

// Move implements tree.Mirror. The kernel says yes to the move of a thread that
// is exiting and does nothing. If somebody has removed the directory it is made
// again: he could do so only because nobody was in it.
func (m *Mirror) Move(group uint64, id int32, process bool) error {
	root, err := m.dir()
	if err != nil {
		return err
	}
	defer m.life.RUnlock()
	err = root.Move(groupDir(group), id, process)
	if kernfs.IsGone(err) && m.has(group) {
		if err := m.make(root, group); err != nil {
			return err
		}
		err = root.Move(groupDir(group), id, process)
	}
	return err
}

// Where implements tree.Mirror. Only the root takes care: the kernel shows a
// thread there whose fork is not finished and one that is exiting, wherever they
// belong.
func (m *Mirror) Where(tid int32) (uint64, error) {
	if _, err := m.dir(); err != nil {
		return 0, err
	}
	defer m.life.RUnlock()
	group, err := m.where(tid)
	if err != nil {
		return 0, failTask("find in the mirror", tid, err)
	}
	return group, nil
}

// forkTime is how long a fork is believed to be under way at most. There is
// nothing to see of a thread that the scheduler did not let run for so long.
const forkTime = 200 * time.Millisecond

func (m *Mirror) where(tid int32) (uint64, error) {
	if tid <= 0 {
		return 0, unix.ESRCH
	}
	b := m.proc.buf()
	defer m.proc.bufs.Put(b)
	// While this is open, what is read before a read of it that succeeds is of
	// one thread.
	fd, err := m.proc.open(b.name(tid, 0, "stat"), unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var began time.Time
	for forked := false; ; {
		text, err := m.proc.read(b, b.name(tid, 0, "cgroup"))
		if err != nil {
			return 0, err
		}
		path, ok := parseCgroup(text, m.name)
		if !ok {
			return 0, unix.EIO
		}
		group, ok := parseGroup(path)
		if !ok || !m.has(group) {
			return 0, tree.ErrForeignGroup
		}
		if group != 0 {
			return group, nil
		}
		forked = forked || inCgroup(text)
		s, err := statOf(b.readAll(fd))
		if err != nil {
			return 0, err
		}
		if !s.live() {
			return 0, unix.ESRCH
		}
		if forked {
			return 0, nil
		}
		// A thread that has run was forked before, and belongs where it is
		// found next.
		if forked, err = m.proc.hasRun(b, &s); err != nil {
			return 0, err
		}
		if forked {
			continue
		}
		if began.IsZero() {
			began = time.Now()
		} else if time.Since(began) > forkTime {
			return 0, nil
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// Members implements tree.Mirror. A group without a directory has none.
func (m *Mirror) Members(group uint64) ([]int32, error) {
	root, err := m.dir()
	if err != nil {
		return nil, err
	}
	defer m.life.RUnlock()
	if group == tree.ForeignGroup {
		return m.foreign(nil, root, true)
	}
	tids, err := root.IDs(groupDir(group) + "/tasks")
	if kernfs.IsGone(err) {
		return nil, nil
	}
	return tids, err
}

// foreign appends the threads in the directories below dir that no group has.
// Only in the root can there be one that a group has.
func (m *Mirror) foreign(tids []int32, dir *kernfs.Dir, root bool) ([]int32, error) {
	names, err := dir.Dirs()
	for _, name := range names {
		group, ok := parseGroup([]byte("/" + name))
		ours := root && ok && m.has(group)
		if ours {
			if n, err := dir.Subdirs(name); err == nil && n == 0 {
				continue // as it should be
			}
		}
		sub, err := dir.Open(name)
		if err == nil && !ours {
			var in []int32
			in, err = sub.IDs("tasks")
			tids = append(tids, in...)
		}
		if err == nil {
			tids, err = m.foreign(tids, sub, false)
		}
		if sub != nil {
			sub.Close()
		}
		if err != nil && !kernfs.IsGone(err) {
			return tids, err
		}
	}
	if kernfs.IsGone(err) {
		err = nil
	}
	return tids, err
}

// Adopt takes over what a server of the same id left: the directories of groups that
// are wanted are those that exist now; all others are emptied into the root and
// removed. Strangers are the tasks that were in these.
// What resists is nobody's, and its error is returned.
func (m *Mirror) Adopt(wanted []uint64) (exists map[uint64]bool, strangers []int32, err error) {
	root, err := m.dir()
	if err != nil {
		return nil, nil, err
	}
	defer m.life.RUnlock()
	names, err := root.Dirs()
	if err != nil {
		return nil, nil, err
	}
	exists = make(map[uint64]bool)
	known := make(map[uint64]bool, len(wanted))
	for _, group := range wanted {
		known[group] = true
	}
	var errs []error
	for _, name := range names {
		if group, ok := parseGroup([]byte("/" + name)); ok && known[group] {
			exists[group] = true
			continue
		}
		err := root.Clear(name, "tasks", func(tid int32) error {
			err := root.Move(".", tid, false)
			if err == nil {
				strangers = append(strangers, tid)
			}
			return err
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	return exists, strangers, errors.Join(errs...)
}

// Groups lists the groups that have directories, whoever made them.
func (m *Mirror) Groups() ([]uint64, error) {
	root, err := m.dir()
	if err != nil {
		return nil, err
	}
	defer m.life.RUnlock()
	names, err := root.Dirs()
	if err != nil {
		return nil, err
	}
	var groups []uint64
	for _, name := range names {
		if group, ok := parseGroup([]byte("/" + name)); ok {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

func (m *Mirror) has(group uint64) bool {
	if group == 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.made[group]
	return ok
}

func groupDir(group uint64) string {
	if group == 0 {
		return "."
	}
	return strconv.FormatUint(group, 10)
}
