package ops

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"

	"containerfs/tree"
)

// move moves the task, or as r says the process, whose number a client has written,
// into one container or into several of different hierarchies at once (SPEC §5).
func (at *attachment) move(r tree.AttachRequest, number []byte, to ...*tree.Container) error {
	id, err := tree.ParseNumber(number, 1<<31-1)
	if err != nil && bytes.ContainsAny(bytes.TrimSuffix(number, []byte("\n")), " ,\n") {
		err = fmt.Errorf("one number a write: %w", err)
	}
	if err != nil {
		return err
	}
	if id == 0 {
		return fmt.Errorf("0 is nobody here, as the writer is not on this host: %w", syscall.EINVAL)
	}
	r.Actor, r.To, r.Also, r.ID = &at.actor, to[0], to[1:], int32(id)
	type stay struct {
		tid int32
		h   *tree.Hierarchy
	}
	var stays []stay // those that are there already: nothing else tells of these
	r.Allow = func(task tree.TaskInfo, from, to *tree.Container) error {
		if from == to {
			stays = append(stays, stay{task.TID, to.Hierarchy()})
		}
		return at.mayMove(task, from)
	}
	r.Done = func() {
		for _, s := range stays {
			at.fs.recorder.byHand(at.fs.tree, s.tid, s.h)
		}
	}
	if r.NoWait {
		err = at.fs.tree.Attach(r)
	} else {
		err = at.inTurn(func() error { return at.fs.tree.Attach(r) })
	}
	if j := at.fs.journal; err == nil && j != nil && j.lists {
		err = j.Await(j.SaveTasks(), false)
	}
	return err
}

var (
	errProtected = fmt.Errorf("init, the server and its ancestors are moved by root and the server's user alone, on a unix socket: %w", syscall.EACCES)
	errNotOwner  = fmt.Errorf("only root, the server's user and the task's own may: %w", syscall.EACCES)
	errFrom      = fmt.Errorf("a network caller needs write permission on the tasks file that the task leaves: %w", syscall.EACCES)
)

// ofTask is an error with the task that it is about.
func ofTask(tid int32, err error) error { return fmt.Errorf("task %d: %w", tid, err) }

// mayMove decides whether the caller may move a task (SPEC §5.4, §17). Inside a
// change.
func (at *attachment) mayMove(task tree.TaskInfo, from *tree.Container) error {
	if at.fs.isProtected(task.TGID) && !(at.privileged() && at.caller.Local) {
		return ofTask(task.TID, errProtected)
	}
	if at.privileged() {
		return nil
	}
	ruid, suid, err := at.fs.host.Owner(task.TID)
	if err != nil {
		return err
	}
	if at.caller.UID != ruid && at.caller.UID != suid {
		return ofTask(task.TID, errNotOwner)
	}
	if !at.caller.Local {
		if at.allowed(attrsOf(from).file(&coreRows[0]).perm, mayWrite) != nil {
			return ofTask(task.TID, errFrom)
		}
	}
	return nil
}

// maxPaths bounds how many containers one attach names.
const maxPaths = 64

// attachPaths is the command of ctl that moves into containers of several hierarchies
// at once: `attach tasks|procs ID`, and a line with the path of each container. It is
// for everybody who may write to these files.
func (at *attachment) attachPaths(command string) error {
	lines := strings.Split(command, "\n")
	words, paths := strings.Split(lines[0], " "), lines[1:]
	if len(words) != 3 || words[1] != "tasks" && words[1] != "procs" || len(paths) == 0 || len(paths) > maxPaths {
		return fmt.Errorf("it is `attach tasks|procs ID`, and 1 to %d lines with a path each: %w", maxPaths, syscall.EINVAL)
	}
	var to []*tree.Container
	for _, path := range paths {
		f, err := at.writable(path, words[1])
		if err != nil {
			return fmt.Errorf("%s: %w", clip(path, 256), err)
		}
		defer f.Close()
		to = append(to, f.n.(controlFile).c)
	}
	return at.move(tree.AttachRequest{Process: words[1] == "procs"}, []byte(words[2]), to...)
}

// writable finds a container's control file as a client would that opens it to write.
func (at *attachment) writable(path, name string) (f *file, err error) {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if !strings.HasPrefix(path, "/") || len(names) == 0 {
		return nil, fmt.Errorf("%q is no container's path: %w", clip(path, 64), syscall.EINVAL)
	}
	at.fs.tree.View(func() {
		var n node
		var p perm
		if _, n, err = at.walk(at.root, append(names, name)); err != nil {
			return
		}
		if _, ok := n.(controlFile); !ok {
			err = fmt.Errorf("%q is no container: %w", clip(path, 64), syscall.EINVAL)
			return
		}
		if p, _, err = n.attr(at.fs); err == nil {
			err = at.allowed(p, mayWrite)
		}
		if err == nil {
			f = at.open(n)
		}
	})
	return f, err
}
