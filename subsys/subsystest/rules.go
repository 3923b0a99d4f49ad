package subsystest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"containerfs/tree"
)

// table: names are unique, and the table never changes; a file can be read or
// written.
func (w *world) table() error {
	files, again := w.subject.Files(), w.subject.Files()
	if len(files) != len(again) {
		return fmt.Errorf("%d files, then %d", len(files), len(again))
	}
	seen := make(map[string]bool)
	for i, f := range files {
		switch {
		case f.Name != again[i].Name:
			return fmt.Errorf("file %d is %s, then %s", i, f.Name, again[i].Name)
		case seen[f.Name]:
			return fmt.Errorf("two files are called %s", f.Name)
		case f.Read == nil && f.Fetch == nil && f.Write == nil && f.Pass == nil:
			return fmt.Errorf("%s can neither be read nor written", f.Name)
		case f.Write != nil && f.Pass != nil:
			return fmt.Errorf("%s has two writers", f.Name)
		}
		seen[f.Name] = true
	}
	for _, writes := range [][]Write{w.Ready, w.Values, w.RootValues} {
		for _, v := range writes {
			if f := w.file(v.File); f.Write == nil && f.Pass == nil {
				return fmt.Errorf("the setup writes %s, which cannot be written", v.File)
			}
		}
	}
	return nil
}

// cycles is how many containers pairs makes and removes. A subsystem that keeps
// something of each shows by leak bytes.
const (
	cycles = 4000
	leak   = 32 << 10
)

// pairs: each state is destroyed once, whether its container was there or not;
// then nothing is left of it, and a container of that name is as new.
func (w *world) pairs() error {
	fresh, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "a"})
	if err != nil {
		return err
	}
	asNew, err := w.show(fresh)
	if err != nil {
		return err
	}
	if err := w.tree.Rmdir(fresh, nil); err != nil {
		return err
	}
	w.later.create = errAsked
	_, err = w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "a"})
	if err := wantAsked("mkdir", err); err != nil {
		return err
	}
	w.later.create = nil

	cycle := func(look bool) error {
		a, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "a"})
		if err != nil {
			return err
		}
		if look {
			again, err := w.show(a)
			if err == nil {
				err = asNew.same(again)
			}
			if err != nil {
				return fmt.Errorf("a container of a name that was used before: %w", err)
			}
		}
		if err := w.writeAll(a, slices.Concat(w.Ready, w.Values)); err != nil {
			return err
		}
		return w.tree.Rmdir(a, nil)
	}
	var before int64
	for i := range cycles + cycles/10 {
		if i == cycles/10 {
			before = heap()
		}
		if err := cycle(i%100 == 1); err != nil {
			return err
		}
	}
	if more := heap() - before; more > leak {
		return fmt.Errorf("%d bytes are left of %d containers that were removed", more, cycles)
	}
	if len(w.spy.made) != 1 { // the root's
		return fmt.Errorf("%d states were not destroyed", len(w.spy.made)-1)
	}
	return w.spy.err
}

// refusedAttach: a refusal before or after the subsystem's own Attach leaves what
// files show, and what the next attach does, as it was.
func (w *world) refusedAttach() error {
	a, err := w.mkdir(w.root, "a")
	if err != nil {
		return err
	}
	b, err := w.mkdir(a, "b")
	if err != nil {
		return err
	}
	p := w.sim.Fork(1)
	w.sim.Thread(p)
	for _, step := range []struct{ from, to *tree.Container }{{w.root, a}, {a, b}} {
		for _, refusal := range []struct {
			what string
			by   *error
		}{{"CanAttach of a later subsystem", &w.later.canAttach}, {"Attach of a later subsystem", &w.later.attach}} {
			for _, process := range []bool{false, true} {
				err := w.unchanged("refused by "+refusal.what, func() error {
					*refusal.by = errAsked
					err := w.tree.Attach(tree.AttachRequest{Actor: boss, To: step.to, ID: p, Process: process})
					*refusal.by = nil
					return wantAsked("attach to "+step.to.Path(), err)
				}, w.root, a, b)
				if err != nil {
					return err
				}
			}
		}
		if err := w.tree.Attach(tree.AttachRequest{Actor: boss, To: step.to, ID: p, Process: true}); err != nil {
			return fmt.Errorf("attach after refusals: %w", err)
		}
	}
	return nil
}

// readable: the files of a new container and of the root can be read, and show
// the same when nothing has happened.
func (w *world) readable() error {
	a, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "a"})
	if err != nil {
		return err
	}
	return w.unchanged("reading", func() error { return nil }, w.root, a)
}

// garbage is what no file takes.
var garbage = []string{"\x00", "garbage\n", "-", "1 2 3 x", "\xff\xfe", strings.Repeat("9", 4096)}

