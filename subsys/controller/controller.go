package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// Config is what Open is asked for.
type Config struct {
	Names []string // of controllers
	ID    string   // of the server, or of its state: the base is containerfs-ID

	// Keep has the directories, and the tasks in them, stay where they are when
	// the server ends, for the next one of the same ID.
	Keep bool

	// Origins keeps where tasks came from. Nil: nobody does.
	Origins Origins

	// Gone tells that a base with this id is of a server that was killed. Nil:
	// that is never known.
	Gone func(id string) bool

	Log *slog.Logger // nil: slog.Default
}

// Open finds the controllers asked for, and makes a base in each of the kernel's
// hierarchies that has some. The subsystems are in the order of Names; each has
// to be closed. On an error, which says what this host lacks, nothing is left.
func Open(cfg Config) (subs []*Subsystem, err error) {
	if len(cfg.Names) == 0 {
		return nil, nil
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Origins == nil {
		cfg.Origins = forgetful{}
	}
	f, err := probe()
	if err != nil {
		return nil, fmt.Errorf("the kernel's controllers cannot be found out: %w", err)
	}
	var trunks []*trunk
	defer func() {
		if err != nil {
			for _, t := range trunks {
				err = errors.Join(err, t.retire())
			}
			subs = nil
		}
	}()
	for _, name := range slices.Concat(Names, []string{"cpuset", "cpuacct"}) {
		if !slices.Contains(cfg.Names, name) {
			continue
		}
		at, err := f.find(name)
		if err != nil {
			return nil, fmt.Errorf("enable %s: %w", name, err)
		}
		t := trunkAt(&trunks, at, cfg)
		s := &Subsystem{name: name, t: t}
		t.subs = append(t.subs, s)
		subs = append(subs, s)
	}
	for _, t := range trunks {
		if err := t.start(cfg); err != nil {
			return nil, fmt.Errorf("enable %s: %w", join(t.subsystems()), err)
		}
	}
	return subs, nil
}

// trunkAt finds or makes the trunk for a place.
func trunkAt(trunks *[]*trunk, at place, cfg Config) *trunk {
	name := "v2"
	if at.version == 1 {
		name = strings.Join(at.set, ",")
	}
	for _, t := range *trunks {
		if t.name == name {
			return t
		}
	}
	t := &trunk{
		place: at, name: name, log: cfg.Log, keep: cfg.Keep, origins: cfg.Origins, baseName: prefix + cfg.ID,
		nodes: map[uint64]*node{}, from: map[any]*source{}, dead: map[key]struct{}{}, taken: map[string]bool{},
	}
	t.where = t.find
	t.move = func(dir *kernfs.Dir, id int32) error { return dir.Move(".", id, t.version == 2) }
	*trunks = append(*trunks, t)
	return t
}

func (t *trunk) subsystems() (names []string) {
	for _, s := range t.subs {
		names = append(names, s.name)
	}
	return names
}

// start opens a trunk, finds its files and says what it will do.
func (t *trunk) start(cfg Config) error {
	t.base = &node{t: t}
	if err := t.open(cfg.Gone); err != nil {
		t.base = nil
		return err
	}
	base := t.baseDir.Load()
	files, err := base.Files()
	if err != nil {
		return err
	}
	for _, s := range t.subs {
		s.files = s.rows(files)
	}
	kept, err := cfg.Origins.All()
	if err != nil {
		return err
	}
	t.saved = make(map[key]Origin)
	for _, o := range kept {
		if o.Trunk == t.name {
			t.saved[o.key()] = o
		}
	}
	t.log.Warn("kernel controllers are bound by containers: what systemd or docker do for a task by its cgroup ends when it enters one",
		"controllers", join(t.subsystems()), "version", t.version, "base", t.basePath())
	return nil
}

// A Subsystem is one controller of the kernel.
type Subsystem struct {
	name  string
	t     *trunk
	files []tree.File
	id    int  // set in the Create of the root state
	bound bool // to a hierarchy; changeMu

	limits *Limits // of pids, nil without

	again func(*tree.Container) // nil: nothing; see Again
}

// Again has f called when a container's directory, which somebody else had removed, was made
// again. It is called before there are containers; f is called under changeMu.
func (s *Subsystem) Again(f func(c *tree.Container)) { s.again = f }

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return s.name }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return s.files }

// Facts are what is done with the kernel's hierarchy, said by the first of its subsystems.
func (s *Subsystem) Facts() []string {
	if s.t.subs[0] != s {
		return nil
	}
	return []string{fmt.Sprintf("the kernel's %s of cgroup version %d, in %s", join(s.t.subsystems()), s.t.version, s.t.basePath())}
}

