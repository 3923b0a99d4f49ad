package tree

// Totals are how much there is in the model.
type Totals struct {
	Hierarchies int // active, but for the default one
	Containers  int // in all of them, their roots included
	CSSGroups   int // with tasks, and the root group
	Tasks       int
}

// Totals counts.
func (t *Tree) Totals() Totals {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return Totals{len(t.hierarchies), t.containers, len(t.groups.linked) + 1, len(t.tasks)}
}

// SetMaxContainers changes Config.MaxContainers.
func (t *Tree) SetMaxContainers(n int) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	t.maxContainers = n
}
