package ops

import (
	"slices"

	"containerfs/tree"
)

// hands knows which processes clients have put where they are, since they last
// executed a program: rules leave these alone (SPEC §21). What they fork is where it
// is by the same hand. Guarded by the tree's mu.
type hands map[*tree.Process][]*tree.Hierarchy

// observe is told of every change of the tree. byRule: a rule made it.
func (m hands) observe(e tree.Event, byRule bool) {
	switch e.Kind {
	case tree.Attached:
		p, h := e.Task.Process(), e.Container.Hierarchy()
		if e.Actor != nil && !byRule && !slices.Contains(m[p], h) {
			// Not in place: children share it.
			m[p] = append(slices.Clip(m[p]), h)
		}
	case tree.Forked:
		if p := e.Task.Process(); e.Parent != nil && e.Parent != p && len(m[e.Parent]) > 0 {
			m[p] = m[e.Parent]
		}
	case tree.Execed:
		delete(m, e.Task.Process())
	case tree.Exited:
		if e.Task.Process().NumThreads() == 1 {
			delete(m, e.Task.Process())
		}
	}
}

// put reports whether a client put a process where it is in a hierarchy. View.
func (m hands) put(p *tree.Process, h *tree.Hierarchy) bool { return slices.Contains(m[p], h) }
