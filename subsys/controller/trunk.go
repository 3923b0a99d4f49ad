package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// prefix begins the names of all bases.
const prefix = "containerfs-"

// leaf is the directory of version 2 that has a container's own tasks.
const leaf = "leaf"

// A trunk is one hierarchy of the kernel as this server uses it: its base, with a
// directory for each container of the one hierarchy of ours to which its controllers
// are bound.
type trunk struct {
	place
	name     string // of its set, or "v2"
	log      *slog.Logger
	keep     bool
	origins  Origins
	root     *kernfs.Dir // of the kernel's hierarchy
	parent   *kernfs.Dir // where the base is
	parentAt string      // its path in the kernel's hierarchy, "" for the root
	baseName string
	base     *node
	baseDir  atomic.Pointer[kernfs.Dir]
	tree     *tree.Tree
	// where gives the path of the directory that a thread is in; move moves a thread,
	// in version 2 its process, to a directory. Tests without a kernel's controllers
	// have others than the kernel's.
	where func(tid int32) (string, error)
	move  func(dir *kernfs.Dir, id int32) error
	subs  []*Subsystem // in order of registration

	nodes map[uint64]*node // by container, but for roots; changed with both of the Tree's locks

	// noting is held while it is noted what clients have set. It comes before the Tree's mu.
	noting sync.Mutex

	// The rest is guarded by changeMu.
	hier    *tree.Hierarchy // that controllers are bound to, nil for none
	late    []*node         // whose directories are still to be removed
	adopted bool            // what the kernel had was compared with the containers
	made    bool            // the base was, by this server
	former  []*kernfs.Dir   // bases that somebody else has removed
	next    uint64          // see audit
	taken   map[string]bool // by somebody else; see checkHandedDown
	saved   map[key]Origin  // of an earlier server, until adopted

	// Guarded by the Tree's mu; leader is changed under changeMu, too.
	leader *Subsystem
	from   map[any]*source  // by origin key
	stale  bool             // from may have some of tasks in the root
	dirty  []*tree.Task     // inherited, to be kept
	dead   map[key]struct{} // kept, of tasks that have ended
}

// list is the file that has a directory's tasks.
func (t *trunk) list() string {
	if t.version == 2 {
		return "cgroup.procs"
	}
	return "tasks"
}

// open finds or makes the base.
func (t *trunk) open(gone func(id string) bool) (err error) {
	defer func() {
		if err == nil {
			return
		}
		if t.made {
			err = errors.Join(err, t.clear(t.baseName))
		}
		t.closeDirs()
	}()
	if t.root, err = t.openRoot(); err != nil {
		return err
	}
	if err := t.openParent(); err != nil {
		return err
	}
	if t.version == 2 {
		if err := t.control(t.parent, t.names()); err != nil {
			return fmt.Errorf("%w: it cannot be handed down from %s", err, t.parent.Path())
		}
	}
	t.removeLeftovers(gone)
	return t.makeBase()
}

// names are the controllers that were asked for.
func (t *trunk) names() (names []string) {
	for _, s := range t.subs {
		if s.name != Core {
			names = append(names, s.name)
		}
	}
	return names
}

// openParent finds the directory to have the base in: that of a delegation, or the
// root.
func (t *trunk) openParent() error {
	if t.version == 2 {
		at, err := t.delegation()
		if err != nil {
			return err
		}
		t.parentAt = at
	}
	if t.parentAt == "" {
		var err error
		t.parent, err = t.root.Open(".")
		return err
	}
	var err error
	if t.parent, err = t.root.Open(t.parentAt[1:]); err != nil {
		return err
	}
	t.log.Info("the kernel directories are in a delegated one", "path", t.parentAt)
	return t.vacate()
}

// delegation is the path of the nearest directory above this process that was
// delegated to it (systemd's Delegate=yes), "" for none.
func (t *trunk) delegation() (string, error) {
	at, err := t.where(int32(os.Getpid()))
	if err != nil {
		return "", err
	}
	for path := at; path != "/"; path = path[:max(strings.LastIndex(path, "/"), 0)] {
		if path == "" {
			break
		}
		dir, err := t.root.Open(path[1:])
		if err != nil {
			break // it is above what this namespace shows
		}
		trusted, _ := dir.Xattr("trusted.delegate")
		user, _ := dir.Xattr("user.delegate")
		owner, err := dir.Owner()
		mine := os.Geteuid() != 0 && dir.MayWrite(".") && dir.MayWrite("cgroup.subtree_control")
		dir.Close()
		// One above root's server can be a user's, as of the session in which it was started.
		given := (trusted == "1" || user == "1") && err == nil && int(owner) == os.Geteuid()
		if given || mine {
			return path, nil
		}
	}
	return "", nil
}

// vacate moves this process out of the delegated directory itself, which can have
// either processes or directories with controllers.
func (t *trunk) vacate() error {
	pids, err := t.parent.IDs("cgroup.procs")
	if err != nil || len(pids) == 0 {
		return err
	}
	if self := int32(os.Getpid()); len(pids) > 1 || pids[0] != self {
		return fmt.Errorf("%s has other processes than the server: use DelegateSubgroup= (%w)", t.parentAt, unix.EBUSY)
	}
	if err := t.parent.Make("server"); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return t.parent.Move("server", pids[0], true)
}

