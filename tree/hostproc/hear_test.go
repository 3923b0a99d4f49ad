package hostproc

import (
	"context"
	"testing"
	"time"

	"containerfs/tree"
)

// deafModel takes events and does nothing.
type deafModel struct{}

func (deafModel) Fork(tree.ForkEvent) {}
func (deafModel) Exec(int32)          {}
func (deafModel) Exit(int32)          {}
func (deafModel) Resync(uint64)       {}

// TestHear: a host that is read is heard though nothing happens on it; one whose
// events nobody takes is not, until somebody does.
func TestHear(t *testing.T) {
	h := connected(t, Options{})
	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := h.Hear(soon); err == nil {
		t.Error("heard though nothing is read")
	}
	h.Start(deafModel{})
	long, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 20 {
		if err := h.Hear(long); err != nil {
			t.Fatal(err)
		}
	}
	h.Close()
	if err := h.Hear(long); err == nil {
		t.Error("heard though it is closed")
	}
}
