package numtasks

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"containerfs/tree"
)

// killer kills the processes of tasks, for the backlog of victims.
type killer struct {
	host Host
	tree *tree.Tree
	log  *slog.Logger

	said time.Time // only the backlog's goroutine uses it
}

func (k *killer) work(victim *tree.Task) {
	err := k.kill(victim)
	if err != nil && !errors.Is(err, syscall.ESRCH) && time.Since(k.said) > time.Second {
		k.said = time.Now()
		k.log.Warn("a task over the limit was not killed", "tid", victim.TID(), "err", err)
	}
}

func (k *killer) missed(n int) {
	k.log.Warn("tasks over the limit were not killed: too many at once", "tasks", n)
}

// kill kills the process of a task that lives, and of no other that has its number
// since.
func (k *killer) kill(victim *tree.Task) error {
	info, err := k.host.Task(victim.TID())
	if err != nil || info.Kernel {
		return err
	}
	same := false
	k.tree.View(func() { same = victim.Is(info) })
	if !same {
		return syscall.ESRCH
	}
	return k.host.Signal(info, syscall.SIGKILL)
}
