package ops

import (
	"hash/crc32"
	"log/slog"
	"sync/atomic"

	"containerfs/ops/store"
	"containerfs/tree"
)

// Journal keeps what outlives the server in a state directory (SPEC §19): it is the
// tree's Keeper. A change puts the rows of what it changed, as they are now, at its
// end, with the tree's locks held; its reply waits for the commit without them, and
// so does a read that was shown something which is not kept yet. If a commit fails,
// everything that was not kept is put back to what is.
//
// Its fields are guarded by the tree's mu, but for those that never change.
type Journal struct {
	store *store.Store
	log   *slog.Logger
	state State
	kept  *keptRows // until they are restored
	later laterRows
	lists bool // there is no mirror: the journal has where tasks are

	fs *FS // set by New

	next        tree.Next // as it was put last
	hierarchies uint64    // number of the last change of one
	broken      atomic.Bool

	// Used by Checkpoint and SaveTasks only, inside changes.
	measured map[*tree.Container]uint32
	roots    map[int]uint32
	places   map[int32]tree.Place
}

// State says what a state directory is.
type State struct {
	Mirror string // the id for the mirror's name
	Fresh  bool   // no hierarchy was ever kept
	// Rebooted: what is kept of tasks is of another boot of the host. Copied: it
	// is of a server in another directory.
	Rebooted, Copied bool
	Unanchored       bool // see Anchor
}

// State says what the journal's directory is.
func (j *Journal) State() State { return j.state }

// Own is a bucket in which a subsystem keeps what it has to know in another life.
func (j *Journal) Own(subsystem string) *store.Own { return j.store.Own(subsystem) }

// Close keeps what is left.
func (j *Journal) Close() error { return j.store.Close() }

func (j *Journal) put(k store.Key, v []byte, about any) uint64 { return j.store.Put(k, v, about) }

func containerKey(c *tree.Container) store.Key {
	return store.Key{Bucket: store.Containers, Num: c.ID()}
}

func hierarchyKey(h *tree.Hierarchy) store.Key {
	return store.Key{Bucket: store.Hierarchies, Num: h.Number()}
}

func rootKey(name string) store.Key { return store.Key{Bucket: store.Roots, Name: name} }

// Keys of facts.
var (
	nextKey   = store.Key{Bucket: store.Facts, Name: "next"}
	eventsKey = store.Key{Bucket: store.Facts, Name: "events"}
	bootKey   = store.Key{Bucket: store.Facts, Name: "boot"}
	mirrorKey = store.Key{Bucket: store.Facts, Name: "mirror"}
	placeKey  = store.Key{Bucket: store.Facts, Name: "place"}
	anchorKey = store.Key{Bucket: store.Facts, Name: "anchor"}
)

// KeepContainer is tree.Keeper's.
func (j *Journal) KeepContainer(c *tree.Container) {
	if c.IsRoot() {
		j.KeepHierarchy(c.Hierarchy())
		for id, name := range j.fs.names {
			if c.Hierarchy().Subsystems().Has(id) {
				attrsOf(c).number = j.put(rootKey(name), j.fs.tree.SaveRoot(id), id)
			}
		}
		return
	}
	j.keepNext()
	if c.Removed() {
		attrsOf(c).number = j.put(containerKey(c), nil, c)
	} else {
		j.putContainer(c)
	}
	p := c.Parent()
	switch {
	case !attrsOf(p).touched:
	case p.IsRoot():
		j.KeepHierarchy(p.Hierarchy())
	case !p.Removed():
		j.putContainer(p)
	}
}

func (j *Journal) putContainer(c *tree.Container) {
	a := attrsOf(c)
	a.touched = false
	a.number = j.put(containerKey(c), j.fs.containerRow(c), c)
}

// KeepHierarchy is tree.Keeper's. It is kept together with the numbers: with those alone the state
// would be one of which every hierarchy was unmounted.
func (j *Journal) KeepHierarchy(h *tree.Hierarchy) {
	a := attrsOf(h.Root())
	a.touched = false
	r := store.Row{Key: hierarchyKey(h), About: h}
	if h.Active() {
		r.Value = j.fs.hierarchyRow(h)
	}
	a.number = j.store.PutAll(append(j.newNext(), r)...)
	j.hierarchies = a.number
}

// KeepGroup is tree.Keeper's.
func (j *Journal) KeepGroup(g *tree.Group, gone bool) (number uint64) {
	j.keepNext()
	var row []byte
	if !gone {
		row = groupRow(g)
	}
	return j.put(store.Key{Bucket: store.Groups, Num: g.Num()}, row, g)
}

// keepNext keeps which numbers were given out.
func (j *Journal) keepNext() { j.store.PutAll(j.newNext()...) }

