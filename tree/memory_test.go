package tree_test

import (
	"errors"
	"maps"
	"slices"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// life is a server's: a Tree whose tasks have what a Memory recalls of them when they
// are found.
type life struct {
	*tree.Tree
	t        *testing.T
	rows     *written
	m        *tree.Memory
	recalled map[int32][]uint64
}

// written are Rows with what was last written to them.
type written struct {
	hostsim.Rows
	last   map[string][]byte
	broken error // of All, after all
}

func (w *written) Write(rows map[string][]byte) error {
	w.last = rows
	return w.Rows.Write(rows)
}

func (w *written) All(f func(string, []byte)) error {
	return errors.Join(w.Rows.All(f), w.broken)
}

// recaller is the subsystem of a life.
type recaller struct {
	plain
	l *life
}

func (r recaller) Fork(_, child *tree.Task, c *tree.Container) {
	if numbers := r.l.m.Recall(c.Tree(), child); numbers != nil {
		r.l.recalled[child.TID()] = numbers
	}
}

const thisBoot = "this boot\n"

// live begins a life over a host, without knowing yet who is there.
func live(t *testing.T, h *hostsim.Host, rows *written, boot string) *life {
	t.Helper()
	l := &life{t: t, rows: rows, recalled: map[int32][]uint64{}}
	var err error
	if l.m, err = tree.NewMemory(rows, boot); !errors.Is(err, rows.broken) {
		t.Fatal(err)
	}
	if l.Tree, err = tree.New(tree.Config{Host: h, Subsystems: []tree.Subsystem{recaller{"a", l}}}); err != nil {
		t.Fatal(err)
	}
	h.Run(l.Tree)
	return l
}

// settle has it know who is there.
func (l *life) settle() *life {
	l.t.Helper()
	if err := l.Resync(); err != nil {
		l.t.Fatal(err)
	}
	return l
}

// memos has a number for each tid.
func (l *life) memos(numbers map[int32]uint64) map[int32]tree.Memo {
	l.Drain()
	memos := make(map[int32]tree.Memo)
	l.View(func() {
		for tid, n := range numbers {
			memos[tid] = tree.Memo{Start: l.Task(tid).Start(), Numbers: []uint64{n}}
		}
	})
	return memos
}

func (l *life) keep(numbers map[int32]uint64) error {
	memos := l.memos(numbers)
	return l.m.Keep(l.Tree, func(now map[int32]tree.Memo) { maps.Copy(now, memos) })
}

// wantWritten fails the test unless the last write, if any, was of the rows with these
// keys: those with a "-" were removed.
func (l *life) wantWritten(what string, want ...string) {
	l.t.Helper()
	var got []string
	for key, row := range l.rows.last {
		if row == nil {
			key = "-" + key
		}
		got = append(got, key)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		l.t.Errorf("%s: %q were written, want %q", what, got, want)
	}
	l.rows.last = nil
}

func newWritten() *written { return &written{Rows: *hostsim.NewRows()} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What was kept of a task is known to a later server when it finds him, and nothing of
// that to who has his number later, to who is born then, or any more after that.
func TestMemoryRecalls(t *testing.T) {
	h := hostsim.New()
	l := live(t, h, newWritten(), thisBoot).settle()
	stays, ends, silent := h.Fork(1), h.Fork(1), h.Fork(1)
	must(t, l.keep(map[int32]uint64{stays: 7, ends: 8}))
	must(t, l.m.Add(l.memos(map[int32]uint64{stays: 1 << 63})))
	h.Exit(ends)
	if h.ForkAs(1, ends) != ends {
		t.Fatal("another task does not get the number")
	}
	l.Drain()

	for _, how := range []string{"first", "second"} { // nothing was written in the first
		l = live(t, h, l.rows, thisBoot).settle()
		h.Fork(stays)
		l.Drain()
		if len(l.recalled) != 1 || !slices.Equal(l.recalled[stays], []uint64{1 << 63}) {
			t.Errorf("the %s time %v are recalled, want only %d", how, l.recalled, stays)
		}
		l.View(func() {
			if got := l.m.Recall(l.Tree, l.Task(stays)); got != nil {
				t.Errorf("when all are known %v is recalled", got)
			}
		})
	}
	must(t, l.keep(map[int32]uint64{silent: 1}))
	l.wantWritten("those who have nothing any more", "-2", "-3", "4")
}

// Of another boot nothing is known, whoever has the numbers and start times now; rows
// that cannot be understood are nobody's. All are removed, once it is known who is there.
func TestMemoryOfAnotherBoot(t *testing.T) {
	h := hostsim.New()
	h.Fork(1)
	rows := newWritten()
	must(t, live(t, h, rows, thisBoot).settle().keep(map[int32]uint64{1: 7, 2: 8}))
	for key, row := range map[string]string{
		"x": thisBoot + "\x7f\x01", "3": thisBoot, "4": thisBoot + "\x7f\x80", "5": "", "99999999999": thisBoot + "\x7f\x01",
	} {
		rows.M[key] = []byte(row)
	}
	for boot, recalled := range map[string]int{"another\n": 0, thisBoot + "more": 0, thisBoot: 2} {
		for len(h.TIDs()) < 6 {
			h.Fork(1)
		}
		l := live(t, h, &written{Rows: hostsim.Rows{M: maps.Clone(rows.M)}}, boot)
		must(t, l.keep(nil))
		l.wantWritten("before it is known who is there")
		l.settle()
		if len(l.recalled) != recalled {
			t.Errorf("in the boot %q %v are recalled", boot, l.recalled)
		}
		must(t, l.keep(nil))
		if len(l.rows.M) != 0 {
			t.Errorf("in the boot %q %q are left", boot, l.rows.M)
		}
	}
}

// Only what differs is written.
func TestMemoryWritesWhatDiffers(t *testing.T) {
	h := hostsim.New()
	h.Fork(1)
	h.Fork(1)
	l := live(t, h, newWritten(), thisBoot).settle()
	for _, step := range []struct {
		what    string
		numbers map[int32]uint64
		add     bool
		want    []string
	}{
		{"all are new", map[int32]uint64{1: 1, 2: 2}, false, []string{"1", "2"}},
		{"nothing", map[int32]uint64{1: 1, 2: 2}, false, nil},
		{"one has changed", map[int32]uint64{1: 1, 2: 3}, false, []string{"2"}},
		{"one is known, one is added", map[int32]uint64{2: 3, 3: 0}, true, []string{"3"}},
		{"nothing is added", map[int32]uint64{1: 1}, true, nil},
		{"one has gone", map[int32]uint64{1: 1, 3: 0}, false, []string{"-2"}},
		{"one has gone, one has come", map[int32]uint64{2: 2, 3: 0}, false, []string{"-1", "2"}},
		{"all have gone", nil, false, []string{"-2", "-3"}},
		{"there is nobody", nil, false, nil},
	} {
		if step.add {
			must(t, l.m.Add(l.memos(step.numbers)))
		} else {
			must(t, l.keep(step.numbers))
		}
		l.wantWritten(step.what, step.want...)
	}
	// The same number, and another task.
	must(t, l.keep(map[int32]uint64{3: 5}))
	h.Exit(3)
	h.ForkAs(1, 3)
	must(t, l.keep(map[int32]uint64{3: 5}))
	l.wantWritten("another of the number", "3")
}

// What could not be written is written the next time, and of a store that cannot be
// read to its end what was read is known.
func TestMemoryOfFailingStore(t *testing.T) {
	h := hostsim.New()
	h.Fork(1)
	l := live(t, h, newWritten(), thisBoot).settle()
	must(t, l.keep(map[int32]uint64{1: 1}))
	l.rows.Fail = syscall.ENOSPC
	for range 2 {
		if err := l.keep(map[int32]uint64{2: 2}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Keep: %v", err)
		}
		l.wantWritten("in vain", "-1", "2")
		if err := l.m.Add(l.memos(map[int32]uint64{2: 3})); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Add: %v", err)
		}
	}
	l.rows.Fail = nil
	must(t, l.keep(map[int32]uint64{2: 2}))
	l.wantWritten("the next time", "-1", "2")

	l.rows.broken = syscall.EIO
	l = live(t, h, l.rows, thisBoot).settle()
	must(t, l.keep(nil))
	if len(l.recalled) != 1 || len(l.rows.M) != 0 {
		t.Errorf("%v are recalled, %q are left", l.recalled, l.rows.M)
	}
}

// Rows are what servers before this one have written.
func TestMemoryFormat(t *testing.T) {
	l := live(t, hostsim.New(), newWritten(), thisBoot).settle()
	err := l.m.Add(map[int32]tree.Memo{
		1: {300, []uint64{0, 127, 128, 1<<64 - 1}},
		7: {1, nil},
	})
	must(t, err)
	for key, want := range map[string]string{
		"1": "this boot\n\xac\x02\x00\x7f\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"7": "this boot\n\x01",
	} {
		if got := string(l.rows.M[key]); got != want {
			t.Errorf("the row of %s is %q, want %q", key, got, want)
		}
	}
}

// Without a Memory nothing is known and nothing is kept.
func TestNoMemory(t *testing.T) {
	l := live(t, hostsim.New(), newWritten(), thisBoot)
	l.m = nil
	l.settle()
	must(t, l.keep(map[int32]uint64{1: 1}))
	must(t, l.m.Add(l.memos(map[int32]uint64{1: 1})))
	if len(l.recalled) != 0 || len(l.rows.M) != 0 {
		t.Errorf("%v are recalled, %q are kept", l.recalled, l.rows.M)
	}
}
