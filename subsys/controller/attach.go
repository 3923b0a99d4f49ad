package controller

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// find is trunk.where by the kernel's account.
func (t *trunk) find(tid int32) (string, error) {
	text, err := kernfs.ReadProc(strconv.Itoa(int(tid)) + "/cgroup")
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return "", syscall.ESRCH
	case err != nil:
		return "", err
	}
	path, ok := pathIn(text, t.version, t.set)
	if !ok {
		return "", syscall.EIO
	}
	return path, nil
}

// pathIn finds the path of a hierarchy in /proc/<pid>/cgroup.
func pathIn(text []byte, version int, set []string) (string, bool) {
	for list, path := range kernfs.Memberships(text) {
		if len(list) == 0 && version == 2 || version == 1 && slices.Contains(strings.Split(string(list), ","), set[0]) {
			return string(path), true
		}
	}
	return "", false
}

// basePath is the base's path in the kernel's hierarchy.
func (t *trunk) basePath() string { return t.parentAt + "/" + t.baseName }

// owns reports whether a path is of the server's own subtree.
func (t *trunk) owns(path string) bool {
	below, ok := strings.CutPrefix(path, t.basePath())
	return ok && (below == "" || below[0] == '/')
}

// subject is what the kernel moves for a task, by number: in version 2 its
// process.
func (t *trunk) subject(task *tree.Task) int32 {
	if t.version == 2 {
		return task.TGID()
	}
	return task.TID()
}

// holder is what an origin is of.
func (t *trunk) holder(task *tree.Task) any {
	if t.version == 2 {
		return task.Process()
	}
	return task
}

var errForeign = fmt.Errorf("only a privileged caller may take a task out of a cgroup of somebody else's: %w", syscall.EACCES)

// attach moves a task to the kernel directory of a container. Under changeMu.
func (t *trunk) attach(task *tree.Task, to *node) (undo func(), err error) {
	if t.tree.HasEnded(task) {
		return nil, syscall.ESRCH // others of its process may have taken long
	}
	at, err := t.where(task.TID())
	if err != nil {
		return nil, err
	}
	if to.parent == nil {
		return t.giveBack(task, at)
	}
	if at == t.basePath()+"/"+to.place() {
		return nil, nil // with the rest of its process, or from its forker
	}
	if t.owns(at) {
		if err := t.enter(task, to); err != nil {
			return nil, err
		}
		return t.undoTo(task, at), nil
	}
	was, err := t.note(task, at)
	if err != nil {
		return nil, err
	}
	if err := t.enter(task, to); err != nil {
		t.forget(task, was)
		return nil, err
	}
	if at != "/" {
		t.log.Info("a task was taken out of a cgroup that is not the kernel's root",
			"tid", task.TID(), "tgid", task.TGID(), "path", at, "trunk", t.name)
	}
	back := t.undoTo(task, at)
	return func() { back(); t.forget(task, was) }, nil
}

// note records where a task is that is about to be taken from there, before it
// is, so that children get it as well. It returns what was recorded before.
func (t *trunk) note(task *tree.Task, at string) (was *source, err error) {
	if at != "/" {
		if a, asked := t.tree.Asker(); asked && a.CheckPrivileged() != nil {
			return nil, errForeign
		}
	}
	from := &source{path: at}
	if dir, err := t.openAt(at); err == nil {
		from.id, err = dir.ID()
		dir.Close()
		if err != nil {
			return nil, err
		}
	}
	inherited := false
	t.tree.Update(func() {
		was = t.from[t.holder(task)]
		if inherited = was != nil && at == "/"; inherited {
			return // while a fork is not finished the kernel shows the root
		}
		t.from[t.holder(task)] = from
		delete(t.dead, key{t.name, t.subject(task)})
	})
	if inherited {
		return was, nil
	}
	if err := t.origins.Put(t.origin(task, from)); err != nil {
		t.forget(task, was)
		return nil, err
	}
	return was, nil
}

// origin is the record of a source.
func (t *trunk) origin(task *tree.Task, from *source) Origin {
	return Origin{Trunk: t.name, TID: t.subject(task), Start: task.Start(), Path: from.path, ID: from.id}
}

// forget puts back what was recorded of a task before.
func (t *trunk) forget(task *tree.Task, was *source) {
	t.tree.Update(func() {
		if was == nil {
			delete(t.from, t.holder(task))
			t.dead[key{t.name, t.subject(task)}] = struct{}{}
		} else {
			t.from[t.holder(task)] = was
		}
	})
}

// openAt opens a directory by its path in the kernel's hierarchy.
func (t *trunk) openAt(path string) (*kernfs.Dir, error) {
	if path == "/" {
		return t.root.Open(".")
	}
	return t.root.Open(path[1:])
}