// refusedWrite: what a file does not take changes nothing, of that file or any
// other.
func (w *world) refusedWrite() error {
	a, err := w.mkdir(w.root, "a")
	if err != nil {
		return err
	}
	if err := w.writeAll(a, w.Values); err != nil {
		return err
	}
	files := w.tree.Files(0)
	for _, c := range []*tree.Container{a, w.root} {
		for i := range files {
			for _, text := range garbage {
				err := w.unchanged(fmt.Sprintf("writing %.20q to %s of %s", text, files[i].Name, c.Path()), func() error {
					if w.tree.WriteFile(boss, c, &files[i], []byte(text)) == nil {
						return fmt.Errorf("it is taken")
					}
					return nil
				}, w.root, a)
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// siblings: what is written to a container, and what its tasks do, is not seen in
// its sibling.
func (w *world) siblings() error {
	a, err := w.mkdir(w.root, "a")
	if err != nil {
		return err
	}
	b, err := w.mkdir(w.root, "b")
	if err != nil {
		return err
	}
	was, err := w.show(a)
	if err != nil {
		return err
	}
	err = w.unchanged("writing to a sibling", func() error { return w.writeAll(a, w.Values) }, b)
	if err != nil {
		return err
	}
	is, err := w.show(a)
	if err != nil {
		return err
	}
	if len(w.Values) > 0 && was.same(is) == nil {
		return fmt.Errorf("what was written does not show: %v", w.Values)
	}
	p := w.sim.Fork(1)
	return w.unchanged("tasks in a sibling", func() error {
		if err := w.attach(a, p); err != nil {
			return err
		}
		w.sim.Exec(w.sim.Fork(p))
		w.sim.Exit(w.sim.Thread(p))
		return nil
	}, b)
}

// binding: the root shows the same in whatever hierarchy it is the root of.
func (w *world) binding() error {
	if err := w.writeAll(w.root, w.RootValues); err != nil {
		return err
	}
	w.sim.Fork(1)
	before, err := w.show(w.root)
	if err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"unmount and mount", func() error {
			if err := w.tree.Unmount(w.root.Hierarchy()); err != nil {
				return err
			}
			return w.mount("second", 1)
		}},
		{"remount", func() error {
			return w.tree.Remount(tree.RemountRequest{Hierarchy: w.root.Hierarchy(), Subsystems: 3})
		}},
		{"taken away and given back", func() error {
			if err := w.tree.Remount(tree.RemountRequest{Hierarchy: w.root.Hierarchy(), Subsystems: 2}); err != nil {
				return err
			}
			return w.tree.Remount(tree.RemountRequest{Hierarchy: w.root.Hierarchy(), Subsystems: 3})
		}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		after, err := w.show(w.root)
		if err == nil {
			err = before.same(after)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	// It works there: containers can be made, and tasks enter.
	a, err := w.mkdir(w.root, "a")
	if err != nil {
		return err
	}
	return w.attach(a, w.sim.Fork(1))
}

// tasks: whatever tasks do, files can be read, and a container that they left can
// be removed.
func (w *world) tasks() error {
	rnd := rand.New(rand.NewPCG(1, 2))
	places := []*tree.Container{w.root}
	for i := range 4 {
		c, err := w.mkdir(places[i/2], fmt.Sprint("c", i))
		if err != nil {
			return err
		}
		places = append(places, c)
	}
	pick := func() int32 { tids := w.sim.TIDs(); return tids[rnd.IntN(len(tids))] }
	for i := range 400 {
		switch tid := pick(); rnd.IntN(5) {
		case 0:
			if len(w.sim.TIDs()) < 40 {
				w.sim.Fork(tid)
			}
		case 1:
			w.sim.Thread(tid)
		case 2:
			if tid != 1 && tid != w.server {
				w.sim.Exit(tid)
			}
		case 3:
			w.sim.Exec(tid)
		case 4:
			_ = w.attach(places[rnd.IntN(len(places))], tid)
		}
		if i%20 == 0 {
			if _, err := w.show(places...); err != nil {
				return err
			}
		}
	}
	for _, tid := range w.sim.TIDs() {
		if tid != 1 && tid != w.server {
			w.sim.Exit(tid)
		}
	}
	w.tree.Drain()
	for i := len(places) - 1; i > 0; i-- {
		if w.has(places[i], 1) || w.has(places[i], w.server) {
			return nil // where it may not be moved out of again
		}
		if err := w.tree.Rmdir(places[i], nil); err != nil {
			return fmt.Errorf("rmdir of %s: %w", places[i].Path(), err)
		}
	}
	return nil
}

// has reports whether a task is in a container or below.
func (w *world) has(c *tree.Container, tid int32) (in bool) {
	w.tree.View(func() { in = w.tree.Task(tid).Container(c.Hierarchy()).IsBelow(c) })
	return in
}
