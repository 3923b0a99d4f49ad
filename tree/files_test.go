package tree_test

import (
	"errors"
	"syscall"
	"testing"

	"containerfs/tree"
)

// filed is a subsystem with one file.
type filed struct{ plain }

func (filed) Files() []tree.File {
	return []tree.File{{
		Name:  "f",
		Read:  func(c *tree.Container, b []byte) ([]byte, error) { return append(b, 'x'), nil },
		Write: func(*tree.Actor, *tree.Container, []byte) error { return nil },
	}}
}

// A client can have a file open when a remount takes its subsystem away.
func TestFilesOfASubsystemThatWasUnboundAreGone(t *testing.T) {
	f := newFixture(t, false, plain("a"), filed{"b"})
	root := f.mount(3, "")
	file := &f.Files(1)[0]
	if _, err := f.ReadFile(root, file, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Remount(tree.RemountRequest{Hierarchy: root.Hierarchy(), Subsystems: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFile(root, file, nil); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("read: %v, want ENODEV", err)
	}
	if err := f.WriteFile(&tree.Actor{}, root, file, nil); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("write: %v, want ENODEV", err)
	}
}
