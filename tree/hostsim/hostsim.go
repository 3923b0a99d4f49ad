// Package hostsim is a simulated host with a simulated mirror, for tests of the
// model: tasks fork, make threads, exec and exit when the test says so, and every
// such step is an event for the model.
//
// The Host knows the truth: the mirror of the simulated kernel places children
// by the task that really forked them, whatever the event says. Methods may be
// called concurrently; events are delivered in the order in which things
// happened, when Deliver or Drain is called.
package hostsim

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"containerfs/tree"
)

// Model is what events are delivered to.
type Model interface {
	Fork(tree.ForkEvent)
	Exec(tgid int32)
	Exit(tid int32)
}

// Host is a simulated host. It is a tree.Host and a tree.Glancer; Mirror gives its
// tree.Mirror.
type Host struct {
	// Fail, if set, is asked before each step of the mirror: "make", "move"
	// or "where". Its error is the step's.
	Fail func(op string, tid int32) error

	// Blind, if set, is why Task and Tasks cannot look at anything.
	Blind error

	// During, if set, is called inside each move of the mirror, after the
	// task has moved: what it does happens while an attach is under way.
	During func(tid int32)

	// Look, if set, is called before each look at a task by Task.
	Look func(tid int32)

	// Looked, if set, is called after each look at a task by Task, or at a process by Tasks
	// before that yields what was seen.
	Looked func(id int32)

	// Listed, if set, is called after each listing of a directory of the mirror.
	Listed func(group uint64)

	// Swap has the end of a first thread, where another executes a program, told with the
	// number of that one: as Linux 5.8 and later do where it is told late.
	Swap bool

	// deliver serialises deliveries, which call the model.
	deliver sync.Mutex
	model   Model

	clock atomic.Int64

	mu           sync.Mutex
	tasks        map[int32]*task
	queue        []func(Model)
	exits, execs delayed
	reapers      map[int32]bool // by tgid
	dirs         map[uint64]bool
	nextTID      int32
}

type task struct {
	tree.TaskInfo
	uid    uint32
	group  uint64
	zombie bool

	exiting bool // has begun to
}

// live is false for who is not listed any more.
func (k *task) live() bool { return !k.zombie && !k.exiting }

// InitTID is the tid of the only task of a new Host.
const InitTID = 1

// New makes a host with one task.
func New() *Host {
	h := &Host{
		tasks:   make(map[int32]*task),
		dirs:    map[uint64]bool{0: true},
		reapers: map[int32]bool{InitTID: true},
		nextTID: InitTID + 1,
	}
	h.tasks[InitTID] = &task{TaskInfo: tree.TaskInfo{TID: InitTID, TGID: InitTID, Start: 1}}
	h.clock.Store(1000)
	return h
}

// Run sets the model that events go to.
func (h *Host) Run(m Model) { h.model = m }

// now advances the clock: no two things happen at the same time.
func (h *Host) now() int64 { return h.clock.Add(1000) }

func (h *Host) startTicks(ns int64) uint64 { return uint64(ns) / 1000 }

// Fork makes a child process of parent and returns its tid, 0 when parent is
// gone.
func (h *Host) Fork(parent int32) int32 { return h.clone(parent, 0, "fork") }

// CloneParent makes a child process of the parent of forker, as clone(2) does
// with CLONE_PARENT: the event names the parent, not forker.
func (h *Host) CloneParent(forker int32) int32 { return h.clone(forker, 0, "parent") }

// Thread makes a thread of forker's process.
func (h *Host) Thread(forker int32) int32 { return h.clone(forker, 0, "thread") }

// ForkAs is Fork with a tid of the caller's choice, which must be free.
func (h *Host) ForkAs(parent, tid int32) int32 { return h.clone(parent, tid, "fork") }

// ThreadAs is Thread with a tid of the caller's choice, which must be free.
func (h *Host) ThreadAs(forker, tid int32) int32 { return h.clone(forker, tid, "thread") }

