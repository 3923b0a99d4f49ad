package tree_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree"
)

// state is the model as text, to see that nothing has changed.
func (f *fixture) state() string {
	f.Drain()
	var b strings.Builder
	var show func(c *tree.Container)
	f.View(func() {
		f.Hierarchies(func(h *tree.Hierarchy) bool {
			fmt.Fprintln(&b, h.Name(), h.Subsystems(), h.Published(), h.Containers())
			show = func(c *tree.Container) {
				fmt.Fprintln(&b, c.ID(), c.Path(), c.AppendTasks(nil), c.Refs(), c.Removed(), c.NotifyOnRelease())
				c.Children(0, func(k *tree.Container) bool { show(k); return true })
			}
			show(h.Root())
			return true
		})
	})
	return b.String()
}

func TestErrorsChangeNothing(t *testing.T) {
	f := newFixture(t, true, &probe{plain: "a"}, &probe{plain: "b"}, plain("c"))
	root := f.mount(1, "one")
	h := root.Hierarchy()
	two := f.mount(2, "")
	c := f.mkdir(root, "c")
	inner := f.mkdir(c, "inner")
	gone := f.mkdir(root, "gone")
	if err := f.Rmdir(gone, nil); err != nil {
		t.Fatal(err)
	}
	held := f.mkdir(root, "held")
	held.Get()
	ended := f.mount(4, "").Hierarchy()
	if err := f.Unmount(ended); err != nil {
		t.Fatal(err)
	}
	p := f.host.Fork(1)
	f.attach(inner, p)
	deny := func() error { return syscall.EACCES }
	mkdir := func(p *tree.Container, name string, allow func() error) error {
		_, err := f.Mkdir(tree.MkdirRequest{Parent: p, Name: name, Allow: allow})
		return err
	}
	mount := func(m tree.Mount) error { _, err := f.Mount(m); return err }
	rename := func(p *tree.Container, from, to string) error {
		return f.Rename(tree.RenameRequest{Parent: p, Old: from, New: to})
	}
	remount := func(set tree.SubsystemSet, noprefix bool) error {
		return f.Remount(tree.RemountRequest{Hierarchy: h, Subsystems: set, Noprefix: noprefix})
	}
	long := strings.Repeat("x", tree.MaxPath)
	for _, tt := range []struct {
		name string
		err  func() error
		want syscall.Errno
	}{
		{"mount nothing", func() error { return mount(tree.Mount{}) }, syscall.EINVAL},
		{"mount what is not registered", func() error { return mount(tree.Mount{Subsystems: 1 << 40}) }, syscall.EINVAL},
		{"mount under another name", func() error { return mount(tree.Mount{Subsystems: 1, Name: "x"}) }, syscall.EBUSY},
		{"mount what is bound", func() error { return mount(tree.Mount{Subsystems: 5}) }, syscall.EBUSY},
		{"mount what is mounted, with other names of files", func() error { return mount(tree.Mount{Subsystems: 1, Noprefix: true}) }, syscall.EBUSY},
		{"mount under a name in use", func() error { return mount(tree.Mount{Subsystems: 4, Name: "one"}) }, syscall.EBUSY},
		{"remount what is no hierarchy any more", func() error {
			return f.Remount(tree.RemountRequest{Hierarchy: ended, Subsystems: 4})
		}, syscall.ENOENT},
		{"remount with nothing", func() error { return remount(0, false) }, syscall.EINVAL},
		{"remount with what is not registered", func() error { return remount(1|1<<40, false) }, syscall.EINVAL},
		{"remount with prefix", func() error { return remount(2, true) }, syscall.EINVAL},
		{"remount with what is bound", func() error { return remount(2, false) }, syscall.EBUSY},
		{"remount with children", func() error { return remount(1, false) }, syscall.EBUSY},
		{"mkdir twice", func() error { return mkdir(root, "c", nil) }, syscall.EEXIST},
		{"mkdir refused", func() error { return mkdir(root, "c", deny) }, syscall.EACCES},
		{"mkdir in what is gone", func() error { return mkdir(gone, "x", nil) }, syscall.ENODEV},
		{"mkdir of a long path", func() error { return mkdir(root, long, nil) }, syscall.ENAMETOOLONG},
		{"rmdir of a root", func() error { return f.Rmdir(two, nil) }, syscall.EBUSY},
		{"rmdir with children", func() error { return f.Rmdir(c, nil) }, syscall.EBUSY},
		{"rmdir with tasks", func() error { return f.Rmdir(inner, nil) }, syscall.EBUSY},
		{"rmdir of what is held", func() error { return f.Rmdir(held, nil) }, syscall.EBUSY},
		{"rmdir refused", func() error { return f.Rmdir(c, deny) }, syscall.EACCES},
		{"rmdir twice", func() error { return f.Rmdir(gone, nil) }, syscall.ENODEV},
		{"rename of nothing", func() error { return rename(root, "x", "y") }, syscall.ENOENT},
		{"rename onto another", func() error { return rename(root, "c", "held") }, syscall.EEXIST},
		{"rename in what is gone", func() error { return rename(gone, "x", "y") }, syscall.ENODEV},
		{"rename to a long path", func() error { return rename(root, "c", long[:tree.MaxPath-3]) }, syscall.ENAMETOOLONG},
	} {
		before := f.state()
		if err := tt.err(); err == nil {
			t.Errorf("%s: no error, want %v", tt.name, tt.want)
		} else {
			f.wantErrno(err, tt.want)
		}
		if after := f.state(); after != before {
			t.Errorf("%s changed\n%s to\n%s", tt.name, before, after)
		}
	}
	held.Put()
}