// control hands controllers down from dir, those that it does not have yet.
func (t *trunk) control(dir *kernfs.Dir, names []string) error {
	has, err := dir.Read("cgroup.subtree_control", nil)
	if err != nil {
		return err
	}
	on := strings.Fields(string(has))
	for _, name := range names {
		if slices.Contains(on, name) {
			continue
		}
		if err := dir.Write("cgroup.subtree_control", []byte("+"+name)); err != nil {
			return err
		}
		if dir == t.parent {
			t.log.Info("the kernel's controller was switched on for the directories below", "controller", name, "path", dir.Path())
		}
	}
	return nil
}

// makeBase makes the base, or finds it.
func (t *trunk) makeBase() error {
	if err := t.parent.Make(t.baseName); errors.Is(err, unix.EEXIST) {
		t.base.adopted = true
	} else if err != nil {
		return err
	} else {
		t.made = true
	}
	dir, err := t.parent.Open(t.baseName)
	if err != nil {
		return err
	}
	if old := t.baseDir.Swap(dir); old != nil {
		t.former = append(t.former, old) // somebody may be using it
	}
	if t.version == 2 {
		if err := t.control(dir, t.names()); err != nil {
			return err
		}
		if err := dir.Make(leaf); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	}
	if slices.Contains(t.set, "memory") {
		// Before Linux 5.11 a limit did not hold for what is below by itself.
		_ = dir.Write("memory.use_hierarchy", []byte("1"))
	}
	if slices.Contains(t.set, "cpuset") {
		return t.openCpuset(dir)
	}
	return nil
}

// openCpuset lets tasks into the base of a version 1 hierarchy that has cpuset, and,
// where cpuset is there only because the host has mounted it with others, into
// all directories below.
func (t *trunk) openCpuset(dir *kernfs.Dir) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := t.parent.Read(name, nil)
		if err == nil {
			err = dir.Write(name, value)
		}
		if err != nil {
			return err
		}
	}
	if !slices.Contains(t.subsystems(), "cpuset") {
		return dir.Write("cgroup.clone_children", []byte("1"))
	}
	return nil
}

// removeLeftovers removes the bases of servers that died without doing it.
func (t *trunk) removeLeftovers(gone func(id string) bool) {
	names, err := t.parent.Dirs()
	if err != nil {
		t.log.Warn("the kernel directories of servers that were killed cannot be looked for", "err", err)
		return
	}
	for _, name := range names {
		id, ok := strings.CutPrefix(name, prefix)
		if !ok || name == t.baseName || gone == nil || !gone(id) {
			continue
		}
		if err := t.clear(name); err != nil {
			t.log.Warn("a kernel directory of a server that was killed is left over", "name", name, "err", err)
			continue
		}
		t.log.Info("removed the kernel directory of a server that was killed; what was in it is in the one above", "name", name)
	}
}

// clear removes a directory of the parent with all that is below; its tasks go to
// the parent.
func (t *trunk) clear(name string) error {
	var err error
	for i := range 8 {
		err = t.parent.Clear(name, t.list(), func(id int32) error {
			to := "."
			if t.parentAt != "" && t.version == 2 {
				to = "server" // beside directories with controllers there can be no process
			}
			err := t.parent.Move(to, id, t.version == 2)
			if kernfs.IsGone(err) {
				if err := t.parent.Make(to); err != nil {
					return err
				}
				err = t.parent.Move(to, id, t.version == 2)
			}
			return err
		})
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Millisecond << i) // a task is on its way out
	}
	return err
}

// retire puts the tasks back, removes the base and lets go of the hierarchy.
func (t *trunk) retire() error {
	if t.base == nil {
		return nil
	}
	var err error
	// What an earlier server has left is not taken for nobody's by one that is
	// refused before it has made its containers.
	settled := t.adopted || !t.base.adopted || t.vacant()
	if !t.keep || settled && len(t.nodes) == 0 {
		t.putAllBack()
		err = t.clear(t.baseName)
		if err == nil && t.fresh {
			t.awaitRemoval()
		}
	}
	t.closeDirs()
	return err
}

// vacant reports whether the base has neither tasks nor directories of containers.
func (t *trunk) vacant() bool {
	base := t.baseDir.Load()
	if base == nil {
		return false
	}
	names, err := base.Dirs()
	if err != nil || slices.ContainsFunc(names, func(name string) bool { return name != leaf }) {
		return false
	}
	ids, err := t.members(t.base)
	return err == nil && len(ids) == 0
}

// awaitRemoval waits until the kernel has freed the directories of a hierarchy
// that was made for this server: closed before, it would stay for ever.
func (t *trunk) awaitRemoval() {
	for i := range 12 {
		text, err := os.ReadFile("/proc/cgroups")
		if err != nil {
			return
		}
		if kernfs.ParseControllers(string(text))[t.set[0]].Dirs == "1" {
			return
		}
		time.Sleep(time.Millisecond << i)
	}
	t.log.Warn("the kernel's hierarchy that was made for this server is left over", "controller", t.set[0])
}

func (t *trunk) closeDirs() {
	for _, d := range t.former {
		d.Close()
	}
	t.former = nil
	if d := t.baseDir.Swap(nil); d != nil {
		d.Close()
	}
	for _, d := range []**kernfs.Dir{&t.parent, &t.root} {
		if *d != nil {
			(*d).Close()
			*d = nil
		}
	}
}
