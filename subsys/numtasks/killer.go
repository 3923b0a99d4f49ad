package numtasks

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"containerfs/tree"
)

// maxVictims bounds the tasks that wait to be killed.
const maxVictims = 1 << 16

// killer kills the processes of tasks in a goroutine that lives as long as there
// is something to do. It is asked under the Tree's mu; its own is a leaf.
type killer struct {
	host Host
	tree *tree.Tree
	log  *slog.Logger

	mu      sync.Mutex
	victims []*tree.Task
	missed  int // since it was last said
	running bool
	closed  bool
	worker  sync.WaitGroup

	said time.Time // only the worker's
}

func (k *killer) add(victim *tree.Task) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return
	case len(k.victims) >= maxVictims:
		k.missed++
		return
	}
	k.victims = append(k.victims, victim)
	if !k.running {
		k.running = true
		k.worker.Go(k.work)
	}
}

func (k *killer) close() {
	k.mu.Lock()
	k.closed = true
	k.victims = nil
	k.mu.Unlock()
	k.worker.Wait()
}

func (k *killer) work() {
	for {
		victims, missed := k.take()
		if missed > 0 {
			k.log.Warn("tasks over the limit were not killed: too many at once", "tasks", missed)
		}
		if len(victims) == 0 {
			return
		}
		for _, v := range victims {
			err := k.kill(v)
			if err != nil && !errors.Is(err, syscall.ESRCH) && time.Since(k.said) > time.Second {
				k.said = time.Now()
				k.log.Warn("a task over the limit was not killed", "tid", v.TID(), "err", err)
			}
		}
	}
}

// take takes all that wait; without any the worker ends.
func (k *killer) take() (victims []*tree.Task, missed int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	victims, missed = k.victims, k.missed
	k.victims, k.missed = nil, 0
	k.running = len(victims) > 0
	return victims, missed
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
