package subsystest

import (
	"bytes"
	"errors"
	"fmt"

	"containerfs/tree"
)

// saved: what was written is as it was in another life, all of it or one value, and what
// was never written is as new. A subsystem that can be written to is a Saver.
func (w *world) saved() error {
	s, ok := w.subject.(tree.Saver)
	if !ok {
		for _, f := range w.subject.Files() {
			if f.Write != nil {
				return fmt.Errorf("%s can be written, and is forgotten", f.Name)
			}
		}
		return nil
	}
	fresh, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "fresh"})
	if err != nil {
		return err
	}
	if b := w.save(s, fresh); len(b) > 0 {
		return fmt.Errorf("%q is saved of a new container", b)
	}
	for i := range w.Values {
		if err := w.savedAlone(i); err != nil {
			return err
		}
	}
	a, err := w.mkdir(w.root, "a")
	if err != nil {
		return err
	}
	if err := w.writeAll(a, w.Values); err != nil {
		return err
	}
	if err := w.writeAll(w.root, w.RootValues); err != nil {
		return err
	}
	before, err := w.show(w.root, fresh, a)
	if err != nil {
		return err
	}
	ofA, ofRoot := w.save(s, a), w.save(s, w.root)

	other, err := newWorld(w.Setup)
	if err != nil {
		return err
	}
	again, err := other.relive(ofA, ofRoot)
	if err == nil {
		err = before.same(again)
	}
	if c, ok := other.subject.(interface{ Close() error }); ok {
		c.Close()
	}
	return err
}

// savedAlone: a value that needs none of the others is not forgotten where it is the only
// one, and no other comes with it.
func (w *world) savedAlone(i int) error {
	s := w.subject.(tree.Saver)
	c, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: "alone"})
	if err != nil {
		return err
	}
	refused := w.writeAll(c, w.Values[i:i+1])
	if i == 0 && refused != nil {
		return refused
	}
	saved := w.save(s, c)
	if refused == nil && len(saved) == 0 {
		return fmt.Errorf("nothing is saved of a container with %q in %s", w.Values[i].Text, w.Values[i].File)
	}
	if refused == nil && !w.OfHost {
		err = w.unchanged("forgotten and restored", func() error {
			for _, b := range [][]byte{nil, saved} {
				if err := w.tree.Change(func() error { return s.Restore(c, b) }); err != nil {
					return err
				}
			}
			return nil
		}, c)
	}
	return errors.Join(err, w.tree.Rmdir(c, nil))
}

func (w *world) save(s tree.Saver, c *tree.Container) (b []byte) {
	w.tree.View(func() { b = s.Save(c, []byte{}) })
	return b
}

// relive makes the containers of saved, with what was saved of them, and shows
// them.
func (w *world) relive(ofA, ofRoot []byte) (shown, error) {
	s := w.subject.(tree.Saver)
	var made [2]*tree.Container
	for i, name := range []string{"fresh", "a"} {
		c, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: w.root, Name: name})
		if err != nil {
			return nil, err
		}
		made[i] = c
	}
	fresh, a := made[0], made[1]
	restore := func(c *tree.Container, b []byte) error {
		return w.tree.Change(func() error { return s.Restore(c, b) })
	}
	if err := restore(w.root, ofRoot); err != nil {
		return nil, err
	}
	if !w.OfHost {
		if err := w.overwritten(fresh, ofA, restore); err != nil {
			return nil, err
		}
	}
	if err := restore(a, ofA); err != nil {
		return nil, err
	}
	if b := w.save(s, a); !bytes.Equal(b, ofA) {
		return nil, fmt.Errorf("%q was restored, and %q is saved", ofA, b)
	}
	return w.show(w.root, fresh, a)
}

// overwritten restores half of what was saved, all of it, and nothing.
func (w *world) overwritten(fresh *tree.Container, ofA []byte, restore func(*tree.Container, []byte) error) error {
	s := w.subject.(tree.Saver)
	asNew, err := w.show(fresh)
	if err != nil {
		return err
	}
	// What is cut off is refused, or is all that there is to know.
	for n := 1; n < len(ofA); n++ {
		if err := restore(fresh, ofA[:n]); err == nil && !bytes.Equal(w.save(s, fresh), ofA[:n]) {
			return fmt.Errorf("%d of %d bytes are restored, as something else", n, len(ofA))
		}
	}
	// As a whole: what was there is forgotten.
	for _, b := range [][]byte{ofA, nil} {
		if err := restore(fresh, b); err != nil {
			return err
		}
	}
	is, err := w.show(fresh)
	if err == nil {
		err = asNew.same(is)
	}
	if err != nil {
		return fmt.Errorf("after nothing was restored: %w", err)
	}
	return nil
}
