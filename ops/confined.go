package ops

import "strings"

// attachConfined attaches inside of what the caller is confined to: there are names
// of containers in there, and nothing else. Options mount nothing, the root
// directory and proc are out of reach.
func (at *attachment) attachConfined(path string) (f *file, err error) {
	name, rest, _ := strings.Cut(at.caller.Confined, "/")
	at.fs.tree.View(func() {
		h := at.fs.tree.Published(name)
		if h == nil {
			err = errNoHierarchy
			return
		}
		at.root = containerDir{h.Root()}
		// The second walk has the end of the first for its root: `..` stays there.
		for _, path := range []string{rest, path} {
			if err = at.enter(namesOf(path)); err != nil {
				return
			}
		}
		f = at.open(at.root)
	})
	return f, err
}
