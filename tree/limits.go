package tree

import (
	"fmt"
	"syscall"
)

// NoLimit is the value of a limit that is not set.
const NoLimit = -1

// Limits bound the subtree below a container (SPEC §3). Lowering one below what
// exists is allowed.
type Limits struct {
	Descendants int // containers below
	Depth       int // levels below
}

// Limits of the container. View or Change.
func (c *Container) Limits() Limits {
	if c.limits == nil {
		return Limits{NoLimit, NoLimit}
	}
	return *c.limits
}

// SetLimits sets them. Update.
func (c *Container) SetLimits(l Limits) {
	if c.limits = nil; l != (Limits{NoLimit, NoLimit}) {
		c.limits = &l
	}
}

// roomBelow is EAGAIN when a container more in p would be one too many for p, for
// an ancestor of p, or for the tree. Those that are made for tasks, which anybody has made by
// what he executes or unshares, leave a quarter to who asks for some. Under changeMu.
func (t *Tree) roomBelow(p *Container, forTasks bool) error {
	switch most := t.maxContainers; {
	case most > 0 && t.containers >= most:
		return fmt.Errorf("the server has as many containers as it may (--max-containers): %w", syscall.EAGAIN)
	case most > 0 && forTasks && t.containers >= most-most/4:
		return fmt.Errorf("the server has as many containers as are made for tasks (three quarters of --max-containers): %w", syscall.EAGAIN)
	}
	depth := 1
	for a := p; a != nil; a, depth = a.parent, depth+1 {
		l := a.limits
		if l == nil {
			continue
		}
		if l.Descendants != NoLimit && int(a.descendants) >= l.Descendants {
			return a.errLimit("max.descendants", l.Descendants)
		}
		if l.Depth != NoLimit && depth > l.Depth {
			return a.errLimit("max.depth", l.Depth)
		}
	}
	return nil
}

// errLimit is for a limit of c that is reached.
func (c *Container) errLimit(name string, limit int) error {
	return fmt.Errorf("%s/%s is %d: %w", c.ServedPath(), name, limit, syscall.EAGAIN)
}

// countLocked counts a container that was made (1) or removed (-1).
func (t *Tree) countLocked(c *Container, n int) {
	t.containers += n
	c.h.count += n
	for a := c.parent; a != nil; a = a.parent {
		a.descendants += int32(n)
	}
}