func (h *Host) clone(forker, tid int32, how string) int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.tasks[forker]
	if f == nil || !f.live() || (how == "parent" && f.PPID == 0) || h.tasks[tid] != nil {
		return 0
	}
	if tid == 0 {
		for tid = h.nextTID; h.tasks[tid] != nil; tid++ {
		}
		h.nextTID = tid + 1
	}
	ns := h.now()
	c := &task{TaskInfo: f.TaskInfo, uid: f.uid, group: f.group}
	c.TID, c.Start = tid, h.startTicks(ns)
	e := tree.ForkEvent{TID: tid, Time: ns, StartMax: c.Start}
	switch how {
	case "fork":
		c.TGID, c.PPID = tid, f.TGID
		e.ParentTID, e.ParentTGID = forker, f.TGID
	case "parent":
		c.TGID, c.PPID = tid, f.PPID
		e.ParentTID, e.ParentTGID = f.PPID, f.PPID
	case "thread":
		e.ParentTID, e.ParentTGID = f.PPID, f.PPID
	}
	e.TGID = c.TGID
	h.tasks[tid] = c
	h.queue = append(h.queue, func(m Model) { m.Fork(e) })
	return tid
}

// Exec lets a thread execute a program: it becomes the only one of its process
// and takes the process's number and start time.
func (h *Host) Exec(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.exec(tid)
	if k == nil {
		return
	}
	tgid := k.TGID
	event := func(m Model) { m.Exec(tgid) }
	h.tell(&h.execs, event)
}

// FailExec has a thread execute a program that cannot be loaded, which is found out when the
// others are gone and it has the process's number: it ends as that, and no exec is told.
func (h *Host) FailExec(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.exec(tid); k != nil {
		h.exit(k)
	}
}

// exec leaves a thread alone in its process.
func (h *Host) exec(tid int32) *task {
	k := h.tasks[tid]
	if k == nil || k.zombie {
		return nil
	}
	tgid := k.TGID
	first := h.tasks[tgid]
	for _, o := range h.threads(tgid) {
		if o == first && o != k && h.Swap {
			h.exitAs(o, tid)
		} else if o != k {
			h.exit(o)
		}
	}
	delete(h.tasks, tid)
	k.TID, k.Start = tgid, first.Start
	h.tasks[tgid] = k
	return k
}

// SetReaper makes a process the one that orphans of its descendants go to, as
// PR_SET_CHILD_SUBREAPER does.
func (h *Host) SetReaper(tgid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reapers[tgid] = true
}

// HoldExits keeps the events of exits back until ReleaseExits: the kernel tells
// of them a little after the fact.
func (h *Host) HoldExits() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exits.on = true
}

// HoldExecs keeps the events of execs back until ReleaseExecs: the kernel tells of them
// when the program has been read.
func (h *Host) HoldExecs() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.execs.on = true
}

// ReleaseExecs queues the events that HoldExecs kept back.
func (h *Host) ReleaseExecs() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(&h.execs)
}

// ReleaseExits queues the events that HoldExits kept back.
func (h *Host) ReleaseExits() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(&h.exits)
}

// delayed are events of a kind that are kept back while that is on.
type delayed struct {
	on     bool
	events []func(Model)
}

// tell queues an event of a kind, or keeps it back.
func (h *Host) tell(d *delayed, event func(Model)) {
	to := &h.queue
	if d.on {
		to = &d.events
	}
	*to = append(*to, event)
}

func (h *Host) release(d *delayed) {
	h.queue = append(h.queue, d.events...)
	*d = delayed{}
}

// Exit ends a thread. The first thread of a process stays as a zombie until the
// last one ends; then the children of the process go to its nearest ancestor
// that is a reaper, at last to InitTID.
func (h *Host) Exit(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(tid)
}

// ExitAtOnce is Exit that is told though HoldExits keeps others back.
func (h *Host) ExitAtOnce(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	on := h.exits.on
	h.exits.on = false
	h.end(tid)
	h.exits.on = on
}

func (h *Host) end(tid int32) {
	if k := h.tasks[tid]; k != nil && !k.zombie && tid != InitTID {
		h.exit(k)
	}
}

