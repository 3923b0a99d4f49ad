package cpuset

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"containerfs/tree"
)

// CanAttach is tree.CanAttacher's.
func (s *Subsystem) CanAttach(_ *tree.Actor, _ *tree.Task, _, to *tree.Container) error {
	s.settleLocked() // as long as none of the attach's tasks is Moving
	for r, name := range [resources]string{cpus: "cpus", mems: "mems"} {
		if s.inForce(to, resource(r)).Empty() {
			return errEmpty(to, name)
		}
	}
	return nil
}

// errEmpty is ENOSPC that names the file which has to be written before tasks can be in a
// container. With mu held.
func errEmpty(c *tree.Container, name string) error {
	if !c.Hierarchy().Noprefix() {
		name = "cpuset." + name
	}
	return fmt.Errorf("%w: %s/%s is empty", syscall.ENOSPC, c.ServedPath(), name)
}

// Attach is tree.Attacher's.
func (s *Subsystem) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	return s.AttachBy(task, from, to, func() (func(), error) { return nil, nil })
}

// AttachBy is Attach where what the kernel allows a task depends on where place puts it, on its
// way out of the root: after its mask there is noted, and before it gets that of the container. If
// the rest fails place is undone, as it is by undo.
func (s *Subsystem) AttachBy(task *tree.Task, from, to *tree.Container, place func() (undo func(), err error)) (func(), error) {
	if from == to {
		return nil, s.Reattach(task, to)
	}
	s.settle()
	former, err := s.host.Affinity(task.TID())
	if err != nil {
		return nil, err
	}
	var undo func()
	if to.IsRoot() {
		undo, err = s.leave(task, from, former)
	} else {
		undo, err = s.enter(task, from, to, former, place)
	}
	if err != nil {
		return nil, err
	}
	if s.state(to).flags&memoryMigrate == 0 || task.TID() != task.TGID() {
		return undo, nil
	}
	old, now := s.inForce(from, mems), s.inForce(to, mems)
	s.migrator.ask(task.TGID(), old, now)
	return func() {
		undo()
		s.migrator.ask(task.TGID(), now, old)
	}, nil
}

// enter confines a task that is attached to a container that is no root.
func (s *Subsystem) enter(task *tree.Task, from, to *tree.Container, former Set, place func() (func(), error)) (undo func(), err error) {
	noted := from.IsRoot() && s.note(task, former)
	want := s.inForce(to, cpus)
	var got Set
	unplace, err := place()
	if err == nil {
		if got, err = s.set(task, want); err != nil && unplace != nil {
			unplace()
			s.restore(task, former) // which the places have cut
		}
	}
	if err != nil {
		if noted {
			s.forget(task)
		}
		return nil, err
	}
	if !got.Equal(want) {
		s.log.Warn("the kernel allows a task only a part of cpus", "tid", task.TID(), "container", to.Path(), "cpus", want, "allowed", got)
	}
	return func() {
		if unplace != nil {
			unplace()
		}
		if !from.IsRoot() {
			s.restore(task, s.cut(former, from))
			return
		}
		// A child forked since has a mask of this container, but the
		// origin of its forker.
		origin := s.forget(task)
		if origin.Empty() {
			origin = former
		}
		s.restore(task, origin)
	}, nil
}

// leave gives a task that is attached to the root its origin back.
func (s *Subsystem) leave(task *tree.Task, from *tree.Container, former Set) (undo func(), err error) {
	var origin, online Set
	s.tree.View(func() { origin, online = s.origins[task], s.state(s.root).sets[cpus] })
	if !origin.Intersects(online) {
		origin = online // unknown, or of CPUs that are gone
	}
	got, err := s.set(task, origin)
	if err != nil {
		return nil, err
	}
	if !got.Equal(origin.And(online)) {
		s.log.Warn("the kernel gives a task back only a part of the CPUs that it had", "tid", task.TID(), "cpus", origin, "allowed", got)
	}
	s.tree.Update(func() { s.left = append(s.left, task) })
	return func() { s.restore(task, s.cut(former, from)) }, nil
}

// Reattach is tree.Reattacher's.
func (s *Subsystem) Reattach(task *tree.Task, c *tree.Container) error {
	s.settle()
	if c.IsRoot() {
		return nil
	}
	_, err := s.set(task, s.inForce(c, cpus))
	return err
}

