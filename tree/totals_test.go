package tree_test

import (
	"errors"
	"syscall"
	"testing"

	"containerfs/tree"
)

func TestTotals(t *testing.T) {
	tr, root := leanTree(t, 5, plain("a"))
	want := tree.Totals{Hierarchies: 1, Containers: 1, CSSGroups: 1, Tasks: 5}
	if got := tr.Totals(); got != want {
		t.Errorf("at the start: %+v, want %+v", got, want)
	}
	c, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Attach(tree.AttachRequest{To: c, ID: 3}); err != nil {
		t.Fatal(err)
	}
	want.Containers, want.CSSGroups = 2, 2
	if got := tr.Totals(); got != want {
		t.Errorf("with a container: %+v, want %+v", got, want)
	}

	tr.SetMaxContainers(2)
	if _, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: "d"}); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("over a new limit: %v", err)
	}
	tr.SetMaxContainers(0)
	if _, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: "d"}); err != nil {
		t.Errorf("without one: %v", err)
	}
}
