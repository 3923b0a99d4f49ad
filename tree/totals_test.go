package tree_test

import (
	"errors"
	"fmt"
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

// TestRoomBesideTasks: what is made for tasks leaves some of the containers that there may be to
// who asks for them.
func TestRoomBesideTasks(t *testing.T) {
	tr, root := leanTree(t, 1, plain("a"))
	tr.SetMaxContainers(8)
	made := func(name string, forTasks bool) error {
		_, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: name, ForTasks: forTasks})
		return err
	}
	for n := 1; n <= 8; n++ { // with the root's
		want := error(nil)
		if n >= 6 {
			want = syscall.EAGAIN
		}
		if err := made(fmt.Sprint("task", n), true); !errors.Is(err, want) {
			t.Errorf("for a task, beside %d: %v, want %v", n, err, want)
		}
	}
	for n := range 2 {
		if err := made(fmt.Sprint("asked", n), false); err != nil {
			t.Errorf("asked for: %v", err)
		}
	}
	if err := made("more", false); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("one too many: %v", err)
	}
}
