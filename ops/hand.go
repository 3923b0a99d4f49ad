package ops

import (
	"slices"

	"containerfs/tree"
)

// hands knows which processes clients have put where they are, since they last
// executed a program: rules leave these alone (SPEC §21). What they fork is where it
// is by the same hand. It has the numbers of hierarchies: who lives long would have one
// that is unmounted live as long, with its log. Guarded by the tree's mu.
type hands map[*tree.Process][]uint64

// observe is told of every change of the tree. byRule: a rule made it.
func (m hands) observe(e tree.Event, byRule bool) {
	switch e.Kind {
	case tree.Attached:
		if e.Actor != nil && !byRule {
			m.add(e.Task.Process(), e.Container.Hierarchy())
		}
	case tree.Forked:
		p := e.Task.Process()
		switch {
		case e.Parent == nil || e.Parent == p || len(m[e.Parent]) == 0:
		case m[p] == nil:
			m[p] = m[e.Parent]
		default: // it was found and moved before: anew, since others share the lists
			all := slices.Concat(m[p], m[e.Parent])
			slices.Sort(all)
			m[p] = slices.Compact(all)
		}
	case tree.Execed:
		delete(m, e.Task.Process())
	case tree.Exited:
		if e.Task.Process().NumThreads() == 1 {
			delete(m, e.Task.Process())
		}
	}
}

// add makes a list anew, since children share it, without the hierarchies that are gone.
func (m hands) add(p *tree.Process, h *tree.Hierarchy) {
	if m.has(p, h) {
		return
	}
	list := []uint64{h.Number()}
	for o := range h.Tree().Hierarchies {
		if m.has(p, o) {
			list = append(list, o.Number())
		}
	}
	m[p] = list
}

// byHand is told that a client has put a task where it is already. Inside a change.
func (r *Recorder) byHand(t *tree.Tree, tid int32, h *tree.Hierarchy) {
	t.Update(func() {
		if task := t.Task(tid); task != nil {
			r.hands.add(task.Process(), h)
		}
	})
}

// has reports whether a client put a process where it is in a hierarchy. View.
func (m hands) has(p *tree.Process, h *tree.Hierarchy) bool { return slices.Contains(m[p], h.Number()) }
