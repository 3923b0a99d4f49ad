package ops

import (
	"errors"
	"syscall"
	"time"

	"containerfs/tree"
)

// killLimit is how long kill goes after a container before it gives up: what is
// left then does not die, because it hangs in the kernel. Tests shorten it.
var killLimit = 10 * time.Second

// writeKill kills every process with a task in the container or below, and those
// that are born meanwhile, until none is left (SPEC §3). Who asks needs the
// permission to move each of them, or none is killed. EAGAIN when some are left.
func writeKill(at *attachment, c *tree.Container, data []byte) error {
	if string(data) != "1" && string(data) != "1\n" {
		return syscall.EINVAL
	}
	deadline := time.Now().Add(killLimit)
	dead := make(map[member]bool)
	for round := 0; ; round++ {
		left := 0
		err := at.fs.tree.Change(func() (err error) {
			left, err = at.killOnce(c, dead)
			return err
		})
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(deadline) {
			at.fs.log.Warn("kill leaves processes behind", "tasks", left)
			return syscall.EAGAIN
		}
		if round > 0 {
			time.Sleep(time.Millisecond) // they need the processor to die
		}
	}
}

// member is a task under a number: an exec can give it another.
type member struct {
	task *tree.Task
	tid  int32
}

// victim is a task that is to be killed.
type victim struct {
	member
	in   *tree.Container
	info tree.TaskInfo
}

// killOnce kills the processes that there are now and returns how many tasks it
// found. Those in dead were seen to be gone, though the model has yet to be told:
// they do not count. Who has just been seen to be gone counts once more, since the
// events of its last children may have been on their way. Inside a change, so that
// nothing is moved meanwhile.
func (at *attachment) killOnce(c *tree.Container, dead map[member]bool) (left int, err error) {
	if c.Removed() {
		return 0, syscall.ENODEV
	}
	at.fs.tree.Drain()
	var alive []victim
	for _, v := range at.fs.below(c) {
		if dead[v.member] {
			continue
		}
		v.info, err = at.fs.host.Task(v.tid)
		switch {
		case errors.Is(err, syscall.ESRCH) || (err == nil && !at.fs.is(v)):
			dead[v.member] = true
		case err != nil:
			return 0, err
		case v.info.Kernel:
			continue // is no process
		default:
			alive = append(alive, v)
		}
		left++
	}
	for _, v := range alive {
		if err := at.mayKill(v); err != nil {
			return 0, err
		}
	}
	killed := make(map[int32]bool)
	for _, v := range alive {
		if killed[v.info.TGID] {
			continue
		}
		killed[v.info.TGID] = true
		if err := at.fs.signal(v.info, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
	}
	return left, nil
}

// below are the tasks in the container or below.
func (fs *FS) below(c *tree.Container) (victims []victim) {
	fs.tree.View(func() {
		var walk func(*tree.Container) bool
		walk = func(c *tree.Container) bool {
			c.EachTask(func(task *tree.Task) {
				victims = append(victims, victim{member: member{task, task.TID()}, in: c})
			})
			c.Children(0, walk)
			return true
		}
		walk(c)
	})
	return victims
}

// is reports whether the host still shows the task, and not another of its tid.
func (fs *FS) is(v victim) (same bool) {
	fs.tree.View(func() { same = v.task.Is(v.info) })
	return same
}

// mayKill decides whether the caller may kill a task's process. Protected ones are
// killed by nobody.
func (at *attachment) mayKill(v victim) error {
	if at.fs.protected[v.info.TGID] {
		return denied(errProtected)
	}
	if err := at.mayMove(v.info, v.in); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
