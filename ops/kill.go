package ops

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"containerfs/tree"
)

// killLimit is how long kill goes after a container before it gives up: what is
// left then does not die, because it hangs in the kernel. Tests shorten it.
var killLimit = 30 * time.Second

// writeKill kills every process with a task in the container or below, and those
// that are born meanwhile, until none is left (SPEC §3). Who asks needs the
// permission to move each of them, or none is killed. EAGAIN when some are left.
func writeKill(at *attachment, c *tree.Container, data []byte) error {
	if string(data) != "1" && string(data) != "1\n" {
		return fmt.Errorf("the only command is 1: %w", syscall.EINVAL)
	}
	var err error
	at.fs.urgently(func() { err = at.kill(c) })
	return err
}

// kill goes after a container until it is empty.
func (at *attachment) kill(c *tree.Container) error {
	deadline := time.Now().Add(killLimit)
	h := newHunt()
	defer at.fs.resume(h)
	for round := 0; ; round++ {
		left := 0
		err := at.inTurn(func() error {
			return at.fs.tree.Change(func() (err error) {
				if left = 0; round > 0 && c.Removed() {
					return nil // by who found it empty
				}
				left, err = at.killOnce(c, h, round%maxStops == 0)
				return err
			})
		})
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(deadline) {
			at.fs.log.Warn("kill leaves processes behind", "tasks", left)
			return fmt.Errorf("%d threads are left: %w", left, syscall.EAGAIN)
		}
		if round > 0 {
			time.Sleep(time.Millisecond) // they need the processor to die
		}
	}
}

// hunt is what a kill knows of those that it is after.
type hunt struct {
	dead    map[tree.Entry]time.Time // when they were seen to be gone
	known   map[tree.Entry]bool      // that have had a signal
	killed  map[tree.Entry]time.Time // when they had the first that ends them
	stopped []tree.TaskInfo          // and were not killed since
}

func newHunt() *hunt {
	return &hunt{dead: make(map[tree.Entry]time.Time), known: make(map[tree.Entry]bool), killed: make(map[tree.Entry]time.Time)}
}

// maxStops is how often newcomers are stopped in a row before all are killed.
const maxStops = 64

// resume lets those go on that were stopped and not killed.
func (fs *FS) resume(h *hunt) {
	for _, info := range h.stopped {
		fs.signal(info, syscall.SIGCONT)
	}
}

// victim is a task that is to be killed.
type victim struct {
	tree.Entry
	in   *tree.Container
	info tree.TaskInfo
}

// killOnce kills the processes that there are now and returns how many tasks it
// found. Who was seen to be gone counts until the model is told, or that is overdue: the
// events of its last children may have been on their way, and nobody is to find it in
// the container when the kill is over. Inside a change, so that nothing is moved meanwhile.
func (at *attachment) killOnce(c *tree.Container, h *hunt, now bool) (left int, err error) {
	if c.Removed() {
		return 0, syscall.ENODEV
	}
	at.fs.tree.Drain()
	var alive []victim
	for _, v := range at.fs.below(c) {
		left++
		if since, gone := h.dead[v.Entry]; gone {
			if time.Since(since) <= tree.ExitDue {
				continue
			}
			if removed := at.fs.tree.RemoveGone(v.Entry); removed > 0 {
				left -= removed
				continue
			}
			delete(h.dead, v.Entry) // its number is shown again, by an exec
		}
		v.info, err = at.fs.host.Task(v.TID)
		switch {
		case errors.Is(err, syscall.ESRCH) || (err == nil && !at.fs.tree.Is(v.Entry, v.info)):
			h.dead[v.Entry] = time.Now()
		case err != nil:
			return 0, err
		case v.info.Kernel:
			left-- // is no process
		default:
			alive = append(alive, v)
		}
	}
	alive = at.stillThere(alive, h)
	for _, v := range alive {
		if err := at.mayKill(v); err != nil {
			return 0, err
		}
	}
	return left, at.signalAll(alive, h, now)
}

// stillThere leaves out who was killed, and is on its way out for longer than a busy host takes:
// it is as good as gone, though the host shows it.
func (at *attachment) stillThere(alive []victim, h *hunt) []victim {
	var overdue []tree.Entry
	for _, v := range alive {
		if at, ok := h.killed[v.Entry]; ok && time.Since(at) > tree.ExitDue {
			overdue = append(overdue, v.Entry)
		}
	}
	if len(overdue) == 0 {
		return alive
	}
	for _, e := range at.fs.tree.Exiting(overdue) {
		h.dead[e] = time.Now()
	}
	return slices.DeleteFunc(alive, func(v victim) bool { _, gone := h.dead[v.Entry]; return gone })
}

// signalAll kills processes, unless some of them were born since the last round:
// a fork bomb has as many again by the time that the last one is killed. These
// are stopped first, which leaves nobody else their places, until nobody is
// born any more; or all are killed now.
func (at *attachment) signalAll(alive []victim, h *hunt, now bool) error {
	var fresh []victim
	for _, v := range alive {
		if !h.known[v.Entry] {
			h.known[v.Entry] = true
			fresh = append(fresh, v)
		}
	}
	sig, targets := syscall.SIGKILL, alive
	if len(fresh) > 0 && !now {
		sig, targets = syscall.SIGSTOP, fresh
	}
	done := make(map[int32]bool)
	for _, v := range targets {
		if _, had := h.killed[v.Entry]; !had && sig == syscall.SIGKILL {
			h.killed[v.Entry] = time.Now()
		}
		if done[v.info.TGID] {
			continue
		}
		done[v.info.TGID] = true
		if err := at.fs.signal(v.info, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		if sig == syscall.SIGSTOP {
			h.stopped = append(h.stopped, v.info)
		}
	}
	if sig == syscall.SIGKILL { // but not who was moved away
		h.stopped = slices.DeleteFunc(h.stopped, func(info tree.TaskInfo) bool { return done[info.TGID] })
	}
	return nil
}

// below are the tasks in the container or below.
func (fs *FS) below(c *tree.Container) (victims []victim) {
	fs.tree.View(func() {
		add := func(c *tree.Container) bool {
			c.EachTask(func(task *tree.Task) {
				victims = append(victims, victim{Entry: task.Entry(), in: c})
			})
			return true
		}
		add(c)
		c.EachBelow(add)
	})
	return victims
}

var errKeepsAlive = fmt.Errorf("init, the server and its ancestors are not killed, and nothing beside them: %w", syscall.EACCES)

// mayKill decides whether the caller may kill a task's process. Protected ones are
// killed by nobody.
func (at *attachment) mayKill(v victim) error {
	if at.fs.isProtected(v.info.TGID) {
		return ofTask(v.TID, errKeepsAlive)
	}
	if err := at.mayMove(v.info, v.in); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// mayKillAll decides whether the caller may have the kernel kill all that is in a container
// and below. What a root itself has, the kernel has elsewhere.
func (at *attachment) mayKillAll(c *tree.Container) error {
	return at.inTurn(func() error {
		return at.fs.tree.Change(func() error {
			at.fs.tree.Drain()
			for _, v := range at.fs.below(c) {
				if v.in.IsRoot() {
					continue
				}
				var err error
				v.info, err = at.fs.host.Task(v.TID)
				if err == nil && !v.info.Kernel && at.fs.tree.Is(v.Entry, v.info) {
					err = at.mayKill(v)
				}
				if err != nil && !errors.Is(err, syscall.ESRCH) {
					return err
				}
			}
			return nil
		})
	})
}
