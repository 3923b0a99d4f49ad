package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// Config is what a FS is made of.
type Config struct {
	Tree     *tree.Tree
	Host     tree.Host
	Recorder *Recorder    // the tree's Observer
	Log      *slog.Logger // nil: slog.Default
	Audit    *Audit       // nil: one of its own, to Log
	Journal  *Journal     // the tree's Keeper; nil: nothing outlives the server

	// Signal sends a signal to a process, which the task is a thread of, and
	// to no other that has its number since: ESRCH if it is gone.
	Signal func(task tree.TaskInfo, sig syscall.Signal) error

	// Urgently runs f ahead of what the processes of the host have to do, as far as
	// the host allows. Nil: it just runs it.
	Urgently func(f func())

	// AllowReleaseAgent lets privileged local callers name programs that the
	// server runs.
	AllowReleaseAgent bool

	// MaxContainersPerUser bounds what an unprivileged user may own; 0 is no
	// bound.
	MaxContainersPerUser int

	// Apart are the subsystems that `all` does not mean (SPEC §1), and that there need
	// not be.
	Apart []string

	// Rules are the classification rules; nil: there are none.
	Rules *Classifier

	// Facts are lines about how the host is watched, shown in ctl.
	Facts []string
}

// FS is the served name space. All methods may be called concurrently.
type FS struct {
	tree     *tree.Tree
	host     tree.Host
	recorder *Recorder
	log      *slog.Logger
	audit    *Audit
	rules    *Classifier
	journal  *Journal
	facts    []string

	signal     func(tree.TaskInfo, syscall.Signal) error
	urgently   func(f func())
	allowAgent bool
	maxPerUser int

	// ctx ends when the FS is closed; release agents end with it.
	ctx    context.Context
	cancel context.CancelFunc

	eventsPerm perm // of the host's events; guarded as attributes are

	uid, gid  uint32           // that the server runs as
	protected map[int32]uint64 // start times of processes, by pid
	started   int64

	names []string          // of the subsystems, by id
	all   tree.SubsystemSet // what `all` means
	apart []string          // Config.Apart

	tables    sync.Map // tableKey -> *table
	snapshots snapshots
	turns     turns
}

// New makes the name space of a tree.
func New(cfg Config) *FS {
	fs := &FS{
		tree:       cfg.Tree,
		host:       cfg.Host,
		recorder:   cfg.Recorder,
		log:        cfg.Log,
		facts:      cfg.Facts,
		journal:    cfg.Journal,
		signal:     cfg.Signal,
		urgently:   cfg.Urgently,
		allowAgent: cfg.AllowReleaseAgent,
		maxPerUser: cfg.MaxContainersPerUser,
		uid:        uint32(os.Geteuid()),
		gid:        uint32(os.Getegid()),
		started:    time.Now().UnixNano(),
		names:      cfg.Tree.SubsystemNames(),
		apart:      cfg.Apart,
	}
	if fs.log == nil {
		fs.log = slog.Default()
	}
	if fs.urgently == nil {
		fs.urgently = func(f func()) { f() }
	}
	if fs.audit = cfg.Audit; fs.audit == nil {
		fs.audit = NewAudit(fs.log)
	}
	for id, name := range fs.names {
		if !slices.Contains(cfg.Apart, name) {
			fs.all |= 1 << id
		}
	}
	if fs.journal != nil {
		fs.journal.fs = fs
		fs.journal.store.Undo = fs.journal.undo
	}
	fs.protected = fs.ancestry(int32(os.Getpid()))
	fs.eventsPerm = perm{fs.uid, fs.gid, modeEvents}
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	fs.recorder.releases.run(fs.release)
	if fs.rules = cfg.Rules; fs.rules == nil {
		fs.rules = NewClassifier(0, nil, fs.log)
	}
	fs.rules.serve(fs)
	return fs
}

// Close ends the release agents that run, and serves no release any more, nor any
// rule.
func (fs *FS) Close() {
	fs.rules.close()
	fs.cancel()
	fs.recorder.releases.close()
}

// ancestry is a process with its ancestors, and pid 1: those that only a
// privileged local caller may move (SPEC §17).
func (fs *FS) ancestry(pid int32) map[int32]uint64 {
	starts := make(map[int32]uint64)
	for _, pid := range []int32{pid, 1} {
		for known := false; pid > 0 && !known; {
			info, err := fs.host.Task(pid)
			if err != nil {
				break
			}
			starts[pid] = info.Start
			pid = info.PPID
			_, known = starts[pid]
		}
	}
	return starts
}

// isProtected reports whether a process is one of the protected, and not another that has
// got the number since.
func (fs *FS) isProtected(tgid int32) bool {
	start, ok := fs.protected[tgid]
	if !ok {
		return false
	}
	info, err := fs.host.Task(tgid)
	return err != nil || info.Start == start
}

// Mount makes a hierarchy as the server's own command line asks for it: of the
// name and the options given. A hierarchy of that description that exists
// already is success. It is kept then.
func (fs *FS) Mount(name, opts string) error {
	o, err := fs.parseOptions(opts, opts != "", fs.allowAgent)
	if err != nil {
		return err
	}
	resolved := fs.resolved()
	if err := fs.mountNamed(name, o); err != nil {
		return err
	}
	return fs.keep(fs.lastOf(ctlFile{}), resolved)
}

