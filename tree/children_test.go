package tree_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"containerfs/tree"
)

// TestChildrenThatWere: a container that had many children costs what one does that never
// had any, and those that are left are found and listed.
func TestChildrenThatWere(t *testing.T) {
	const many = 100_000
	tr, root := leanTree(t, 5, plain("a"))
	mkdir := func(name string) *tree.Container {
		t.Helper()
		c, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	inuse := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse)
	}
	mkdir("first")
	before := inuse()
	for _, left := range []int{0, 3, 20} {
		var all []*tree.Container
		for i := range many {
			all = append(all, mkdir(fmt.Sprint(i)))
		}
		for _, c := range all[left:] {
			if err := tr.Rmdir(c, nil); err != nil {
				t.Fatal(err)
			}
		}
		all = slices.Clone(all[:left])
		if grown := inuse() - before; grown > 1<<20 {
			t.Errorf("a container with %d children costs %d KiB more than before it had %d", left, grown>>10, many)
		}
		for i, c := range all {
			if got := root.Child(fmt.Sprint(i)); got != c {
				t.Errorf("child %d of %d is %v", i, left, got)
			}
		}
		if root.Child(fmt.Sprint(left)) != nil {
			t.Error("a child that was removed is found")
		}
		n := 0
		root.Children(0, func(*tree.Container) bool { n++; return true })
		if n != left+1 {
			t.Errorf("%d children are listed, want %d", n, left+1)
		}
		for _, c := range all {
			if err := tr.Rmdir(c, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tr.Check(); err != nil {
		t.Error(err)
	}
}
