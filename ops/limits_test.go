package ops

import (
	"fmt"
	"testing"

	"github.com/hugelgupf/p9/linux"

	"containerfs/tree"
)

func TestLimitsOfASubtree(t *testing.T) {
	w, k := aWorld(t)
	k.want("m/a/max.descendants", "max\n")
	k.want("m/a/max.depth", "max\n")
	k.must(k.write("m/a/max.descendants", "3"))
	k.must(k.write("m/a/max.depth", "2\n"))
	k.want("m/a/max.descendants", "3\n")
	k.must(k.mkdir("m/a/b"))
	k.must(k.mkdir("m/a/b/c"))
	w.refused(linux.EAGAIN, "too deep", func() error { return k.mkdir("m/a/b/c/d") })
	k.must(k.mkdir("m/a/x"))
	w.refused(linux.EAGAIN, "too many", func() error { return k.mkdir("m/a/y") })
	w.refused(linux.EAGAIN, "too many below", func() error { return k.mkdir("m/a/x/y") })
	w.refused(linux.EEXIST, "existing comes first", func() error { return k.mkdir("m/a/x") })
	k.must(k.mkdir("m/elsewhere"))

	k.must(k.write("m/a/max.descendants", "0")) // below what exists
	w.refused(linux.EAGAIN, "over a lowered limit", func() error { return k.mkdir("m/a/y") })
	k.must(k.rmdir("m/a/x"))
	w.refused(linux.EAGAIN, "still over", func() error { return k.mkdir("m/a/y") })
	k.must(k.write("m/a/max.descendants", "max"))
	k.must(k.mkdir("m/a/y"))
	k.must(k.write("m/a/max.depth", "0"))
	w.refused(linux.EAGAIN, "no level", func() error { return k.mkdir("m/a/z") })
	w.refused(linux.EAGAIN, "no level below", func() error { return k.mkdir("m/a/y/z") })
	k.must(k.write("m/a/max.depth", "max\n"))
	k.must(k.write("m/a/b/max.depth", "1"))
	w.refused(linux.EAGAIN, "the nearer limit", func() error { return k.mkdir("m/a/b/c/d") })
	for data, want := range map[string]linux.Errno{
		"": linux.EINVAL, "\n": linux.EINVAL, "-1": linux.EINVAL, "Max": linux.EINVAL, "max ": linux.EINVAL, "max\n\n": linux.EINVAL,
		"2147483648": linux.ERANGE, "18446744073709551616": linux.ERANGE,
	} {
		for _, file := range []string{"m/a/max.depth", "m/a/max.descendants"} {
			w.refused(want, fmt.Sprintf("%q to %s", data, file), func() error { return k.write(file, data) })
		}
	}
}

func TestLimitOfTheWhole(t *testing.T) {
	w, k := aWorld(t, func(_ *Config, c *tree.Config) { c.MaxContainers = 4 })
	k.must(k.mkdir("m/b"))
	k.must(k.mkdir("m/c"))
	w.refused(linux.EAGAIN, "one too many", func() error { return k.mkdir("m/d") })
	k.must(k.rmdir("m/a"))
	k.must(k.mkdir("m/d"))
}

func TestWhatOneUserMayOwn(t *testing.T) {
	w, k := aWorld(t, func(c *Config, _ *tree.Config) { c.MaxContainersPerUser = 2 })
	k.must(k.chmod("m/a", 0o777))
	al, bo := w.as(alice), w.as(bob)
	al.must(al.mkdir("m/a/1"))
	al.must(al.mkdir("m/a/2"))
	w.refused(linux.EAGAIN, "one too many", func() error { return al.mkdir("m/a/3") })
	w.refused(linux.EEXIST, "existing comes first", func() error { return al.mkdir("m/a/2") })
	w.refused(linux.EACCES, "permission comes first", func() error { return al.mkdir("m/3") })
	bo.must(bo.mkdir("m/a/3"))
	for i := range 5 {
		k.must(k.mkdir(fmt.Sprintf("m/a/root%d", i))) // the privileged own what they like
	}
	// By chown one owns more, or less.
	k.must(k.chown("m/a/2", 2000, 200))
	al.must(al.mkdir("m/a/4"))
	w.refused(linux.EAGAIN, "with what was given", func() error { return bo.mkdir("m/a/5") })
	k.must(k.chown("m/a/root0", 1000, 100))
	al.must(al.rmdir("m/a/1"))
	w.refused(linux.EAGAIN, "as many as before", func() error { return al.mkdir("m/a/5") })
	al.must(al.rmdir("m/a/4"))
	al.must(al.mkdir("m/a/5"))
	k.must(k.chown("m", 1000, 100)) // a root of a hierarchy does not count
	al.must(al.rmdir("m/a/5"))
	al.must(al.mkdir("m/a/5"))

	// The limit can change while there are more.
	w.fs.SetMaxContainersPerUser(1)
	al.must(al.rmdir("m/a/5"))
	w.refused(linux.EAGAIN, "over a lowered limit", func() error { return al.mkdir("m/a/5") })
	w.fs.SetMaxContainersPerUser(0)
	al.must(al.mkdir("m/a/5"))
}