// mountNamed mounts under a name: one that can be given, or the one that these options have
// where none is.
func (fs *FS) mountNamed(name string, o options) error {
	valid := validHierarchyName(name) || name == fs.tree.CanonicalName(o.subsystems, o.noprefix)
	if !valid || (o.name != "" && o.name != name) {
		return fmt.Errorf("%q cannot be its name: %w", name, syscall.EINVAL)
	}
	o.name = name
	_, err := fs.mount(o, false)
	if errors.Is(err, syscall.EBUSY) {
		if in := fs.conflict(name, o); in != "" {
			return fmt.Errorf("%s already: %w", in, syscall.EBUSY)
		}
	}
	return err
}

// attachment is one attach: who it is for and what its root is. It is shared by
// all files reached from it.
type attachment struct {
	fs     *FS
	caller *Caller
	actor  tree.Actor
	root   node
	status atomic.Pointer[string] // see note; nil: ok
}

// privileged reports whether the caller is uid 0 or the user that the server runs
// as (SPEC §1).
func (at *attachment) privileged() bool { return at.actor.Privileged }

// Attach gives the root of an attach by its attach name (SPEC §2): the whole name
// space, a hierarchy, a container in it, or what an option string mounts.
// Errors: ENOENT for an unknown name, EPERM for who may not mount, and those of a
// walk and of a mount.
func (fs *FS) Attach(c *Caller, aname string) (p9.File, error) {
	at := &attachment{fs: fs, caller: c}
	at.actor = tree.Actor{UID: c.UID, Privileged: c.UID == 0 || c.UID == fs.uid, Local: c.Local}
	f, err := at.attach(aname)
	if err != nil {
		return nil, at.told(deed{op: "attach", name: strings.TrimPrefix(aname, "/")}, err)
	}
	if c.ReadOnly {
		return readOnly{f}, nil
	}
	return f, nil
}

func (at *attachment) attach(aname string) (*file, error) {
	path := strings.TrimPrefix(aname, "/")
	if at.caller.Confined != "" {
		return at.attachConfined(path)
	}
	if path == "" {
		at.root = topDir{}
		return at.open(at.root), nil
	}
	name, rest, _ := strings.Cut(path, "/")
	f, err := at.attachNamed(name, namesOf(rest))
	if err != errNoHierarchy {
		return f, err
	}
	return at.attachOptions(path)
}

// errNoHierarchy is attachNamed's for a name that no hierarchy has.
var errNoHierarchy = fmt.Errorf("no hierarchy of that name: %w", syscall.ENOENT)

// attachNamed attaches to a container of a hierarchy that is mounted.
func (at *attachment) attachNamed(name string, names []string) (f *file, err error) {
	at.fs.tree.View(func() {
		h := at.fs.tree.Published(name)
		if h == nil {
			err = errNoHierarchy
			return
		}
		at.root = containerDir{h.Root()}
		if err = at.enter(names); err == nil {
			f = at.open(at.root)
		}
	})
	return f, err
}

// namesOf takes the rest of an attach name apart.
func namesOf(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(path, "/"), "/")
}

// enter moves the root of the attachment to a directory below. View.
func (at *attachment) enter(names []string) error {
	_, n, err := at.walk(at.root, names)
	if err != nil {
		return err
	}
	if _, isDir := n.(directory); !isDir {
		return syscall.ENOTDIR
	}
	at.root = n
	return nil
}

// attachOptions attaches to the hierarchy that an option string describes, and
// mounts it if it is not: privileged callers only.
func (at *attachment) attachOptions(s string) (*file, error) {
	o, err := at.fs.parseOptions(s, true, at.mayNameAgents())
	if err != nil {
		return nil, err
	}
	if !at.privileged() || at.caller.ReadOnly {
		return at.attachMounted(o)
	}
	if err := at.fs.mayChange(); err != nil {
		return nil, err
	}
	resolved := at.fs.resolved()
	h, err := at.fs.mount(o, true)
	mounted := err == nil
	if err = at.told(deed{op: "attach", name: s, changed: ctlFile{}, resolved: resolved}, err); err != nil {
		if mounted {
			h.Release()
		}
		return nil, err
	}
	at.root = containerDir{h.Root()}
	f := at.open(at.root)
	h.Release() // the file holds it now
	return f, nil
}

// attachMounted attaches to what an option string describes if it is mounted,
// which is everybody's: EPERM if it is not, or EROFS for who could mount it.
func (at *attachment) attachMounted(o options) (f *file, err error) {
	if err = at.actor.CheckPrivileged(); err == nil {
		err = syscall.EROFS
	}
	at.fs.tree.View(func() {
		for h := range at.fs.tree.Hierarchies {
			if h.Published() && h.Subsystems() == o.subsystems && h.Noprefix() == o.noprefix && (o.name == "" || o.name == h.Name()) {
				at.root = containerDir{h.Root()}
				f, err = at.open(at.root), nil
			}
		}
	})
	return f, err
}
