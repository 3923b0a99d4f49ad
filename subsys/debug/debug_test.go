package debug

import (
	"fmt"
	"os"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestFiles(t *testing.T) {
	sim := hostsim.New()
	tr, err := tree.New(tree.Config{Host: sim, Mirror: sim.Mirror(), Subsystems: []tree.Subsystem{Subsystem{}}})
	if err != nil {
		t.Fatal(err)
	}
	sim.Run(tr)
	if err := tr.Resync(); err != nil {
		t.Fatal(err)
	}
	h, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	a, err := tr.Mkdir(tree.MkdirRequest{Parent: h.Root(), Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	read := func(c *tree.Container, name string) string {
		for i, f := range files {
			if f.Name != name {
				continue
			}
			b, err := tr.ReadFile(c, &files[i], nil)
			if err != nil {
				return err.Error()
			}
			return string(b)
		}
		t.Fatalf("no file %s", name)
		return ""
	}
	expect := func(c *tree.Container, name, want string) {
		t.Helper()
		if got := read(c, name); got != want {
			t.Errorf("%s of %s is %q, want %q", name, c.Path(), got, want)
		}
	}
	attach := func(tid int32) {
		t.Helper()
		if err := tr.Attach(tree.AttachRequest{To: a, ID: tid}); err != nil {
			t.Fatal(err)
		}
	}

	expect(h.Root(), "current_css_group", "no such process")
	server := int32(os.Getpid())
	sim.ForkAs(hostsim.InitTID, server)
	other := sim.Fork(hostsim.InitTID)
	tr.Drain()

	expect(h.Root(), "container_refcount", "1\n")
	expect(h.Root(), "taskcount", "3\n")
	expect(h.Root(), "current_css_group", "0\n")
	expect(h.Root(), "current_css_group_refcount", "3\n")
	expect(h.Root(), "css_groups", "0 3\n")
	expect(a, "container_refcount", "0\n")
	expect(a, "taskcount", "0\n")
	expect(a, "css_groups", "")
	a.Get()
	expect(a, "container_refcount", "1\n")
	a.Put()

	attach(other)
	num, _ := sim.Group(other)
	group := fmt.Sprintf("%d 1\n", num)
	expect(a, "container_refcount", "1\n")
	expect(a, "taskcount", "1\n")
	expect(a, "css_groups", group)
	expect(h.Root(), "css_groups", "0 2\n")
	expect(a, "current_css_group", "0\n")
	attach(server)
	expect(a, "current_css_group", fmt.Sprintf("%d\n", num))
	expect(a, "current_css_group_refcount", "2\n")

	for _, f := range files {
		if f.Write != nil {
			t.Errorf("%s can be written", f.Name)
		}
	}
	if err := tr.Check(); err != nil {
		t.Error(err)
	}
}
