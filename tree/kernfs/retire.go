package kernfs

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Retire takes a whole named hierarchy down and closes its root: all tasks go
// back to the root directory, the directories are removed, and it is waited
// for until the kernel has really let go of them and of the hierarchy. Without
// that wait the hierarchy, empty, would stay until the host's end, because the
// kernel keeps one that has directories when its last user closes it, and a
// directory is there for a while after its rmdir.
//
// Somebody else who has the hierarchy open keeps it alive: that ends as
// EBUSY, with the directories removed. root is closed in any case.
func Retire(root *Dir, limit time.Duration) error {
	end := time.Now().Add(limit)
	pause := time.Millisecond
	wait := func() bool {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
		return true
	}
	// Tasks that are forked meanwhile appear in the directories again, and a
	// task that is exiting holds its directory until it is gone.
	for {
		err := empty(root, ".", "tasks", func(id int32) error { return root.Move(".", id, false) })
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || !wait() {
			root.Close()
			return err
		}
	}
	for {
		name := root.path
		if err := root.Close(); err != nil {
			return err
		}
		// The last close starts the kernel's work; look a few times before
		// concluding that a directory kept it.
		for range 4 {
			names, err := Names()
			if err != nil {
				return err
			}
			if !slices.Contains(names, name) {
				return nil
			}
			if !wait() {
				return &OpError{"retire", name, unix.EBUSY}
			}
		}
		again, err := OpenNamed(name)
		if err != nil {
			return err
		}
		root = again
	}
}

// Clear removes a directory that is directly in d, with all that is below. The
// tasks there, which list names ("tasks", or "cgroup.procs" in version 2), are
// given to out, which moves them away. EBUSY while some stay.
func (d *Dir) Clear(name, list string, out func(id int32) error) error {
	if !component(name) {
		return d.fail("rmdir", name, unix.EINVAL)
	}
	return empty(d, name, list, out)
}

// empty moves all tasks below dir away and removes what is below dir. Names
// of directories that others made may be anything: each is opened by itself.
func empty(dir *Dir, name, list string, out func(id int32) error) error {
	sub := dir
	if name != "." {
		var err error
		if sub, err = dir.Open(name); err != nil {
			if IsGone(err) {
				return nil
			}
			return err
		}
		defer sub.Close()
	}
	names, err := sub.Dirs()
	if err != nil {
		return err
	}
	var busy error
	for _, below := range names {
		if err := empty(sub, below, list, out); errors.Is(err, unix.EBUSY) {
			busy = err
		} else if err != nil {
			return err
		}
	}
	if busy != nil || name == "." {
		return busy
	}
	ids, err := sub.IDs(list)
	if err != nil && !IsGone(err) {
		return err
	}
	for _, id := range ids {
		// A kernel thread may have become one that is not moved. What stays is
		// seen by Remove.
		err := out(id)
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	if err := dir.Remove(name); err != nil && !IsGone(err) {
		return err
	}
	return nil
}