// WholeProcesses is tree.ProcessMover's.
func (s *Subsystem) WholeProcesses() bool { return s.t.version == 2 }

// Create is tree.Subsystem's.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if c.IsRoot() {
		s.t.tree = c.Tree()
		s.id = s.t.tree.SubsystemID(s.name)
		return s.t.base, nil
	}
	n, err := s.t.state(c, s.node(c.Parent()))
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Destroy is tree.Subsystem's.
func (s *Subsystem) Destroy(c *tree.Container, _ tree.State) { s.t.release(s.node(c)) }

// node is a container's. View or Change.
func (s *Subsystem) node(c *tree.Container) *node {
	if c.IsRoot() {
		return s.t.base
	}
	return s.t.nodes[c.ID()]
}

var errElsewhere = fmt.Errorf("the kernel has it in one hierarchy with controllers that are bound to another of ours: %w", syscall.EBUSY)

// CanBind is tree.CanBinder's.
func (s *Subsystem) CanBind(h *tree.Hierarchy) error {
	if s.t.hier != nil && s.t.hier != h {
		s.t.log.Warn("a controller cannot be bound: the kernel has it in one hierarchy with controllers that are bound to another of ours",
			"controller", s.name, "bound", s.t.hier.Name(), "with", join(s.t.bound()))
		return errElsewhere
	}
	return nil
}

// Bind is tree.Binder's.
func (s *Subsystem) Bind(root *tree.Container) {
	t := s.t
	h := root.Hierarchy()
	if s.bound = h.Number() != 0; s.bound {
		t.hier = h
	}
	var leader *Subsystem
	for _, o := range t.subs {
		if o.bound && (leader == nil || o.id < leader.id) {
			leader = o
		}
	}
	if leader == nil {
		t.hier = nil
	}
	t.tree.Update(func() { t.leader = leader })
}

// Attach is tree.Attacher's.
func (s *Subsystem) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	if s.t.leader != s {
		return nil, nil
	}
	return s.t.attach(task, s.node(to))
}

// Reattach is tree.Reattacher's: a task that somebody else has moved in the kernel is
// put where it should be.
func (s *Subsystem) Reattach(task *tree.Task, c *tree.Container) error {
	_, err := s.Attach(task, c, c)
	return err
}

// Fork is tree.Forker's: a child has its forker's origin.
func (s *Subsystem) Fork(parent, child *tree.Task, c *tree.Container) {
	if s.t.leader == s {
		s.t.inherit(parent, child, c)
	}
}

// Exit is tree.Exiter's.
func (s *Subsystem) Exit(task *tree.Task, _ *tree.Container) {
	if s.t.leader == s && (s.t.version == 1 || task.Process().NumThreads() <= 1) {
		s.t.drop(task)
	}
}

// Move is tree.Mover's: in the root a task has no other origin than where it is.
func (s *Subsystem) Move(task *tree.Task, _, to *tree.Container) {
	if s.t.leader == s && to.IsRoot() {
		s.t.drop(task)
	}
}

// inherit gives a new task its origin. With mu.
func (t *trunk) inherit(parent, child *tree.Task, c *tree.Container) {
	to := t.holder(child)
	if t.from[to] != nil {
		return
	}
	if o, ok := t.saved[key{t.name, t.subject(child)}]; ok && !child.Forked() && !c.IsRoot() &&
		child.Start() <= o.Start {
		t.from[to] = &source{o.Path, o.ID}
		return
	}
	if parent == nil {
		return
	}
	from := t.from[t.holder(parent)]
	if from == nil {
		return
	}
	if c.IsRoot() {
		// It can be of a task that is being given back, and have to follow.
		if !parent.Moving() {
			return
		}
		t.stale = true
	}
	t.from[to] = from
	t.dirty = append(t.dirty, child)
}

// drop forgets the origin of a task. With mu.
func (t *trunk) drop(task *tree.Task) {
	h := t.holder(task)
	if t.from[h] != nil {
		delete(t.from, h)
		t.dead[key{t.name, t.subject(task)}] = struct{}{}
	}
}

// Enforce looks after what nothing tells of; see trunk.look.
func (s *Subsystem) Enforce() {
	if s.t.subs[0] == s && s.t.tree != nil {
		s.t.look()
	}
}

// Close removes what was made in the kernel, unless it is to be kept.
func (s *Subsystem) Close() error {
	if s.t.subs[0] != s {
		return nil
	}
	if s.t.tree != nil {
		s.t.settle()
	}
	return s.t.retire()
}

