package cpuset

import (
	"syscall"
	"testing"

	"containerfs/tree"
)

func (f *fixture) clone(tid int32) (*tree.Container, error) {
	var p *tree.Process
	f.Drain()
	f.View(func() { p = f.Task(tid).Process() })
	return f.Clone(tree.CloneRequest{Process: p})
}

func TestPostClone(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.made("a", "1-2", "1")
		p := f.fork(1)
		f.ok(f.attach(p, "a"))
		c, err := f.clone(p)
		f.ok(err)
		path := c.Path()[1:]
		if got := f.read(path, "cpus") + f.read(path, "mems"); got != "1-2\n1\n" {
			t.Errorf("cloned with %q", got)
		}
		f.in(p, path)
		f.mask(p, "1-2")
		// What is changed in one is not in the other.
		f.set(path, "cpus", "1")
		if got := f.read("a", "cpus"); got != "1-2\n" {
			t.Errorf("the parent has %q", got)
		}
		// In the root there is all that is online.
		q := f.fork(1)
		c, err = f.clone(q)
		f.ok(err)
		if got := f.read(c.Path()[1:], "cpus"); got != "0-3\n" {
			t.Errorf("cloned with %q", got)
		}
		f.ok(f.attach(q, ""))
		f.ok(f.Rmdir(c, nil))
		// Who has CPUs for itself does not share them with a clone.
		f.set("a", "cpu_exclusive", "1")
		_, err = f.clone(q)
		f.errno(err, syscall.EINVAL)
		f.in(q, "")
	})
}
