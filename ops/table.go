package ops

import (
	"strconv"

	"containerfs/tree"
)

// row describes one control file.
type row struct {
	name string
	mode uint16
	id   uint16 // in qid paths and offsets; never 0, and above those that are listed before

	in       place
	drains   bool // shows what tasks did just now
	snapshot bool // what was read at open can be read on after rmdir

	// prepare, if any, is called before read, without locks.
	prepare func(c *tree.Container) error

	// fetch, if any, takes the place of prepare and read, and is called without
	// locks: in turn where there is prepare, whose work it may do.
	fetch func(c *tree.Container) ([]byte, error)

	// read appends the contents to b. View. Nil: cannot be read.
	read func(c *tree.Container, b []byte) ([]byte, error)

	// write executes a command. No lock is held. Nil: cannot be written, but instead
	// may name a file that can be.
	write   func(at *attachment, c *tree.Container, data []byte) error
	instead string

	// now is write, or tree.ErrWouldWait where that would have to wait. Nil: it
	// always may.
	now func(at *attachment, c *tree.Container, data []byte) error

	// log is the log that it shows, in place of read.
	log func(c *tree.Container) *eventLog
}

// modeEvents is the mode of events files: who moves and runs what is not
// everybody's to know (SPEC §18).
const modeEvents = 0o440

// place says which containers have a file.
type place uint8

const (
	anywhere place = iota
	inRoots
	inChildren
)

// Row ids: core files have their place in coreRows, subsystem files the
// subsystem's id in the upper byte.
func subsystemRowID(subsystem, file int) uint16 { return uint16(subsystem+1)<<8 | uint16(file+1) }

func (r *row) ofSubsystem() bool { return r.id >= 1<<8 }
func (r *row) subsystem() int    { return int(r.id>>8) - 1 }

// coreRows are the files that every container has, in listing order.
var coreRows []row

func init() {
	coreRows = []row{
		{name: "tasks", drains: true, snapshot: true, read: readTasks, write: writeTasks, now: writeTasksNow},
		{name: "procs", drains: true, snapshot: true, read: readProcs, write: writeProcs},
		{name: "notify_on_release", read: readNotify, write: writeNotify, now: writeNotifyNow},
		{name: "releasable", drains: true, read: readReleasable},
		{name: "populated", drains: true, read: readPopulated},
		{name: "release_agent", in: inRoots, read: readAgent, write: writeAgent},
		{name: "events", in: inRoots, mode: modeEvents, log: logStream},
		{name: "kill", in: inChildren, write: writeKill},
		{name: "max.descendants", in: inChildren, read: readMaxDescendants, write: writeMaxDescendants},
		{name: "max.depth", in: inChildren, read: readMaxDepth, write: writeMaxDepth},
	}
	for i := range coreRows {
		r := &coreRows[i]
		r.id = uint16(i + 1)
		if r.mode == 0 {
			r.mode = defaultMode(r.read != nil, r.write != nil)
		}
	}
}

func defaultMode(reads, writes bool) uint16 {
	switch {
	case !writes:
		return 0o444
	case !reads:
		return 0o200
	}
	return 0o644
}

// table is the control files of a container.
type table struct {
	rows   []*row // by id
	byName map[string]*row
}

// tableKey is what a table follows from.
type tableKey struct {
	set      tree.SubsystemSet
	noprefix bool
	root     bool
}

// table gives the control files of a container. View or Change.
func (fs *FS) table(c *tree.Container) *table { return fs.tableIn(c.Hierarchy(), c.IsRoot()) }

// tableIn gives the control files of a hierarchy's root, or of its other containers. View or
// Change.
func (fs *FS) tableIn(h *tree.Hierarchy, root bool) *table {
	key := tableKey{h.Subsystems(), h.Noprefix(), root}
	if t, ok := fs.tables.Load(key); ok {
		return t.(*table)
	}
	t, _ := fs.tables.LoadOrStore(key, fs.makeTable(key))
	return t.(*table)
}

func (fs *FS) makeTable(key tableKey) *table {
	t := &table{byName: make(map[string]*row)}
	add := func(r *row) {
		t.rows = append(t.rows, r)
		t.byName[r.name] = r
	}
	for i := range coreRows {
		r := &coreRows[i]
		if r.in == anywhere || (r.in == inRoots) == key.root {
			add(r)
		}
	}
	for id, name := range fs.names {
		if !key.set.Has(id) {
			continue
		}
		files := fs.tree.Files(id)
		for i := range files {
			r := subsystemRow(&files[i])
			r.id = subsystemRowID(id, i)
			r.instead = files[i].Instead
			if !key.noprefix {
				r.name = name + "." + r.name
				if r.instead != "" {
					r.instead = name + "." + r.instead
				}
			}
			add(r)
		}
	}
	return t
}

// subsystemRow is the row of a subsystem's file.
func subsystemRow(f *tree.File) *row {
	r := &row{name: f.Name, mode: defaultMode(f.Read != nil || f.Fetch != nil, f.Write != nil || f.Pass != nil), prepare: f.Prepare, fetch: f.Fetch}
	if f.Read != nil {
		r.read = func(c *tree.Container, b []byte) ([]byte, error) { return c.ReadFile(f, b) }
	}
	if f.Write != nil || f.Pass != nil {
		r.write = func(at *attachment, c *tree.Container, data []byte) error {
			if f.Kills {
				if err := at.mayKillAll(c); err != nil {
					return err
				}
			}
			write := func() error { return at.fs.tree.WriteFile(&at.actor, c, f, data) }
			if f.Pass != nil {
				return write() // without the tree's lock, as long as it takes
			}
			return at.inTurn(write)
		}
	}
	return r
}

func readTasks(c *tree.Container, b []byte) ([]byte, error) {
	return appendTIDs(b, c.AppendTasks(nil)), nil
}

func readProcs(c *tree.Container, b []byte) ([]byte, error) {
	return appendTIDs(b, c.AppendProcesses(nil)), nil
}

func appendTIDs(b []byte, tids []int32) []byte {
	for _, tid := range tids {
		b = append(strconv.AppendInt(b, int64(tid), 10), '\n')
	}
	return b
}

func writeTasks(at *attachment, c *tree.Container, data []byte) error {
	return at.move(tree.AttachRequest{}, data, c)
}

func writeTasksNow(at *attachment, c *tree.Container, data []byte) error {
	return at.move(tree.AttachRequest{NoWait: true}, data, c)
}

func writeProcs(at *attachment, c *tree.Container, data []byte) error {
	return at.move(tree.AttachRequest{Process: true}, data, c)
}

func readNotify(c *tree.Container, b []byte) ([]byte, error) {
	return appendFlag(b, c.NotifyOnRelease()), nil
}

func writeNotify(at *attachment, c *tree.Container, data []byte) error {
	return at.setNotify(c, data, true)
}

func writeNotifyNow(at *attachment, c *tree.Container, data []byte) error {
	return at.setNotify(c, data, false)
}

func (at *attachment) setNotify(c *tree.Container, data []byte, wait bool) error {
	on, err := tree.ParseFlag(data)
	if err != nil {
		return err
	}
	return at.set(c, wait, func() { c.SetNotifyOnRelease(on) })
}

func readReleasable(c *tree.Container, b []byte) ([]byte, error) {
	return appendFlag(b, c.Releasable()), nil
}

func readPopulated(c *tree.Container, b []byte) ([]byte, error) {
	return appendFlag(b, c.Populated()), nil
}
