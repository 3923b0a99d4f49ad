package tree_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"containerfs/tree"
)

// window is what happens on the host while an attach is under way.
type window struct {
	w        *world
	to       []*tree.Container
	id       int32
	process  bool
	tgid     int32
	parent   int32            // of that
	moves    map[int32]bool   // the tasks that the attach is about
	kernel   map[int32]uint64 // where the mirror had them before
	froms    []places         // those of the tasks that the attach is about
	old      map[int32]places
	newborn  map[int32][]places // where either is right
	doubtful []int32            // born of the mirror's knows not whom
	affected bool               // what the attach is about has changed
	after    int                // the step that fails
	left     int                // how much may still happen
}

// happen lets something happen, now and then.
func (v *window) happen() {
	w := v.w
	if v.left == 0 || w.choose(2) == 0 {
		return
	}
	v.left--
	f := w.anyTask()
	if w.choose(2) == 0 && w.where[v.id] != nil {
		f = v.id
	}
	switch w.choose(6) {
	case 0:
		if f != w.tgid(f) && !w.mirror {
			return // whose thread it is, the events do not say
		}
		v.doubt(w.host.Thread(f), f, v.process && w.tgid(f) == v.tgid)
	case 1:
		if w.mirror {
			v.doubt(w.host.CloneParent(f), f, false)
		}
	case 2:
		if f != 1 && w.mirror {
			if v.moves[f] {
				v.affected, v.after = true, 0 // what fails now would be the undoing
			}
			w.logf("window: exit %d", f)
			w.host.Exit(f)
			delete(w.where, f)
			w.free = append(w.free, f)
		}
	case 3:
		if len(w.free) > 0 && w.mirror {
			tid := w.free[w.choose(len(w.free))]
			// Whether the move took it or it was born there, nobody can say of
			// a child of the moved family that has a moved task's tid.
			if _, moved := v.moves[tid]; !moved || (w.tgid(f) != v.tgid && w.tgid(f) != v.parent) {
				v.born(f, w.host.ForkAs(f, tid), false)
			}
		}
	default:
		v.born(f, w.host.Fork(f), false)
	}
	if w.choose(3) == 0 {
		w.host.Drain()
	}
}

// doubt is born, for a child that may be taken for one of a moved task: when the
// attach fails it is put back with that.
func (v *window) doubt(child, forker int32, moves bool) {
	v.born(forker, child, moves)
	if child != 0 {
		v.doubtful = append(v.doubtful, child)
	}
}

// born notes a child: it is where its forker is by now. A thread of a process
// that is moved moves as well.
func (v *window) born(forker, child int32, moves bool) {
	if child == 0 {
		return
	}
	v.w.logf("window: %d -> %d", forker, child)
	v.w.where[child] = maps.Clone(v.w.where[forker])
	if slices.Contains(v.doubtful, forker) {
		v.doubtful = append(v.doubtful, child)
	}
	v.moves[child] = false // its tid may have been in use
	delete(v.newborn, child)
	v.old[child] = maps.Clone(v.old[forker])
	if v.moves[forker] || v.newborn[forker] != nil {
		if v.w.mirror {
			now, _ := v.w.host.Group(forker)
			v.kernel[child] = v.kernel[forker]
			v.moves[child] = now != v.kernel[forker]
		} else {
			v.newborn[child] = []places{v.old[forker], v.w.placed(v.old[forker], v.to...)}
		}
	}
	if moves {
		v.moves[child] = true
	}
}

// placed is at with each of cs in its hierarchy.
func (w *world) placed(at places, cs ...*tree.Container) places {
	at = maps.Clone(at)
	for _, c := range cs {
		if c.IsRoot() {
			delete(at, c.Hierarchy())
		} else {
			at[c.Hierarchy()] = c
		}
	}
	return at
}

// in is the container in a hierarchy.
func (at places) in(h *tree.Hierarchy) *tree.Container {
	if c := at[h]; c != nil {
		return c
	}
	return h.Root()
}

// like is at with o's places in the hierarchies of cs.
func (w *world) like(at, o places, cs []*tree.Container) places {
	for _, c := range cs {
		at = w.placed(at, o.in(c.Hierarchy()))
	}
	return at
}

// targets are containers of one or of several hierarchies.
func (w *world) targets() (to []*tree.Container) {
	for range 1 + w.choose(3) {
		c := w.anyContainer()
		if c != nil && !slices.ContainsFunc(to, func(o *tree.Container) bool { return o.Hierarchy() == c.Hierarchy() }) {
			to = append(to, c)
		}
	}
	return to
}

