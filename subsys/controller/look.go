package controller

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// perLook bounds how many directories are compared with their containers at once.
const perLook = 128

// look does, once a second, what nothing tells of: removes directories that were
// busy, keeps the origins of children, and compares directories with containers.
func (t *trunk) look() {
	_ = t.tree.Change(func() error {
		t.removeLate()
		if !t.adopted {
			t.adopted = true
			t.removeUnclaimed()
			t.tree.Update(func() { t.saved = nil })
		}
		t.audit()
		t.checkHandedDown()
		return nil
	})
	t.settle()
}

// removeLate tries again what was busy. What somebody else put there goes now.
func (t *trunk) removeLate() {
	late := t.late
	t.late = nil
	for _, n := range late {
		if err := t.evict(n); errors.Is(err, unix.EBUSY) {
			t.late = append(t.late, n)
		} else if err != nil {
			t.log.Warn("a container's kernel directory is left over", "path", n.path(), "err", err)
		}
	}
}

// removeUnclaimed removes what an earlier server of the same id has left and no
// container of this one has.
func (t *trunk) removeUnclaimed() {
	nodes := []*node{t.base}
	for _, n := range t.nodes {
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		dir, err := n.open()
		if err != nil {
			continue
		}
		names, err := dir.Dirs()
		if err != nil {
			dir.Close()
			continue
		}
		for _, name := range names {
			id, err := strconv.ParseUint(name, 10, 64)
			if err != nil || t.nodes[id] != nil {
				continue // the leaf, or somebody else's
			}
			t.log.Warn("removing a kernel directory that no container has", "path", n.path()+"/"+name)
			if err := dir.Clear(name, t.list(), t.toBase); err != nil {
				t.log.Warn("a kernel directory that no container has is left over", "path", n.path()+"/"+name, "err", err)
			}
		}
		dir.Close()
	}
}

// audit compares some directories with their containers, and says what somebody
// else has done there. A directory that is gone is made again.
func (t *trunk) audit() {
	ids := make([]uint64, 0, len(t.nodes))
	for id := range t.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	from, _ := slices.BinarySearch(ids, t.next)
	if from+perLook < len(ids) {
		t.next = ids[from+perLook]
		ids = ids[from : from+perLook]
	} else {
		ids = ids[from:]
		t.next = 0
	}
	for _, id := range ids {
		n := t.nodes[id]
		in, err := t.members(n)
		if kernfs.IsGone(err) {
			if err = t.revive(n); err == nil {
				in, err = t.members(n)
			}
		}
		if err != nil {
			t.log.Warn("a container's kernel directory cannot be read", "path", n.path(), "err", err)
			continue
		}
		t.compare(n, in)
	}
}

// checkHandedDown says which controllers of version 2 somebody else has taken away
// from the base, and which he has given back.
func (t *trunk) checkHandedDown() {
	base := t.baseDir.Load()
	if t.version != 2 || base == nil {
		return
	}
	text, err := base.Read("cgroup.subtree_control", nil)
	if err != nil {
		return // somebody has removed the base; see revive
	}
	on := strings.Fields(string(text))
	for _, name := range t.names() {
		has := slices.Contains(on, name)
		if !has && !t.taken[name] {
			t.log.Warn("somebody else took a controller away from the kernel directories: its limits are gone", "controller", name, "base", t.basePath())
		} else if has && t.taken[name] {
			t.log.Info("a controller is back, without the limits that there were", "controller", name, "base", t.basePath())
		}
		t.taken[name] = !has
	}
}

// members are the tasks in a container's directory.
func (t *trunk) members(n *node) ([]int32, error) {
	dir, err := t.openBelow(n.place())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	ids, err := dir.IDs(t.list())
	slices.Sort(ids)
	return ids, err
}

func (t *trunk) compare(n *node, in []int32) {
	t.tree.Drain()
	var want []int32
	t.tree.View(func() {
		if t.version == 2 {
			want = n.c.AppendProcesses(nil)
		} else {
			want = n.c.AppendTasks(nil)
		}
	})
	var out, strange []int32
	for _, id := range want {
		if _, ok := slices.BinarySearch(in, id); !ok && t.isOut(id, n) {
			out = append(out, id)
		}
	}
	for _, id := range in {
		if _, ok := slices.BinarySearch(want, id); !ok && t.isStrange(id, n) {
			strange = append(strange, id)
		}
	}
	if drift := len(out) + len(strange); drift != n.drift {
		n.drift = drift
		if drift > 0 {
			t.log.Warn("somebody else moved tasks in the kernel: limits do not hold for those that are out of their container's directory",
				"path", n.path(), "out", firstOf(out), "in", firstOf(strange))
		}
	}
}

// isOut reports whether a task of the container is really elsewhere: it has not
// ended meanwhile.
func (t *trunk) isOut(id int32, n *node) bool {
	at, err := t.where(id)
	return err == nil && at != t.basePath()+"/"+n.place() && t.lives(id, n, true)
}

// isStrange reports whether a task that is there is really of another container.
func (t *trunk) isStrange(id int32, n *node) bool {
	at, err := t.where(id)
	return err == nil && at == t.basePath()+"/"+n.place() && t.lives(id, n, false)
}

func (t *trunk) lives(id int32, n *node, member bool) (is bool) {
	t.tree.Drain()
	t.tree.View(func() {
		task := t.tree.Task(id)
		is = task != nil && task.Live() && (task.Container(n.c.Hierarchy()) == n.c) == member
	})
	return is
}

func firstOf(ids []int32) []int32 { return ids[:min(len(ids), 8)] }

// settle keeps the origins that children have got, and lets go of those of tasks
// that have ended.
func (t *trunk) settle() {
	var put, del []Origin
	t.tree.Update(func() {
		if t.stale {
			t.stale = false
			for k := range t.from {
				if task, ok := k.(*tree.Task); ok && t.idle(task) {
					delete(t.from, k)
				} else if p, ok := k.(*tree.Process); ok && t.idle(p.Thread()) {
					delete(t.from, k)
				}
			}
		}
		for k := range t.dead {
			del = append(del, Origin{Trunk: k.trunk, TID: k.tid})
		}
		for _, task := range t.dirty {
			if from := t.from[t.holder(task)]; from != nil && task.Live() {
				put = append(put, t.origin(task, from))
			}
		}
		clear(t.dead)
		t.dirty = nil
	})
	var err error
	if len(del) > 0 {
		err = t.origins.Delete(del...)
	}
	if len(put) > 0 {
		err = errors.Join(err, t.origins.Put(put...))
	}
	if err != nil {
		t.log.Warn("where children of tasks came from is not kept", "err", err)
	}
}

// idle reports whether a task is in the root to stay. With mu.
func (t *trunk) idle(task *tree.Task) bool {
	if task == nil || !task.Live() {
		return true
	}
	if task.Moving() {
		t.stale = true
		return false
	}
	return t.hier == nil || task.Container(t.hier).IsRoot()
}