// Zombie ends a thread whose number stays in use, as that of a process that
// nobody waits for. Reap frees it.
func (h *Host) Zombie(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.tasks[tid]; k != nil && !k.zombie && tid != InitTID {
		h.exit(k)
		k.zombie = true
		h.tasks[tid] = k
	}
}

// Exiting has a thread begin to exit, of which Exit is the end: it makes no children, is
// shown by Task, listed by nobody but the directory of the mirror that it is in, and the
// kernel says yes to a move of it and does nothing.
func (h *Host) Exiting(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.tasks[tid]; k != nil && tid != InitTID {
		k.exiting = true
	}
}

// Reap frees the number of a zombie.
func (h *Host) Reap(tid int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.tasks[tid]; k != nil && k.zombie && len(h.threads(k.TGID)) == 0 {
		delete(h.tasks, tid)
	}
}

func (h *Host) exit(k *task) { h.exitAs(k, k.TID) }

// exitAs ends a thread, which is told with a number.
func (h *Host) exitAs(k *task, as int32) {
	tid := k.TID
	delete(h.tasks, tid)
	switch last := len(h.threads(k.TGID)) == 0; {
	case last:
		delete(h.tasks, k.TGID) // its zombie, if it had one
		reaper := h.reaper(k)
		for _, o := range h.tasks {
			if o.PPID == k.TGID {
				o.PPID = reaper
			}
		}
		delete(h.reapers, k.TGID)
	case tid == k.TGID:
		k.zombie = true
		h.tasks[tid] = k
	}
	event := func(m Model) { m.Exit(as) }
	h.tell(&h.exits, event)
}

// reaper is who gets the children of k's process.
func (h *Host) reaper(k *task) int32 {
	for p := k.PPID; p != 0; {
		if h.reapers[p] && len(h.threads(p)) > 0 {
			return p
		}
		next := h.threads(p)
		if len(next) == 0 {
			break
		}
		p = next[0].PPID
	}
	return InitTID
}

func (h *Host) threads(tgid int32) (ts []*task) {
	for _, k := range h.tasks {
		if k.TGID == tgid && !k.zombie {
			ts = append(ts, k)
		}
	}
	return ts
}

// Lose drops the events that were not yet delivered, as the kernel does when
// nobody reads them.
func (h *Host) Lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue, h.exits.events, h.execs.events = nil, nil, nil
}

// Resync calls resync in the order of the events, as who delivers them must.
func (h *Host) Resync(resync func() error) error {
	h.Drain()
	h.deliver.Lock()
	defer h.deliver.Unlock()
	return resync()
}

// SetOwner sets the uid of a task that lives, InitTID's being 0 and others' their
// forker's.
func (h *Host) SetOwner(tid int32, uid uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tasks[tid]; t != nil {
		t.uid = uid
	}
}

// Group is where the simulated kernel has a task.
func (h *Host) Group(tid int32) (group uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.tasks[tid]
	if k == nil || k.zombie {
		return 0, false
	}
	return k.group, true
}

// Steal moves a task in the mirror behind the model's back.
func (h *Host) Steal(tid int32, group uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.tasks[tid]; k != nil && !k.zombie {
		k.group = group
	}
}

// Groups are the groups that have directories.
func (h *Host) Groups() []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.dirs))
}