// Fork is tree.Forker's. For a child in the root it costs one look into a map,
// and nothing as long as there are no members.
func (s *Subsystem) Fork(parent, child *tree.Task, c *tree.Container) {
	if c.IsRoot() && len(s.origins) == 0 {
		return
	}
	var origin Set
	known := false
	if parent != nil {
		origin, known = s.origins[parent]
	}
	if c.IsRoot() && !(known && s.hands(parent, c)) {
		return
	}
	if before := s.recall(child); !before.Empty() {
		origin = before
	}
	s.origins[child] = origin
}

// hands reports whether a child that was put in the root inherits an origin from
// parent, which has one. It does from a task that an attach has in hand, and from
// a child of such a task, which that attach has yet to take in. A parent that is
// a member otherwise did not fork the child, and one that is back in the root is
// no member any more. mu.
func (s *Subsystem) hands(parent *tree.Task, root *tree.Container) bool {
	if parent.Moving() {
		return true
	}
	at := parent.Container(root.Hierarchy())
	return at == root && !slices.Contains(s.left, parent)
}

// Exit is tree.Exiter's.
func (s *Subsystem) Exit(task *tree.Task, _ *tree.Container) {
	delete(s.origins, task)
	if task.TID() == task.TGID() {
		s.migrator.drop(task.TGID())
	}
}

// note makes mask the origin of a task that lives and has none, and reports
// whether it did. Under changeMu.
func (s *Subsystem) note(task *tree.Task, mask Set) (noted bool) {
	s.tree.Update(func() {
		if task.Group() == nil || !s.origins[task].Empty() {
			return
		}
		if online := s.state(s.root).sets[cpus]; mask.Equal(online) {
			mask = online // one copy for most
		}
		s.origins[task] = mask
		noted = true
	})
	return noted
}

// forget returns the origin of a task that is in the root after all. Under
// changeMu.
func (s *Subsystem) forget(task *tree.Task) (origin Set) {
	s.tree.Update(func() {
		origin = s.origins[task]
		delete(s.origins, task)
	})
	return origin
}

// settle forgets the origins of tasks that are back in the root. It is called
// first in every change; the tasks of an attach that is still under way, of
// which the change may be a part, keep theirs. Under changeMu.
func (s *Subsystem) settle() {
	if len(s.left) == 0 {
		return
	}
	s.tree.Update(s.settleLocked)
}

func (s *Subsystem) settleLocked() {
	s.left = slices.DeleteFunc(s.left, func(task *tree.Task) bool {
		if task.Moving() {
			return false
		}
		if at := task.Container(s.root.Hierarchy()); at == nil || at.IsRoot() {
			delete(s.origins, task)
		}
		return true
	})
}

// set gives a task a mask and returns what the kernel made of it. The kernel goes by the
// number: many members take long, and who has made them can have them end meanwhile, for
// their numbers to be others'.
func (s *Subsystem) set(task *tree.Task, mask Set) (got Set, err error) {
	tid := task.TID()
	if s.tree.HasEnded(task) {
		return nil, syscall.ESRCH
	}
	if err := s.host.SetAffinity(tid, mask); err != nil {
		return nil, err
	}
	got, err = s.host.Affinity(tid)
	if heir, ended := s.tree.Heir(task); ended {
		s.giveBack(heir, got)
		return nil, syscall.ESRCH
	}
	return got, err
}

// giveBack gives a task that was born just now, and may have been given a mask in place of
// another, the one that it was forked with.
func (s *Subsystem) giveBack(task tree.TaskInfo, got Set) {
	if task.TID == 0 {
		return // there is none
	}
	if mask, err := s.host.Affinity(task.PPID); err == nil && !mask.Equal(got) {
		_ = s.host.SetAffinity(task.TID, mask)
	}
}

// restore gives a task the mask that it had before an attach that failed.
func (s *Subsystem) restore(task *tree.Task, mask Set) {
	if _, err := s.set(task, mask); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.log.Error("a task could not be given its CPUs back after a failed attach", "tid", task.TID(), "cpus", mask, "err", err)
	}
}

// cut is a mask without what is outside of the cpus of c, or these where nothing
// is left. Nothing is outside of a root. Under changeMu.
func (s *Subsystem) cut(mask Set, c *tree.Container) Set {
	if c.IsRoot() {
		return mask
	}
	return within(mask, s.inForce(c, cpus))
}
