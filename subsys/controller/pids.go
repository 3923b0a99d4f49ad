package controller

import (
	"errors"
	"strconv"
	"strings"
	"syscall"

	"containerfs/tree"
)

// Pids has the limits of numtasks be the kernel's own, in containers of the
// hierarchy that pids is bound to.
type Pids struct{ s *Subsystem }

// AsPids is the pids controller as numtasks knows it.
func AsPids(s *Subsystem) Pids { return Pids{s} }

// Limit is numtasks.Limiter's.
func (p Pids) Limit(c *tree.Container, n int64) (ok bool, err error) {
	if !p.s.Binds(c) {
		return false, nil
	}
	value := "max"
	if n >= 0 && n < 1<<22 { // the kernel's most
		value = strconv.FormatInt(n, 10)
	}
	return true, p.s.Set(c, "pids.max", value)
}

// Refused is numtasks.Limiter's. A container that somebody has taken the controller
// away from has refused nothing.
func (p Pids) Refused(c *tree.Container) (n uint64, ok bool, err error) {
	node, err := p.s.find(c)
	if err != nil {
		return 0, false, nil
	}
	// The kernel counts where the fork was, which in version 2 can be the leaf.
	for _, at := range []string{node.path(), node.place()} {
		dir, err := p.s.t.openBelow(at)
		if err != nil {
			return 0, false, gone(err)
		}
		text, err := dir.Read("pids.events", nil)
		dir.Close()
		if errors.Is(err, syscall.ENOENT) {
			continue
		} else if err != nil {
			return 0, false, gone(err)
		}
		for line := range strings.Lines(string(text)) {
			if max, found := strings.CutPrefix(strings.TrimSpace(line), "max "); found {
				more, err := strconv.ParseUint(max, 10, 64)
				if err != nil {
					return 0, false, syscall.EIO
				}
				n += more
			}
		}
		if node.path() == node.place() {
			break
		}
	}
	return n, true, nil
}
