package ops

import (
	"bytes"
	"fmt"
	"math"
	"syscall"

	"containerfs/tree"
)

// Limits on containers (SPEC §3): max.descendants and max.depth of a subtree, and
// what one user may own.

func appendLimit(b []byte, v int) []byte {
	if v == tree.NoLimit {
		return append(b, "max\n"...)
	}
	return appendNumber(b, uint64(v))
}

func parseLimit(data []byte) (int, error) {
	if bytes.Equal(bytes.TrimSuffix(data, []byte("\n")), []byte("max")) {
		return tree.NoLimit, nil
	}
	v, err := tree.ParseNumber(data, math.MaxInt32)
	return int(v), err
}

func readMaxDescendants(c *tree.Container, b []byte) ([]byte, error) {
	return appendLimit(b, c.Limits().Descendants), nil
}

func readMaxDepth(c *tree.Container, b []byte) ([]byte, error) {
	return appendLimit(b, c.Limits().Depth), nil
}

func writeMaxDescendants(at *attachment, c *tree.Container, data []byte) error {
	return at.setLimit(c, data, func(l *tree.Limits, v int) { l.Descendants = v })
}

func writeMaxDepth(at *attachment, c *tree.Container, data []byte) error {
	return at.setLimit(c, data, func(l *tree.Limits, v int) { l.Depth = v })
}

func (at *attachment) setLimit(c *tree.Container, data []byte, set func(*tree.Limits, int)) error {
	v, err := parseLimit(data)
	if err != nil {
		return err
	}
	return at.set(c, true, func() {
		l := c.Limits()
		set(&l, v)
		c.SetLimits(l)
	})
}

// set changes a setting of a container; without wait see tree.ErrWouldWait.
func (at *attachment) set(c *tree.Container, wait bool, f func()) error {
	if !wait && at.fs.journal != nil {
		return tree.ErrWouldWait // until it is kept
	}
	return at.fs.tree.ChangeBriefly(wait, func() error {
		if c.Removed() {
			return syscall.ENODEV
		}
		at.fs.tree.Update(func() {
			f()
			at.fs.tree.Keep(c)
		})
		return nil
	})
}

// SetMaxContainersPerUser changes Config.MaxContainersPerUser.
func (fs *FS) SetMaxContainersPerUser(n int) {
	fs.tree.Change(func() error { fs.maxPerUser = n; return nil })
}

// mayOwnMore is EAGAIN when an unprivileged user owns as many containers as one
// may. Inside a change.
func (at *attachment) mayOwnMore() error {
	limit := at.fs.maxPerUser
	if limit > 0 && !at.privileged() && at.fs.recorder.owned[at.caller.UID] >= limit {
		return fmt.Errorf("uid %d has %d containers, as many as one may (--max-containers-per-user): %w", at.caller.UID, limit, syscall.EAGAIN)
	}
	return nil
}
