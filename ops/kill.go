package ops

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"containerfs/tree"
)

// killLimit is how long kill goes after a container before it gives up: what is
// left then does not die, because it hangs in the kernel or is of the kernel.
const killLimit = 10 * time.Second

// writeKill kills every process with a task in the container or below, and those
// that are born meanwhile, until none is left (SPEC §3). Who asks needs the
// permission to move each of them, or none is killed. EAGAIN when some are left.
func writeKill(at *attachment, c *tree.Container, data []byte) error {
	if string(data) != "1" && string(data) != "1\n" {
		return syscall.EINVAL
	}
	deadline := time.Now().Add(killLimit)
	for round := 0; ; round++ {
		at.fs.tree.Drain()
		tids, err := at.fs.below(c)
		if err != nil {
			return err
		}
		if tids = at.fs.alive(tids); len(tids) == 0 {
			return nil
		}
		if err := at.mayKill(c, tids); err != nil {
			return err
		}
		for _, tid := range tids {
			err := at.fs.kill(tid)
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		if time.Now().After(deadline) {
			at.fs.log.Warn("kill leaves processes behind", "tasks", len(tids))
			return syscall.EAGAIN
		}
		if round > 0 {
			time.Sleep(time.Millisecond) // they need the processor to die
		}
	}
}

// below are the tids of one thread of each process in the container or below.
func (fs *FS) below(c *tree.Container) (tids []int32, err error) {
	fs.tree.View(func() {
		if c.Removed() {
			err = syscall.ENODEV
			return
		}
		seen := make(map[*tree.Process]bool)
		each := func(task *tree.Task) {
			if !seen[task.Process()] {
				seen[task.Process()] = true
				tids = append(tids, task.TID())
			}
		}
		var walk func(*tree.Container) bool
		walk = func(c *tree.Container) bool {
			c.EachTask(each)
			c.Children(0, walk)
			return true
		}
		walk(c)
	})
	return tids, err
}

// alive are those of the tasks that the host still shows: an exit is told to the
// model a little later than to the parent.
func (fs *FS) alive(tids []int32) []int32 {
	return slices.DeleteFunc(tids, func(tid int32) bool {
		_, err := fs.host.Task(tid)
		return errors.Is(err, syscall.ESRCH)
	})
}

// mayKill decides whether the caller may kill all of the tasks. Protected
// processes are killed by nobody.
func (at *attachment) mayKill(c *tree.Container, tids []int32) error {
	return at.fs.tree.Change(func() error {
		for _, tid := range tids {
			info, err := at.fs.host.Task(tid)
			if err != nil {
				continue // gone
			}
			if at.fs.protected[info.TGID] {
				return denied(errProtected)
			}
			from := c
			at.fs.tree.View(func() {
				if task := at.fs.tree.Task(tid); task != nil {
					from = task.Container(c.Hierarchy())
				}
			})
			if err := at.mayMove(info, from); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		return nil
	})
}

// kill kills the process of a task by a descriptor, so that a number that is
// used again is not hit.
func (fs *FS) kill(tid int32) error {
	info, err := fs.host.Task(tid)
	if err != nil || info.Kernel {
		return err
	}
	return fs.signal(info, syscall.SIGKILL)
}