// enter moves a task to where the tasks of a container are: ESRCH if it has ended, also where
// another with its number was moved, which is put back.
func (t *trunk) enter(task *tree.Task, n *node) error {
	move := func() error {
		dir, err := t.openBelow(n.place())
		if err != nil {
			return err
		}
		defer dir.Close()
		return t.move(dir, t.subject(task))
	}
	err := move()
	if kernfs.IsGone(err) {
		if err = t.revive(n); err == nil {
			err = move()
		}
	}
	if err != nil {
		return err
	}
	if heir, ended := t.tree.Heir(task); ended {
		t.putOut(heir, n)
		return syscall.ESRCH
	}
	return nil
}

// putOut moves a task that was born just now, and may have been moved to n in place of another,
// to where it was forked.
func (t *trunk) putOut(task tree.TaskInfo, n *node) {
	if task.TID == 0 {
		return // there is none
	}
	at, err := t.where(task.TID)
	if err != nil || at != t.basePath()+"/"+n.place() {
		return
	}
	was, err := t.where(task.PPID)
	if err == nil && was != at {
		var dir *kernfs.Dir
		if dir, err = t.openAt(was); err == nil {
			id := task.TID
			if t.version == 2 {
				id = task.TGID
			}
			err = t.move(dir, id)
			dir.Close()
		}
	}
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		t.log.Error("a task that was moved in place of another could not be put back", "tid", task.TID, "path", at, "err", err)
	}
}

// giveBack moves a task from the server's own subtree to where it came from, or
// to the base if that is not there any more.
func (t *trunk) giveBack(task *tree.Task, at string) (undo func(), err error) {
	if !t.owns(at) || at == t.basePath()+"/"+t.base.place() || t.version == 1 && at == t.basePath() {
		return nil, nil
	}
	var from *source
	t.tree.View(func() { from = t.from[t.holder(task)] })
	if from != nil {
		err = t.restore(t.subject(task), from)
		if err == nil {
			return t.undoTo(task, at), nil
		}
		if errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
		t.log.Warn("a task cannot go back where it came from: it goes to the base",
			"tid", task.TID(), "path", from.path, "err", err)
	} else {
		t.log.Warn("it is not known where a task came from: it goes to the base", "tid", task.TID())
	}
	if err := t.enter(task, t.base); err != nil {
		return nil, err
	}
	return t.undoTo(task, at), nil
}

// errOther is for a directory that has the name of the one that is meant.
var errOther = errors.New("another directory has that name by now")

// restore moves a task to its origin.
func (t *trunk) restore(id int32, from *source) error {
	dir, err := t.openAt(from.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	switch is, err := dir.ID(); {
	case err != nil:
		return err
	case is != from.id:
		return errOther
	}
	return t.move(dir, id)
}

// undoTo moves a task back to the directory that it was in.
func (t *trunk) undoTo(task *tree.Task, at string) func() {
	return func() {
		dir, err := t.openAt(at)
		if err == nil {
			err = t.move(dir, t.subject(task))
			dir.Close()
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			t.log.Error("a task could not be put back after a failed attach", "tid", task.TID(), "path", at, "err", err)
		}
	}
}

// putAllBack gives all tasks back, when the server ends and its directories go, and
// the children that they have meanwhile.
func (t *trunk) putAllBack() {
	if t.tree == nil {
		return
	}
	for range maxRounds {
		moved := 0
		t.tree.Drain()
		_ = t.tree.Change(func() error {
			moved = t.putBack()
			return nil
		})
		if moved == 0 {
			return
		}
	}
}

// maxRounds bounds how often the end of the server goes after children that were
// born meanwhile.
const maxRounds = 16

// putBack gives the tasks back that there are, and returns how many. Under changeMu.
func (t *trunk) putBack() (moved int) {
	type member struct {
		task *tree.Task
		from *source
	}
	var all []member
	t.tree.View(func() {
		for k, from := range t.from {
			switch k := k.(type) {
			case *tree.Task:
				all = append(all, member{k, from})
			case *tree.Process:
				if task := k.Thread(); task != nil {
					all = append(all, member{task, from})
				}
			}
		}
	})
	for _, m := range all {
		at, err := t.where(m.task.TID())
		if err != nil || !t.owns(at) {
			continue
		}
		switch err := t.restore(t.subject(m.task), m.from); {
		case err == nil:
			moved++
		case !errors.Is(err, syscall.ESRCH):
			t.log.Warn("a task cannot go back where it came from", "tid", m.task.TID(), "path", m.from.path, "err", err)
			t.tree.Update(func() { delete(t.from, t.holder(m.task)) })
		}
	}
	return moved
}
