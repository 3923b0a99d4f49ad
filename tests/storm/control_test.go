package storm

import (
	"syscall"
	"testing"

	"containerfs/tree"
)

// blind is a mirror in which nothing is found.
type blind struct{ tree.Mirror }

func (blind) Where(int32) (uint64, error) { return 0, syscall.ESRCH }

// hasty is a host that does not wait for events.
type hasty struct{ tree.Host }

func (hasty) Drain() {}

// What makes the model exact is taken away, and the comparison has to notice.
func TestControl(t *testing.T) {
	p := forks(50_000)
	for name, r := range map[string]trial{
		"CLONE_PARENT by events alone": {setup: setup{noMirror: true}, storm: p, wholly: true},
		"blind":                        {setup: setup{wrap: func(m tree.Mirror) tree.Mirror { return blind{m} }}, storm: p},
		"hasty": {
			setup:  setup{noMirror: true, wrapHost: func(h tree.Host) tree.Host { return hasty{h} }},
			storm:  withoutParent(p),
			wholly: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if len(r.run(t)) == 0 {
				t.Error("no difference was found")
			}
		})
	}
}
