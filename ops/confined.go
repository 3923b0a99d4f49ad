package ops

import (
	"strings"

	"containerfs/tree"
)

// attachConfined attaches inside of what the caller is confined to: there are names
// of containers in there, and nothing else. Options mount nothing, the root
// directory and proc are out of reach.
func (at *attachment) attachConfined(path string) (f *file, err error) {
	at.fs.tree.View(func() {
		if err = at.confine(at.caller.Confined); err != nil {
			return
		}
		// This walk has the end of the first for its root: `..` stays there.
		if err = at.enter(namesOf(path)); err == nil {
			f = at.open(at.root)
		}
	})
	return f, err
}

// confine makes the container of an attach name the root of the attachment. View.
func (at *attachment) confine(name string) error {
	name, rest, _ := strings.Cut(name, "/")
	h := at.fs.tree.Published(name)
	if h == nil {
		return errNoHierarchy
	}
	at.root = containerDir{h.Root()}
	return at.enter(namesOf(rest))
}

// HasContainer reports whether there is what a caller can be confined to by that name.
func (fs *FS) HasContainer(name string) bool {
	at := &attachment{fs: fs, caller: &Caller{}, actor: tree.Actor{Privileged: true}}
	var err error
	fs.tree.View(func() { err = at.confine(name) })
	return err == nil
}