// rows are the control files of the subsystem, of those that there are.
func (s *Subsystem) rows(files []kernfs.File) (rows []tree.File) {
	for _, f := range files {
		base, ok := strings.CutPrefix(f.Name, s.name+".")
		if !ok || s.name == Core && !slices.Contains(coreFiles, base) {
			continue
		}
		row := tree.File{Name: base, Kills: s.name == Core && base == "kill"}
		if f.Reads {
			row.Fetch = func(c *tree.Container) ([]byte, error) { return s.Fetch(c, f.Name) }
		}
		if f.Writes {
			row.Pass = func(_ *tree.Actor, c *tree.Container, data []byte) error { return s.write(c, f, data) }
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b tree.File) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// coreFiles are those of version 2's own that change no task's place.
var coreFiles = []string{"events", "freeze", "kill", "pressure", "stat"}

// Fetch reads a file of a container's kernel directory as it is. No lock is held.
func (s *Subsystem) Fetch(c *tree.Container, name string) ([]byte, error) {
	n, err := s.find(c)
	if err != nil {
		return nil, err
	}
	dir, err := n.open()
	if err != nil {
		return nil, gone(err)
	}
	defer dir.Close()
	b, err := dir.Read(name, nil)
	return b, gone(err)
}

// write is one write of the kernel's. No lock is held; the container is pinned.
func (s *Subsystem) write(c *tree.Container, f kernfs.File, data []byte) error {
	n, err := s.find(c)
	if err != nil {
		return err
	}
	dir, err := n.open()
	if err != nil {
		return gone(err)
	}
	defer dir.Close()
	return gone(n.command(f, dir, data))
}

// find is the node of a container that may have gone.
func (s *Subsystem) find(c *tree.Container) (n *node, err error) {
	s.t.tree.View(func() {
		if !s.Shows(c) {
			err = syscall.ENODEV
			return
		}
		if n = s.node(c); n == nil {
			err = syscall.ENODEV // it is being removed
		}
	})
	return n, err
}

// Get reads a file of a container's kernel directory, which is made again where it is gone,
// without the newline at its end. Under changeMu.
func (s *Subsystem) Get(c *tree.Container, name string) (value string, err error) {
	err = s.in(c, func(dir *kernfs.Dir) error {
		b, err := dir.Read(name, nil)
		value = strings.TrimSuffix(string(b), "\n")
		return err
	})
	return value, err
}

// DirectoryID is the kernel's number for a container's directory, which no other one has while
// the host is booted. Under changeMu.
func (s *Subsystem) DirectoryID(c *tree.Container) (uint64, error) {
	dir, err := s.node(c).open()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return dir.ID()
}

// Set writes a file of a container's kernel directory, likewise.
func (s *Subsystem) Set(c *tree.Container, name, value string) error {
	return s.in(c, func(dir *kernfs.Dir) error { return dir.Write(name, []byte(value)) })
}

// in does something in a container's kernel directory, which is made again where it is gone.
// Under changeMu.
func (s *Subsystem) in(c *tree.Container, do func(*kernfs.Dir) error) error {
	n := s.node(c)
	try := func() error {
		dir, err := n.open()
		if err != nil {
			return err
		}
		defer dir.Close()
		return do(dir)
	}
	err := try()
	if kernfs.IsGone(err) {
		if err = s.t.revive(n); err == nil {
			err = try()
		}
	}
	return err
}

// Binds reports whether the subsystem is bound to the hierarchy of c. Under
// changeMu.
func (s *Subsystem) Binds(c *tree.Container) bool { return s.bound && s.t.hier == c.Hierarchy() }

// Shows reports whether a container has the subsystem. View.
func (s *Subsystem) Shows(c *tree.Container) bool {
	return !c.Removed() && s.t.tree.Bound(s.id) == c.Hierarchy()
}

// RootHas reports whether the kernel's root has a file, which FetchRoot reads.
func (s *Subsystem) RootHas(name string) bool {
	_, err := s.FetchRoot(name)
	return err == nil
}

// FetchRoot reads a file of the kernel's root, which is the whole host's.
func (s *Subsystem) FetchRoot(name string) ([]byte, error) {
	root := s.t.root
	if root == nil {
		return nil, syscall.ENODEV
	}
	b, err := root.Read(name, nil)
	return b, gone(err)
}

// Log is where what it does is said.
func (s *Subsystem) Log() *slog.Logger { return s.t.log }

// gone is ENODEV for a directory that somebody else has removed.
func gone(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w: %v", syscall.ENODEV, err)
	}
	return err
}
