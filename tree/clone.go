package tree

import (
	"strconv"
	"syscall"
)

// CloneRequest asks for a container of its own for a process.
type CloneRequest struct {
	Actor     *Actor // on whose behalf; mkdir and attach are judged by it
	Subsystem int    // in whose hierarchy
	Process   *Process

	// Allow is asked inside the change, with mu read-locked, whether the
	// process, which is in the container from now, should be cloned at all.
	Allow func(from *Container) error
}

// Clone makes a child of the container that a process is in, in the hierarchy of
// a subsystem, and attaches the process to it: container_clone of the original
// framework (SPEC §10). All threads go along. The child is named node_<pid>, or
// node_<pid>_<starttime> where a container of that name is there already, and the
// states of all subsystems bound there are prepared by their PostClone. All of it
// is one change; when the process cannot be attached the child is removed again.
//
// Errors: ENODEV when the subsystem is bound to no hierarchy, ESRCH when the
// process is gone, Allow's, Mkdir's, PostClone's and Attach's.
func (t *Tree) Clone(r CloneRequest) (*Container, error) {
	t.changeMu.Lock()
	defer t.changeMu.Unlock()
	pid := r.Process.tgid
	fail := func(err error) (*Container, error) {
		return nil, opError("clone", strconv.Itoa(int(pid)), err)
	}
	h := t.subsystems[r.Subsystem].hierarchy
	if h == t.def {
		return fail(syscall.ENODEV)
	}
	t.host.Drain()
	info, err := t.host.Task(pid)
	if err != nil {
		return fail(err)
	}
	var parent *Container
	t.View(func() {
		if p := r.Process; t.procs[pid] == p && t.tasks[pid] != nil && t.tasks[pid].Is(info) {
			parent = t.tasks[pid].group.container(h)
			if r.Allow != nil {
				err = r.Allow(parent)
			}
		}
	})
	if parent == nil {
		err = syscall.ESRCH
	}
	if err != nil {
		return fail(err)
	}
	name := "node_" + strconv.Itoa(int(pid))
	if parent.children.get(name) != nil {
		name += "_" + strconv.FormatUint(info.Start, 10)
	}
	mkdir := MkdirRequest{Actor: r.Actor, Parent: parent, Name: name, ForTasks: true}
	if t.cloneData != nil {
		mkdir.Data = func() any { return t.cloneData(parent) }
	}
	c, err := t.mkdir(mkdir)
	if err != nil {
		return fail(err)
	}
	if err := t.attach(AttachRequest{Actor: r.Actor, To: c, ID: pid, Process: true}, nil); err != nil {
		if err := t.rmdir(c, nil); err != nil {
			t.log.Error("a container that was made for a process is left over", "container", c.Path(), "err", err)
		}
		return fail(err)
	}
	return c, nil
}

// postClone prepares the states of a container that nobody sees yet.
func postClone(c *Container) error {
	for _, b := range c.h.bound {
		if b.postClone != nil {
			if err := b.postClone.PostClone(c); err != nil {
				return err
			}
		}
	}
	return nil
}
