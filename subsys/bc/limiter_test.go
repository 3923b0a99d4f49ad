package bc

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// limiter is a kernel that takes limits until it is told to refuse.
type limiter struct {
	limits map[string]int64
	refuse bool
	during func()
}

func (l *limiter) Limit(c *tree.Container, resource string, n int64) (bool, error) {
	if l.during != nil {
		l.during()
	}
	if l.refuse {
		return true, fmt.Errorf("asked for: %w", syscall.EBUSY)
	}
	l.limits[c.Path()+" "+resource] = n
	return true, nil
}

func TestLimiter(t *testing.T) {
	sim := hostsim.New()
	s := New(&usages{measures: [resources]bool{physpages: true, numfile: true}, used: map[int32]Usage{}, fail: map[int32]error{}}, slog.New(slog.DiscardHandler))
	l := &limiter{limits: map[string]int64{}}
	s.LimitBy(l, true, true)
	tr, err := tree.New(tree.Config{Host: sim, Mirror: sim.Mirror(), Subsystems: []tree.Subsystem{s}})
	if err != nil {
		t.Fatal(err)
	}
	sim.Run(tr)
	h, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	a, err := tr.Mkdir(tree.MkdirRequest{Parent: h.Root(), Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	write := func(c *tree.Container, name, text string) error {
		files := tr.Files(0)
		for i := range files {
			if files[i].Name == name {
				return tr.WriteFile(&tree.Actor{}, c, &files[i], []byte(text))
			}
		}
		return syscall.ENOENT
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	limit := func(r resource) (n int64) {
		tr.View(func() { n = s.state(a).account(r).limit })
		return n
	}
	for _, name := range []string{"numproc", "physpages", "numfile"} {
		must(write(a, name+".barrier", "3"))
		must(write(a, name+".limit", "9"))
		must(write(h.Root(), name+".barrier", "5"))
		must(write(h.Root(), name+".limit", "7"))
	}
	want := map[string]int64{"/a numproc": 9, "/a physpages": 9}
	if !maps.Equal(l.limits, want) {
		t.Errorf("limits are %v, want %v", l.limits, want)
	}
	// While the kernel takes its time, others change things.
	l.during = func() { must(write(a, "numfile.limit", "11")) }
	must(write(a, "physpages.limit", "9223372036854775807"))
	if l.limits["/a physpages"] != -1 || limit(numfile) != 11 {
		t.Errorf("limits are %v and %d", l.limits, limit(numfile))
	}
	// Also the same limit: the kernel has the last one in the end.
	l.during = func() {
		l.during = nil
		must(write(a, "physpages.limit", "20"))
	}
	must(write(a, "physpages.limit", "10"))
	if l.limits["/a physpages"] != 20 || limit(physpages) != 20 {
		t.Errorf("limits are %v and %d, want 20", l.limits, limit(physpages))
	}
	l.refuse = true
	if err := write(a, "numproc.limit", "4"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("the kernel's errno: %v", err)
	}
	if got := limit(numproc); got != 9 {
		t.Errorf("refused, the limit is %d", got)
	}
	if err := write(a, "numproc.limit", "2"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("below the barrier: %v", err)
	}
}
