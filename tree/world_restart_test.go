package tree_test

import (
	"maps"

	"containerfs/tree"
)

// kept is what a Keeper would have kept, by numbers.
type kept struct {
	next        tree.Next
	hierarchies []tree.KeptHierarchy
	parents     map[uint64]uint64 // of containers
	containers  []tree.Kept       // parents first
	groups      map[uint64][]uint64
	places      map[int32]tree.Place
}

func (w *world) keep() kept {
	k := kept{parents: map[uint64]uint64{}, groups: map[uint64][]uint64{}, places: map[int32]tree.Place{}}
	w.View(func() {
		k.next = w.Next()
		w.Places(func(tid int32, p tree.Place) { k.places[tid] = p })
		for h := range w.Hierarchies {
			k.hierarchies = append(k.hierarchies, h.Kept())
			h.Root().EachBelow(func(c *tree.Container) bool {
				k.parents[c.ID()] = c.Parent().ID()
				k.containers = append(k.containers, c.Kept())
				c.EachCSSGroup(func(g *tree.Group) {
					k.groups[g.Num()] = nil
					for _, c := range g.Containers() {
						k.groups[g.Num()] = append(k.groups[g.Num()], c.ID())
					}
				})
				return true
			})
		}
	})
	return k
}

// restart has another Tree take over what was kept and what there is on the host. With a mirror
// things happen while nobody looks, and before the first look.
func (w *world) restart() error {
	w.Drain()
	k := w.keep()
	if err := w.meanwhile(); err != nil {
		return err
	}
	w.host.Lose()
	w.logf("restart")
	if err := w.live(); err != nil {
		return err
	}
	w.RestoreNext(k.next)
	hierarchies := make(map[uint64]*tree.Hierarchy)
	made := make(map[uint64]*tree.Container)
	for _, of := range k.hierarchies {
		h, err := w.RestoreHierarchy(of)
		if err != nil {
			return err
		}
		hierarchies[h.Number()], made[h.Root().ID()] = h, h.Root()
	}
	for _, of := range k.containers {
		c, err := w.RestoreContainer(made[k.parents[of.ID]], of)
		if err != nil {
			return err
		}
		made[c.ID()] = c
	}
	for num, ids := range k.groups {
		var of []*tree.Container
		for _, id := range ids {
			of = append(of, made[id])
		}
		if err := w.RestoreGroup(num, of, w.mirror); err != nil {
			return err
		}
	}
	if !w.mirror {
		w.RestoreTasks(k.places)
	}
	w.EndRestore()
	if err := w.meanwhile(); err != nil {
		return err
	}
	if err := w.Resync(); err != nil { // what happened before is told after it
		return err
	}
	for i, c := range w.containers {
		w.containers[i] = made[c.ID()]
	}
	for i, h := range w.mounted {
		w.mounted[i] = hierarchies[h.Number()]
	}
	for tid, was := range maps.Clone(w.where) {
		w.where[tid] = places{}
		for h, c := range was {
			w.where[tid][hierarchies[h.Number()]] = made[c.ID()]
		}
	}
	return nil
}

// meanwhile is what happens while nobody looks.
func (w *world) meanwhile() error {
	if !w.mirror {
		return nil // whose child is whose, nobody can say
	}
	ops := []func() error{w.fork, w.thread, w.cloneParent, w.exit, w.exec, w.orphan}
	for range w.choose(6) {
		if err := ops[w.choose(len(ops))](); err != nil {
			return err
		}
	}
	return nil
}
