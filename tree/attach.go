package tree

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// AttachRequest asks for a task, or all threads of a process, to be moved.
type AttachRequest struct {
	Actor *Actor
	To    *Container
	Also  []*Container // in the same move: each of another hierarchy
	ID    int32        // a tid; of any thread when Process is set

	// Process asks for all threads of the process, those born meanwhile
	// included.
	Process bool

	// NoWait asks for ErrWouldWait in place of a wait that can take long: only what
	// takes microseconds is done (one thread, without effects; see Config.Prompt).
	NoWait bool

	// Allow is the front end's permission check for one task in one hierarchy,
	// made inside the change, without mu.
	Allow func(task TaskInfo, from, to *Container) error

	// Done is called inside the change when it has succeeded.
	Done func()
}

// targets are the containers that a request is about.
func (r *AttachRequest) targets() []*Container { return append([]*Container{r.To}, r.Also...) }

// maxRounds bounds how often an attach goes after tasks that were born while it
// ran.
const maxRounds = 32

// Attach moves a task, or a process, to a container, or to one in each of several
// hierarchies: all or nothing, and nobody sees it in some of them only. Errors, in
// this order: EINVAL for two containers of one hierarchy, ENODEV when a container is
// removed, ESRCH when there is no such task, Allow's, the first of a subsystem's
// CanAttach, EOPNOTSUPP for one
// of several threads where a ProcessMover is bound, EINVAL for a task that
// the kernel does not move, the first of a subsystem's Attach, ESRCH when the
// task ended meanwhile, and EAGAIN when a process makes threads faster than they
// can be moved, or seems to, since for ExitDue neither an exit nor an exec of it is told.
func (t *Tree) Attach(r AttachRequest) error {
	err := t.attachKept(r)
	var op *OpError
	if err != nil && err != ErrWouldWait && !errors.As(err, &op) {
		err = opError("attach", strconv.Itoa(int(r.ID)), err)
	}
	return err
}

// errUnkept is attach's when it leads to css groups that have to be kept before
// tasks are in them.
var errUnkept = errors.New("to a css group that is not kept yet")

// attachKept is attach as a change of its own, which waits for what has to be kept
// before it outside of changes, and then begins anew.
func (t *Tree) attachKept(r AttachRequest) error {
	for range maxRounds {
		brief := t.isBrief(&r)
		change := t.Change
		if brief {
			change = func(f func() error) error { return t.ChangeBriefly(!r.NoWait, f) }
		} else if r.NoWait {
			return ErrWouldWait
		}
		var unkept []*Group
		err := change(func() error {
			if brief && !t.isBrief(&r) {
				return ErrWouldWait // by now
			}
			return t.attach(r, &unkept)
		})
		switch {
		case err == ErrWouldWait && !r.NoWait:
			continue
		case err != errUnkept:
			return err
		case r.NoWait:
			return ErrWouldWait
		}
		if err := t.awaitGroups(unkept, false); err != nil {
			return err
		}
	}
	return syscall.EAGAIN
}

// attach is an attach inside a change. If groups have to be kept first it does
// nothing but say which, or without unkept waits for that.
func (t *Tree) attach(r AttachRequest, unkept *[]*Group) error {
	m := newMove(r)
	for i, c := range m.to {
		if slices.ContainsFunc(m.to[:i], func(o *Container) bool { return o.h == c.h }) {
			return fmt.Errorf("two containers of %s: %w", c.h.name, syscall.EINVAL)
		}
	}
	alone := false
	for _, c := range m.to {
		if c.removed {
			return syscall.ENODEV
		}
		// Where only processes move, a thread that is alone moves as one.
		alone = alone || !r.Process && slices.ContainsFunc(c.h.bound, func(b *registered) bool { return b.processes })
	}
	if alone {
		if _, err := t.look(r.ID); err != nil {
			return err
		}
		r.Process = true
	}
	infos, err := t.resolve(r)
	if err != nil {
		return err
	}
	here, err := t.prepare(m, r, infos)
	if alone && err == nil && len(m.tasks) > 0 && len(infos) > 1 {
		err = errThreads
	}
	if err == nil {
		err = t.keepTargets(m, unkept)
	}
	if err == nil {
		err = t.reattach(r, here)
	}
	if err == nil && len(m.tasks) > 0 {
		if err = t.carryOut(m); err != nil {
			t.undo(m)
		}
	}
	var guessed *Task
	t.Update(func() {
		t.endMoveLocked(m)
		guessed = t.guessedLocked(m)
	})
	if guessed != nil {
		t.placeHeir(guessed)
	}
	if err == nil && r.Done != nil {
		r.Done()
	}
	return err
}

// errFaster is for a process that cannot be caught up with.
var errFaster = fmt.Errorf("it makes threads faster than they can be moved: %w", syscall.EAGAIN)

// errThreads is for one thread of several where a subsystem moves processes only.
var errThreads = fmt.Errorf("one thread of several, where only whole processes move: %w", syscall.EOPNOTSUPP)

// Asker is who asked for the attach that is under way; not ok when there is none,
// as when the mirror had a task elsewhere. Under changeMu, for callbacks.
func (t *Tree) Asker() (a *Actor, ok bool) {
	if t.moving == nil {
		return nil, false
	}
	return t.moving.actor, true
}