// TestRenameAmongMany: these are found by a map.
func TestRenameAmongMany(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	for i := range 20 {
		f.mkdir(root, fmt.Sprint(i))
	}
	c := root.Child("7")
	if err := f.Rename(tree.RenameRequest{Parent: root, Old: "7", New: "x"}); err != nil {
		t.Fatal(err)
	}
	if root.Child("x") != c || root.Child("7") != nil {
		t.Errorf("x is %v, 7 is %v", root.Child("x"), root.Child("7"))
	}
	if again := f.mkdir(root, "7"); root.Child("7") != again || root.Child("x") != c {
		t.Error("the former name cannot be used again")
	}
}

func TestMkdirThatFailsHalfWayDestroysWhatItMade(t *testing.T) {
	a, b := &probe{plain: "a"}, &probe{plain: "b"}
	f := newFixture(t, true, a, b)
	root := f.mount(3, "")
	b.onCreate = func(*tree.Container) error { return syscall.ENOSPC }
	before := f.state()
	_, err := f.Mkdir(tree.MkdirRequest{Parent: root, Name: "x"})
	f.wantErrno(err, syscall.ENOSPC)
	if f.state() != before || a.states != 1 || b.states != 1 {
		t.Errorf("%d and %d states, %s", a.states, b.states, f.state())
	}
}

func TestUnmountedWithChildrenComesBackWhole(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	p := f.host.Fork(1)
	f.attach(c, p)
	if err := f.Unmount(root.Hierarchy()); err != nil {
		t.Fatal(err)
	}
	f.wantErrno(f.Unmount(root.Hierarchy()), syscall.ENOENT)
	k := f.host.Fork(p) // inherits all the same
	if f.mount(1, "") != root {
		t.Fatal("another hierarchy came back")
	}
	f.wantTasks(c, p, k)
}

func TestLastChildOfAnUnmountedHierarchyEndsIt(t *testing.T) {
	a := &probe{plain: "a"}
	f := newFixture(t, true, a)
	root := f.mount(1, "")
	c := f.mkdir(root, "x")
	state := root.State(0)
	if err := f.Unmount(root.Hierarchy()); err != nil {
		t.Fatal(err)
	}
	if err := f.Rmdir(c, nil); err != nil {
		t.Fatal(err)
	}
	if !root.Removed() || a.root == root {
		t.Error("the hierarchy is still there")
	}
	again := f.mount(1, "")
	if again == root || again.State(0) != state || a.root != again || a.states != 1 {
		t.Error("the root's state was not kept")
	}
}

func TestReleaseByTheLastHolderUnmounts(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	h, err := f.Mount(tree.Mount{Subsystems: 1, Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	h.Hold()
	h.Release()
	if !h.Active() {
		t.Fatal("ended while it is held")
	}
	h.Release()
	if h.Active() || h.Published() {
		t.Fatal("nobody holds it, and it is there")
	}
	// A mount of its own outlives the holders.
	h, err = f.Mount(tree.Mount{Subsystems: 1, Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	f.mount(1, "")
	h.Release()
	if !h.Published() {
		t.Error("unmounted by a release")
	}
}

func TestChildrenAreListedFromWhereAListingStopped(t *testing.T) {
	f := newFixture(t, true, plain("a"))
	root := f.mount(1, "")
	var made []*tree.Container
	for i := range 40 {
		made = append(made, f.mkdir(root, fmt.Sprint(i)))
	}
	for i, c := range made {
		if i%3 != 0 {
			if err := f.Rmdir(c, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	root.Children(made[20].ID(), func(c *tree.Container) bool { got = append(got, c.Name()); return len(got) < 3 })
	if want := []string{"21", "24", "27"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
