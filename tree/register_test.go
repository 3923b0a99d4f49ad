package tree_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// baseNamed is a subsystem with a file of that name.
type baseNamed struct {
	plain
	file string
}

func (b baseNamed) Files() []tree.File { return []tree.File{{Name: b.file}} }

// TestLimitsOfRegistration has a row per limit of SPEC §1.
func TestLimitsOfRegistration(t *testing.T) {
	many := func(n int) (list []tree.Subsystem) {
		for i := range n {
			list = append(list, plain(fmt.Sprint("s", i)))
		}
		return list
	}
	one := func(s tree.Subsystem) []tree.Subsystem { return []tree.Subsystem{s} }
	for _, test := range []struct {
		what string
		list []tree.Subsystem
		want error
	}{
		{"none", nil, nil},
		{"64", many(64), nil},
		{"65", many(65), syscall.E2BIG},
		{"no name", one(plain("")), syscall.EINVAL},
		{"name of 32 bytes", one(plain(strings.Repeat("n", 32))), nil},
		{"name of 33 bytes", one(plain(strings.Repeat("n", 33))), syscall.EINVAL},
		{"file without a name", one(baseNamed{"s", ""}), syscall.EINVAL},
		{"file name of 63 bytes", one(baseNamed{"s", strings.Repeat("f", 63)}), nil},
		{"file name of 64 bytes", one(baseNamed{"s", strings.Repeat("f", 64)}), syscall.EINVAL},
		{"one twice", append(many(1), many(1)...), syscall.EEXIST},
	} {
		tr, err := tree.New(tree.Config{Host: hostsim.New(), Subsystems: test.list})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
		if err != nil || len(test.list) == 0 {
			continue
		}
		// The last of them can be mounted: sets have room for it.
		last := len(test.list) - 1
		h, err := tr.Mount(tree.Mount{Subsystems: 1 << last})
		if err != nil || tr.Bound(last) != h {
			t.Errorf("%s: the last one is not bound: %v", test.what, err)
		}
	}
}