// keepTargets sees to it that the css groups which m leads to are kept: see attach.
func (t *Tree) keepTargets(m *move, unkept *[]*Group) error {
	groups := t.unkept(m)
	if len(groups) == 0 {
		return nil
	}
	if unkept != nil {
		*unkept = groups
		return errUnkept
	}
	return t.awaitGroups(groups, true)
}

// look looks a thread up when the Tree has been told of what happened before.
func (t *Tree) look(tid int32) (TaskInfo, error) {
	if info, ok := t.glance(tid); ok {
		return info, nil
	}
	t.host.Drain()
	return t.host.Task(tid)
}

// glance is look if that is had at once, and of a thread that the model has: a new one's
// parent has to be known.
func (t *Tree) glance(tid int32) (info TaskInfo, ok bool) {
	if t.glancer == nil {
		return info, false
	}
	if info, ok = t.glancer.Glance(tid); !ok {
		return info, false
	}
	t.View(func() {
		task := t.tasks[tid]
		ok = task != nil && task.start.is(info.Start)
	})
	return info, ok
}

// resolve asks the host for the threads that r is about.
func (t *Tree) resolve(r AttachRequest) ([]TaskInfo, error) {
	if r.ID <= 0 {
		return nil, syscall.ESRCH // to Host.Tasks it would mean all
	}
	info, err := t.look(r.ID)
	if !r.Process {
		return []TaskInfo{info}, err
	}
	tgid := info.TGID
	if err != nil {
		tgid = r.ID // its first thread may have ended before the others
	}
	var infos []TaskInfo
	err = t.host.Tasks(tgid, func(i TaskInfo) bool { infos = append(infos, i); return true })
	if err == nil && len(infos) == 0 {
		err = syscall.ESRCH
	}
	return infos, err
}

// prepare checks everything that can be checked without an effect, fills in m
// and, if there is something to move, begins it. It returns the tasks that are
// in a container already.
func (t *Tree) prepare(m *move, r AttachRequest, infos []TaskInfo) (here []placed, err error) {
	tasks := make([]*Task, len(infos))
	for i, info := range infos {
		task := t.adoptInChange(info)
		if task == nil {
			continue
		}
		tasks[i] = task
		var group *Group
		t.View(func() { group = task.group })
		if r.Allow == nil || group == nil {
			continue
		}
		for _, to := range m.to {
			if err := r.Allow(info, group.container(to.h), to); err != nil {
				return nil, err
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, task := range tasks {
		// What was allowed is this task, not one that has its tid by now. A
		// thread of a process may have ended.
		if task == nil || task.group == nil || (m.process != nil && m.process != task.proc) {
			continue
		}
		if r.Process {
			m.process = task.proc
		}
		for _, to := range m.to {
			from := task.group.container(to.h)
			if from == to {
				here = append(here, placed{task, to})
				continue
			}
			for _, b := range to.h.bound {
				if b.canAttach == nil {
					continue
				}
				if err := b.canAttach.CanAttach(r.Actor, task, from, to); err != nil {
					return nil, err
				}
			}
		}
		if !m.isThere(task.group) {
			t.includeLocked(m, task).start = startAt(infos[i].Start)
		}
	}
	t.includeOthersLocked(m) // who were born since they were listed
	if len(here)+len(m.tasks) == 0 {
		return nil, syscall.ESRCH
	}
	if len(m.tasks) > 0 {
		t.moving = m
	}
	return here, nil
}

// placed is a task in a container that it was to be moved to.
type placed struct {
	task *Task
	in   *Container
}

// reattach repeats the effects for tasks that are in a container already.
func (t *Tree) reattach(r AttachRequest, here []placed) error {
	for _, p := range here {
		for _, b := range p.in.h.bound {
			if b.reattach == nil {
				continue
			}
			err := b.reattach.Reattach(p.task, p.in)
			if r.Process && errors.Is(err, syscall.ESRCH) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// carryOut does what prepare found possible, and commits it.
func (t *Tree) carryOut(m *move) error {
	if err := t.perform(m, m.tasks); err != nil {
		return err
	}
	var missing time.Duration // for so long tasks were missed
	for round := 0; ; round++ {
		if t.mirror == nil {
			t.Update(func() { t.splitLocked(m) })
		}
		if err := t.verify(m); err != nil {
			return err
		}
		var late []*moved
		var err error
		t.Update(func() {
			switch late = t.latecomersLocked(m); {
			case len(late) > 0:
			case !m.livesLocked():
				err = syscall.ESRCH
			default:
				t.commitLocked(m)
			}
		})
		if len(late) == 0 {
			return err
		}
		if round == maxRounds {
			return errFaster
		}
		if !slices.ContainsFunc(late, func(mv *moved) bool { return !mv.missed }) {
			// Their exits, or the exec that changed their numbers, will be told.
			nap := time.Duration(round+1) * time.Millisecond
			time.Sleep(nap)
			if missing += nap; missing >= ExitDue {
				t.removeOverdue(m, late)
			}
		}
		if err := t.perform(m, late); err != nil {
			return err
		}
	}
}
