package subsystest

import "containerfs/tree"

// Kept is what a state directory has of a hierarchy, for a Tree that is to follow
// another over the same host with a mirror.
type Kept struct {
	hierarchy tree.KeptHierarchy
	children  []keptChild // parents first
	groups    map[uint64]uint64
}

type keptChild struct {
	parent uint64
	kept   tree.Kept
}

// Keep is what there is now of the hierarchy with this root, the only one.
func Keep(root *tree.Container) *Kept {
	t := root.Tree()
	k := &Kept{groups: make(map[uint64]uint64)}
	t.View(func() {
		k.hierarchy = root.Hierarchy().Kept()
		root.EachBelow(func(c *tree.Container) bool {
			k.children = append(k.children, keptChild{c.Parent().ID(), c.Kept()})
			return true
		})
		t.Places(func(tid int32, p tree.Place) {
			if p.Group != 0 {
				k.groups[p.Group] = t.Task(tid).Group().Containers()[0].ID()
			}
		})
	})
	return k
}

// Restore makes it again, before the first Resync.
func (k *Kept) Restore(t *tree.Tree) (root *tree.Container, err error) {
	h, err := t.RestoreHierarchy(k.hierarchy)
	if err != nil {
		return nil, err
	}
	made := map[uint64]*tree.Container{h.Root().ID(): h.Root()}
	for _, child := range k.children {
		c, err := t.RestoreContainer(made[child.parent], child.kept)
		if err != nil {
			return nil, err
		}
		made[c.ID()] = c
	}
	for group, c := range k.groups {
		if err := t.RestoreGroup(group, []*tree.Container{made[c]}, true); err != nil {
			return nil, err
		}
	}
	return h.Root(), nil
}