// newNext is the row of these, if it is another than before.
func (j *Journal) newNext() []store.Row {
	n := j.fs.tree.Next()
	if n == j.next {
		return nil
	}
	j.next = n
	return []store.Row{{Key: nextKey, Value: nextRow(n)}}
}

// Await is tree.Keeper's.
func (j *Journal) Await(number uint64, inside bool) error {
	if j.broken.Load() {
		return errNotKept
	}
	if inside {
		return j.store.AwaitInside(number)
	}
	return j.store.Wait(number)
}

// undo puts everything back that a failed commit was to keep, and all that was
// changed since.
func (j *Journal) undo(changes []store.Change, cause error) {
	j.log.Error("changes could not be kept, and are undone", "err", cause)
	_ = j.fs.tree.Change(func() error {
		changes = append(changes, j.store.Discard()...)
		if err := j.revert(changes); err != nil {
			j.broken.Store(true)
			j.log.Error("changes could neither be kept nor undone: what is changed from now on is refused; start the server again", "err", err)
		}
		return nil
	})
}

// revert makes what changes are about what is kept of it. Inside a change.
func (j *Journal) revert(changes []store.Change) error {
	r := tree.Reversal{
		Hierarchies: make(map[*tree.Hierarchy]*tree.KeptHierarchy),
		Containers:  make(map[*tree.Container]*tree.Kept),
		Roots:       make(map[int][]byte),
	}
	attrs := make(map[*tree.Container]keptAttrs)
	agents := make(map[*tree.Hierarchy]string)
	for _, ch := range changes {
		row, err := j.store.Get(ch.Key)
		if err != nil {
			return err
		}
		switch about := ch.About.(type) {
		case *tree.Hierarchy:
			r.Hierarchies[about] = nil
			if row == nil {
				continue
			}
			k, err := j.fs.readHierarchyRow(about.Number(), row)
			if err != nil {
				return err
			}
			r.Hierarchies[about] = &k.KeptHierarchy
			attrs[about.Root()], agents[about] = k.attrs, k.agent
		case *tree.Container:
			r.Containers[about] = nil
			if row == nil {
				continue
			}
			_, k, a, err := readContainerRow(about.ID(), row)
			if err != nil {
				return err
			}
			r.Containers[about], attrs[about] = &k, a
		case *tree.Group:
			if row == nil {
				r.Groups = append(r.Groups, about)
			}
		case int:
			r.Roots[about] = row
		}
		if ch.Key == eventsKey {
			j.fs.restoreEventsPerm(row)
		}
	}
	errs := j.fs.tree.Revert(r)
	j.fs.tree.Update(func() {
		j.next = tree.Next{} // to be put again
		j.measured, j.roots, j.places = nil, nil, nil
		for c, k := range attrs {
			if !c.Removed() {
				j.fs.recorder.chown(attrsOf(c).dir.uid, k.dir.uid, c.IsRoot())
				j.fs.setAttrs(c, k)
				attrsOf(c).touched = false
			}
		}
		for h, agent := range agents {
			rootOf(h).agent = agent
		}
	})
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// mayChange is EIO if there can be no changes.
func (fs *FS) mayChange() error {
	if fs.journal != nil && fs.journal.broken.Load() {
		return errNotKept
	}
	return nil
}

// resolved is which change is the last of which it is known whether it is kept.
func (fs *FS) resolved() uint64 {
	if fs.journal == nil {
		return 0
	}
	return fs.journal.store.Resolved()
}

// failures counts the commits that failed so far: see store.Failures.
func (fs *FS) failures() uint64 {
	if fs.journal == nil {
		return 0
	}
	return fs.journal.store.Failures()
}

// keep returns when the change that has the number is kept, or with the error if it could
// not be, and was undone. What was resolved before is another's business. Without locks.
func (fs *FS) keep(number, resolved uint64) error {
	if fs.journal == nil || number <= resolved {
		return nil
	}
	return fs.journal.Await(number, false)
}

// lastOf is the number of what was changed last of n.
func (fs *FS) lastOf(n node) (number uint64) {
	if fs.journal == nil {
		return 0
	}
	fs.tree.View(func() {
		switch n := n.(type) {
		case containerDir:
			number = attrsOf(n.c).number
		case controlFile:
			number = attrsOf(n.c).number
		case ctlFile:
			number = fs.journal.hierarchies
		default:
			number = fs.journal.store.Last()
		}
	})
	return number
}

// look runs f, which looks at n and may be run again, in View, and returns when all
// that it can have seen is kept.
func (fs *FS) look(n node, f func()) {
	if fs.journal == nil {
		fs.tree.View(f)
		return
	}
	for {
		failures := fs.journal.store.Failures()
		var number uint64
		fs.tree.View(func() {
			f()
			number = fs.number(n)
		})
		if fs.kept(number, failures) {
			return
		}
	}
}

// kept waits until what has the number is kept, and reports whether nothing was
// undone since there were so many failures.
func (fs *FS) kept(number, failures uint64) bool {
	_ = fs.journal.store.Wait(number)
	return fs.journal.store.Failures() == failures
}

// unkept reports whether something that n shows may not be kept yet: whoever looks
// would wait.
func (fs *FS) unkept(n node) (wait bool) {
	j := fs.journal
	if j == nil || j.store.Committed(j.store.Last()) {
		return false
	}
	fs.tree.View(func() { wait = !j.store.Committed(fs.number(n)) })
	return wait
}

// number is that of the last change which n can show. View.
func (fs *FS) number(n node) uint64 {
	switch n := n.(type) {
	case containerDir:
		return numberOf(n.c)
	case controlFile:
		if n.r.log != nil {
			return fs.journal.store.Last()
		}
		return numberOf(n.c)
	case taskFile:
		number := fs.journal.hierarchies
		for h := range fs.tree.Hierarchies {
			if c := n.d.task.Container(h); c != nil {
				number = max(number, numberOf(c))
			}
		}
		return number
	case procDir, taskDir:
		return 0
	case statusFile: // what it tells was kept before it was told
		return fs.number(n.dir)
	case topDir, ctlFile:
		return fs.journal.hierarchies
	}
	return fs.journal.store.Last()
}

// numberOf is that of the last change of a container or of those above, which its
// path and its files may depend on.
func numberOf(c *tree.Container) (number uint64) {
	for ; c != nil; c = c.Parent() {
		number = max(number, attrsOf(c).number)
	}
	return number
}

// Checkpoint keeps what was measured since the last one. A server that is killed
// loses what was measured since.
func (j *Journal) Checkpoint() {
	t := j.fs.tree
	failures := j.store.Failures()
	var todo []*tree.Container
	_ = t.Change(func() error {
		t.View(func() {
			for h := range t.Hierarchies {
				if !h.Root().Populated() {
					continue
				}
				h.Root().EachBelow(func(c *tree.Container) bool {
					if !c.Populated() && !c.Vacated() && j.measured[c] == 0 {
						return false
					}
					todo = append(todo, c)
					return true
				})
			}
			for id, name := range j.fs.names {
				j.checkpointRoot(id, name)
			}
		})
		return nil
	})
	measured := make(map[*tree.Container]uint32)
	for len(todo) > 0 {
		batch := todo[:min(len(todo), 256)]
		todo = todo[len(batch):]
		_ = t.Change(func() error {
			t.Update(func() {
				for _, c := range batch {
					if c.Removed() {
						continue
					}
					row := j.fs.containerRow(c)
					sum := crc32.ChecksumIEEE(row) | 1
					if j.measured[c] != sum {
						j.put(containerKey(c), row, c)
					}
					if c.Populated() || c.Vacated() { // what tasks ran at their end can be told late
						measured[c] = sum
						c.ForgetVacated()
					}
				}
			})
			return nil
		})
	}
	_ = t.Change(func() error {
		if j.store.Failures() != failures {
			measured = nil // some of it is not kept
		}
		j.measured = measured
		return nil
	})
}

func (j *Journal) checkpointRoot(id int, name string) {
	row := j.fs.tree.SaveRoot(id)
	sum := crc32.ChecksumIEEE(row) | 1
	if j.roots == nil {
		j.roots = make(map[int]uint32)
	}
	if j.roots[id] != sum {
		j.put(rootKey(name), row, id)
		j.roots[id] = sum
	}
}

// SaveTasks keeps where tasks are, for a server without a mirror: see
// tree.RestoreTasks. It may be called by one at a time, with or without others'
// changes.
func (j *Journal) SaveTasks() (number uint64) {
	_ = j.fs.tree.Change(func() error {
		j.fs.tree.View(func() {
			places := make(map[int32]tree.Place)
			j.fs.tree.Places(func(tid int32, p tree.Place) {
				places[tid] = p
				if old, ok := j.places[tid]; !ok || old != p {
					j.put(taskKey(tid), placeRow(p), nil)
				}
			})
			for tid := range j.places {
				if _, ok := places[tid]; !ok {
					j.put(taskKey(tid), nil, nil)
				}
			}
			j.places = places
		})
		number = j.store.Last()
		return nil
	})
	return number
}

func taskKey(tid int32) store.Key { return store.Key{Bucket: store.Tasks, Num: uint64(tid)} }