// attach moves a task or a process somewhere, while more or less happens and
// with or without a failure.
func (w *world) attach() error {
	to := w.targets()
	if len(to) == 0 {
		return nil
	}
	id := w.anyTask()
	r := tree.AttachRequest{To: to[0], Also: to[1:], ID: id, Process: w.choose(2) == 0}
	v := &window{w: w, to: to, id: id, tgid: w.tgid(id), process: r.Process, moves: map[int32]bool{}, kernel: map[int32]uint64{},
		old: map[int32]places{}, newborn: map[int32][]places{}, left: w.choose(4)}
	for tid, at := range w.where {
		v.old[tid] = maps.Clone(at)
		v.kernel[tid], _ = w.host.Group(tid)
	}
	info, _ := w.host.Task(id)
	v.parent = info.PPID
	v.moves[id] = true
	if r.Process {
		for _, k := range w.threads(id) {
			v.moves[k] = true
		}
	}
	if !w.mirror && !r.Process && len(w.threads(id)) > 1 && id != w.tgid(id) {
		v.left = 0 // whose thread a new one is, the events do not say
	}
	for tid := range v.moves {
		v.froms = append(v.froms, v.old[tid])
	}
	injected := w.inject(v)
	err := w.Attach(r)
	w.host.During, w.host.Fail = nil, nil
	for _, s := range w.subs {
		s.onAttach, s.canAttach = nil, nil
	}
	w.logf("attach %d process %v: %v", id, r.Process, err)
	for _, c := range to {
		w.logf("	to %s%s", c.Hierarchy().Name(), c.Path())
	}
	if err != nil {
		for _, child := range v.doubtful {
			froms := v.froms // whose numbers may be others' by now
			for tid := range v.moves {
				if v.old[tid] != nil {
					froms = append(froms, v.old[tid])
				}
			}
			for _, from := range froms {
				if at := w.where[child]; at != nil {
					v.newborn[child] = append(v.newborn[child], at, w.like(at, from, to), w.placed(at, to...))
				}
			}
		}
	}
	switch {
	case err == nil:
		for tid := range v.moves {
			if w.where[tid] != nil && v.moves[tid] {
				w.where[tid] = w.placed(w.where[tid], to...)
			}
		}
	case errors.Is(err, errInjected) && injected, errors.Is(err, syscall.ESRCH) && v.affected:
	default:
		return fmt.Errorf("attach: %w", err)
	}
	return v.settle()
}

var errInjected = syscall.EXDEV // no other errno of an attach

// inject arms the window and perhaps one failure.
func (w *world) inject(v *window) (fails bool) {
	if w.choose(3) == 0 {
		v.after = 1 + w.choose(4)
	}
	step := func() error {
		if v.after--; v.after == 0 {
			fails = true
			return errInjected
		}
		return nil
	}
	w.host.Fail = func(op string, _ int32) error {
		if op == "where" {
			return nil
		}
		v.happen()
		return step()
	}
	w.host.During = func(int32) { v.happen() }
	for _, s := range w.subs {
		s.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
			v.happen()
			return step()
		}
		if w.choose(8) == 0 {
			s.canAttach = func(*tree.Task, *tree.Container, *tree.Container) error { return step() }
		}
	}
	return true
}

// settle finds out, where either is right, which it was.
func (v *window) settle() error {
	w := v.w
	w.Drain()
	var err error
	for _, tid := range slices.Sorted(maps.Keys(v.newborn)) {
		w.View(func() {
			for _, at := range v.newborn[tid] {
				if !slices.ContainsFunc(v.to, func(c *tree.Container) bool {
					return !slices.Contains(at.in(c.Hierarchy()).AppendTasks(nil), tid)
				}) {
					w.where[tid] = at
					return
				}
			}
			err = fmt.Errorf("%d, born during an attach, is neither here nor there", tid)
		})
	}
	if err == nil && w.mirror {
		err = w.CheckMirror(w.host.TIDs())
	}
	return err
}

// lose drops events and lets the model look for itself.
func (w *world) lose() error {
	before := w.tids()
	if err := w.meanwhile(); err != nil {
		return err
	}
	w.logf("lose after %v", before)
	if !w.mirror {
		return w.host.Resync(w.Resync)
	}
	w.host.Lose()
	if err := w.meanwhile(); err != nil {
		return err
	}
	return w.Resync() // what happened since is told after it
}

// steal moves a task in the mirror to where another is, or to a directory that
// is nobody's, and lets the model find out.
func (w *world) steal() error {
	if !w.mirror {
		return nil
	}
	tid := w.anyTask()
	if w.choose(3) == 0 {
		w.logf("steal %d", tid)
		w.host.Steal(tid, 1<<40)
		w.where[tid] = places{}
	} else {
		other := w.anyTask()
		g, _ := w.host.Group(other)
		w.logf("steal %d to %d", tid, other)
		w.host.Steal(tid, g)
		w.where[tid] = maps.Clone(w.where[other])
	}
	for range w.choose(3) {
		w.born("fork", tid, w.host.Fork(tid))
	}
	w.Audit()
	return nil
}
