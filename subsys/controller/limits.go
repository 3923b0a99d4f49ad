package controller

import (
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// Limits has limits of subsystems of ours be the kernel's own, in containers of the
// hierarchy that the kernel's controller is bound to as well. Where two of them limit
// the same, the lesser limit holds.
type Limits struct {
	pids, memory *Subsystem // nil without

	// asks are what each that limits tasks allows a container, -1 for no limit: see Ask.
	asks [2]func(c *tree.Container) int64

	mu sync.Mutex // guards node.tasks, and is held over writes of pids.max
}

// Who limits tasks, in node.tasks.
const (
	numtasks = iota
	bc
)

// taskLimit is what one of them allows a container.
type taskLimit struct {
	known bool
	n     int64 // -1 for no limit
}

// NewLimits is for the controllers that were opened.
func NewLimits(subs []*Subsystem) *Limits {
	l := new(Limits)
	for _, s := range subs {
		switch s.name {
		case "pids":
			l.pids, s.limits = s, l
		case "memory":
			l.memory = s
		}
	}
	return l
}

// LimitsTasks reports whether there is a controller that limits tasks.
func (l *Limits) LimitsTasks() bool { return l.pids != nil }

// LimitsMemory reports whether there is one that limits memory.
func (l *Limits) LimitsMemory() bool { return l.memory != nil }

// Ask has those that limit tasks be asked what they allow a container, -1 for no limit, where
// they have not said it: an earlier server was told, or it was taken back. With View.
func (l *Limits) Ask(ofNumtasks, ofBC func(c *tree.Container) int64) {
	l.asks = [2]func(*tree.Container) int64{numtasks: ofNumtasks, bc: ofBC}
}

// forget has those that limit tasks be asked again for a container of which something was
// taken back.
func (l *Limits) forget(n *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n.tasks = [2]taskLimit{}
}

// ForNumtasks is a numtasks.Limiter.
func (l *Limits) ForNumtasks() Tasks { return Tasks{l} }

// ForBC is a bc.Limiter.
func (l *Limits) ForBC() Counters { return Counters{l} }

// limitTasks notes a limit on tasks, -1 for none, and writes the lesser of all.
func (l *Limits) limitTasks(c *tree.Container, who int, n int64) (ok bool, err error) {
	if l.pids == nil {
		return false, nil
	}
	node, err := l.pids.find(c)
	if err != nil {
		return false, nil // it is bound elsewhere
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	was := node.tasks
	node.tasks[who] = taskLimit{true, n}
	value := "max"
	least := int64(1 << 22) // the kernel's most
	for i := range node.tasks {
		of := &node.tasks[i]
		if !of.known && l.asks[i] != nil {
			l.pids.t.tree.View(func() { *of = taskLimit{true, l.asks[i](c)} })
		}
		if of.known && of.n >= 0 && of.n < least {
			least = of.n
			value = strconv.FormatInt(least, 10)
		}
	}
	dir, err := node.open()
	if err == nil {
		node.noteBefore("pids.max", dir)
		if err = dir.Command("pids.max", []byte(value)); err == nil {
			node.remember("pids.max", dir)
		}
		dir.Close()
	}
	if err != nil {
		node.tasks = was
	}
	return true, gone(err)
}

// Tasks has forks over a limit of numtasks refused.
type Tasks struct{ l *Limits }

// Limit is numtasks.Limiter's.
func (t Tasks) Limit(c *tree.Container, n int64) (ok bool, err error) {
	return t.l.limitTasks(c, numtasks, max(n, -1))
}

// Refused is how many forks were refused in a container's kernel directory, and the kernel's number
// for that, which no other one has while the host is booted. Where pids is not bound to the
// hierarchy it is not ok.
func (t Tasks) Refused(c *tree.Container) (n, directory uint64, ok bool, err error) {
	if t.l.pids == nil {
		return 0, 0, false, nil
	}
	node, err := t.l.pids.find(c)
	if err != nil {
		return 0, 0, false, nil
	}
	// Where the kernel counts where the fork was that can be the leaf in version 2.
	for i, at := range slices.Compact([]string{node.path(), node.place()}) {
		dir, err := node.t.openBelow(at)
		if err != nil {
			return 0, 0, false, gone(err)
		}
		more, err := refused(dir)
		if err == nil && i == 0 {
			directory, err = dir.ID()
		}
		dir.Close()
		if err != nil {
			return 0, 0, false, gone(err)
		}
		n += more
	}
	return n, directory, true, nil
}

// refused is what the kernel has refused in a directory: by its limit in version 2 since Linux
// 6.11, where pids.events has what is below as well, else of forks that were made in it.
func refused(dir *kernfs.Dir) (uint64, error) {
	text, err := dir.Read("pids.events.local", nil)
	if errors.Is(err, syscall.ENOENT) {
		text, err = dir.Read("pids.events", nil)
	}
	if errors.Is(err, syscall.ENOENT) {
		return 0, nil // the controller is not handed down to it
	} else if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if max, ok := strings.CutPrefix(strings.TrimSpace(line), "max "); ok {
			return strconv.ParseUint(max, 10, 64)
		}
	}
	return 0, syscall.EIO
}

// Counters has the limits of bc be the kernel's.
type Counters struct{ l *Limits }

// Limit is bc.Limiter's.
func (k Counters) Limit(c *tree.Container, resource string, n int64) (ok bool, err error) {
	switch resource {
	case "numproc":
		return k.l.limitTasks(c, bc, max(n, -1))
	case "physpages":
		return k.l.limitPages(c, n)
	}
	return false, nil
}

func (l *Limits) limitPages(c *tree.Container, n int64) (ok bool, err error) {
	if l.memory == nil {
		return false, nil
	}
	node, err := l.memory.find(c)
	if err != nil {
		return false, nil
	}
	file, value := "memory.limit_in_bytes", "-1"
	if l.memory.t.version == 2 {
		file, value = "memory.max", "max"
	}
	if page := int64(os.Getpagesize()); n >= 0 && n <= math.MaxInt64/page {
		value = strconv.FormatInt(n*page, 10)
	}
	dir, err := node.open()
	if err != nil {
		return true, gone(err)
	}
	defer dir.Close()
	node.noteBefore(file, dir)
	if err := dir.Command(file, []byte(value)); err != nil {
		return true, gone(err)
	}
	node.remember(file, dir)
	return true, nil
}