// TIDs are the live threads, ascending.
func (h *Host) TIDs() (tids []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for tid, k := range h.tasks {
		if k.live() {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	return tids
}

// Drain delivers all events. It is tree.Host's.
func (h *Host) Drain() {
	h.deliver.Lock()
	defer h.deliver.Unlock()
	for {
		h.mu.Lock()
		if len(h.queue) == 0 {
			h.mu.Unlock()
			return
		}
		event := h.queue[0]
		h.queue = h.queue[1:]
		h.mu.Unlock()
		event(h.model)
	}
}

// Task is tree.Host's.
func (h *Host) Task(tid int32) (tree.TaskInfo, error) {
	if h.Look != nil {
		h.Look(tid)
	}
	if h.Blind != nil {
		return tree.TaskInfo{}, h.Blind
	}
	if h.Looked != nil {
		defer h.Looked(tid)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.tasks[tid]
	if k == nil || k.zombie {
		return tree.TaskInfo{}, syscall.ESRCH
	}
	return k.TaskInfo, nil
}

// Glance is tree.Glancer's: it knows whenever no event waits to be delivered.
func (h *Host) Glance(tid int32) (info tree.TaskInfo, ok bool) {
	if !h.quiet() {
		return info, false
	}
	info, err := h.Task(tid)
	info.PPID = 0
	return info, err == nil
}

// quiet is true when nothing is queued, or being delivered.
func (h *Host) quiet() bool {
	if !h.deliver.TryLock() {
		return false
	}
	defer h.deliver.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.queue) == 0
}

// Owner is tree.Host's.
func (h *Host) Owner(tid int32) (ruid, suid uint32, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.tasks[tid]
	if k == nil || k.zombie {
		return 0, 0, syscall.ESRCH
	}
	return k.uid, k.uid, nil
}

// Tasks is tree.Host's.
func (h *Host) Tasks(tgid int32, yield func(tree.TaskInfo) bool) error {
	if h.Blind != nil {
		return h.Blind
	}
	h.mu.Lock()
	var infos []tree.TaskInfo
	for _, k := range h.tasks {
		if k.live() && (tgid == 0 || k.TGID == tgid) {
			infos = append(infos, k.TaskInfo)
		}
	}
	h.mu.Unlock()
	if h.Looked != nil {
		h.Looked(tgid)
	}
	for _, i := range infos {
		if !yield(i) {
			break
		}
	}
	return nil
}

// Now is tree.Host's.
func (h *Host) Now() int64 { return h.now() }

// Mirror is the simulated kernel's mirror.
func (h *Host) Mirror() tree.Mirror { return mirror{h} }

type mirror struct{ h *Host }

func (m mirror) fail(op string, tid int32) error {
	if m.h.Fail == nil {
		return nil
	}
	return m.h.Fail(op, tid)
}

func (m mirror) Make(group uint64) error {
	if err := m.fail("make", 0); err != nil {
		return err
	}
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	m.h.dirs[group] = true
	return nil
}

func (m mirror) Remove(groups []uint64) (busy []uint64) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	used := make(map[uint64]bool)
	for _, k := range m.h.tasks {
		used[k.group] = used[k.group] || !k.zombie
	}
	for _, g := range groups {
		if used[g] {
			busy = append(busy, g)
		} else {
			delete(m.h.dirs, g)
		}
	}
	return busy
}

func (m mirror) Move(group uint64, id int32, process bool) error {
	if err := m.fail("move", id); err != nil {
		return err
	}
	if err := m.move(group, id, process); err != nil {
		return err
	}
	if m.h.During != nil {
		m.h.During(id)
	}
	return nil
}

func (m mirror) move(group uint64, id int32, process bool) error {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if !m.h.dirs[group] {
		return syscall.ENOENT
	}
	if process {
		threads := m.h.threads(id)
		if len(threads) == 0 {
			return syscall.ESRCH
		}
		for _, k := range threads {
			if !k.exiting {
				k.group = group
			}
		}
		return nil
	}
	k := m.h.tasks[id]
	if k == nil {
		return syscall.ESRCH
	}
	if k.Kernel {
		return syscall.EINVAL
	}
	if !k.exiting {
		k.group = group
	}
	return nil
}

func (m mirror) Where(tid int32) (uint64, error) {
	if err := m.fail("where", tid); err != nil {
		return 0, err
	}
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	k := m.h.tasks[tid]
	switch {
	case k == nil || !k.live():
		return 0, syscall.ESRCH
	case !m.h.dirs[k.group]:
		return 0, tree.ErrForeignGroup
	}
	return k.group, nil
}

func (m mirror) Members(group uint64) (tids []int32, err error) {
	if f := m.h.Listed; f != nil {
		defer f(group)
	}
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if group != tree.ForeignGroup && !m.h.dirs[group] {
		return nil, errors.New("no such directory")
	}
	for tid, k := range m.h.tasks {
		if k.zombie {
			continue
		}
		if k.group == group || (group == tree.ForeignGroup && !m.h.dirs[k.group]) {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}
