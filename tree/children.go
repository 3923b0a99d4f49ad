package tree

import (
	"slices"
	"sort"
)

// childList is the children of one container, by order of creation and by
// name. A nil list is empty. Guarded as Container.children is.
//
// The order is a slice with holes: a removed child stays in it, marked removed,
// until half of the slice is holes. So a listing that goes on after the id it
// stopped at finds its place by binary search, however many came and went. Then both
// are made anew, since neither gives back the room that it had to have once.
type childList struct {
	order []*Container
	holes int
	// byName is made when searching the slice would be slow.
	byName map[string]*Container
}

// indexAbove is the number of children from which on they are found by map.
const indexAbove = 8

func (l *childList) len() int {
	if l == nil {
		return 0
	}
	return len(l.order) - l.holes
}

func (l *childList) get(name string) *Container {
	if l == nil {
		return nil
	}
	if l.byName != nil {
		return l.byName[name]
	}
	for _, c := range l.order {
		if c.name == name && !c.removed {
			return c
		}
	}
	return nil
}

func (l *childList) each(after uint64, yield func(*Container) bool) {
	if l == nil {
		return
	}
	first := sort.Search(len(l.order), func(i int) bool { return l.order[i].id > after })
	for _, c := range l.order[first:] {
		if !c.removed && !yield(c) {
			return
		}
	}
}

// add puts in a child that is new, or one that was removed and is not marked so any more.
func (l *childList) add(c *Container) {
	i := sort.Search(len(l.order), func(i int) bool { return l.order[i].id >= c.id })
	if i < len(l.order) && l.order[i] == c {
		l.holes--
	} else {
		l.order = slices.Insert(l.order, i, c)
	}
	if l.byName != nil {
		l.byName[c.name] = c
	} else if l.len() > indexAbove {
		l.index()
	}
}

// remove takes out a child that is marked removed.
func (l *childList) remove(c *Container) {
	delete(l.byName, c.name)
	l.holes++
	if l.holes > len(l.order)/2 {
		order := make([]*Container, 0, l.len())
		l.each(0, func(c *Container) bool { order = append(order, c); return true })
		l.order, l.holes = order, 0
		if l.byName = nil; len(order) > indexAbove {
			l.index()
		}
	}
}

// index makes byName.
func (l *childList) index() {
	l.byName = make(map[string]*Container, l.len())
	l.each(0, func(c *Container) bool { l.byName[c.name] = c; return true })
}

func (l *childList) rename(c *Container, name string) {
	delete(l.byName, c.name)
	c.name = name
	if l.byName != nil {
		l.byName[name] = c
	}
}
