package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
	"containerfs/subsys"
)

// planStep is one change of a plan.
type planStep struct {
	what string // the line that is printed
	key  string // in the file
	// do makes it. No undo and no error: it was so already.
	do func() (undo func() error, err error)
}

// plan is what has to be changed at a server so that it is what a file says.
type plan struct {
	s   *session
	f   *savedFile
	out io.Writer
	dry bool

	notes []string // what was asked for and is not done

	made map[string]bool      // containers, and roots, that are not there yet
	like map[string]likeFiles // what new containers have, by hierarchy

	shape    []planStep // hierarchies, containers and owners, in this order
	settings []planStep // in an order that is to be found: see run
	removals []planStep
}

// make compares the file with the server. Nothing is changed.
func (p *plan) make(prune bool) error {
	w, err := p.s.world()
	if err != nil {
		return err
	}
	for i, h := range p.f.Hierarchy {
		if err := p.planHierarchy(w, i, h); err != nil {
			return err
		}
	}
	for i := range p.f.Container {
		if err := p.planContainer(i); err != nil {
			return err
		}
	}
	if prune {
		p.notes = p.notWhole()
		return p.planRemovals()
	}
	return nil
}

// notWhole says of the hierarchies that are in the file but not whole, and in which nothing is
// removed, what is missing of each. One that is to be mounted has nothing yet.
func (p *plan) notWhole() (notes []string) {
	const taken = "and is not taken to have all of it"
	seen := make(map[string]bool)
	for _, h := range p.f.Hierarchy {
		root := "/" + h.Name
		if seen[h.Name] = true; !p.made[root] && !slices.ContainsFunc(p.f.Container, func(c savedContainer) bool { return c.Path == root }) {
			notes = append(notes, fmt.Sprintf("%s: %s has no [[container]] %[1]s, its root, "+taken, root, p.f.name))
		}
	}
	for _, c := range p.f.Container {
		if name := split(c.Path)[0]; !seen[name] {
			seen[name] = true
			notes = append(notes, fmt.Sprintf("/%s: %s has no [[hierarchy]] %[1]s, "+taken, name, p.f.name))
		}
	}
	return notes
}

// fail is a failure at a key of the file.
func (p *plan) fail(key, what string, err error) error {
	if exitCode(err) == exitUnavailable {
		return err
	}
	return fmt.Errorf("apply %s: %s: %w", p.f.at(key), what, err)
}

func (p *plan) planHierarchy(w *world, i int, h savedHierarchy) error {
	key := fmt.Sprintf("hierarchy.%d", i)
	if there := w.hierarchy(h.Name); there != nil && there.Mounted {
		options := withoutAgent(there.Options)
		if !h.has(options) && !h.has(there.Options) {
			return fmt.Errorf("apply %s: hierarchy %s is there with the options %s: %w", p.f.at(key+".options"), h.Name, options, linux.EBUSY)
		}
		return nil
	}
	p.made["/"+h.Name] = true
	p.shape = append(p.shape, planStep{
		what: fmt.Sprintf("+ hierarchy %s %s", h.Name, h.Options), key: key,
		do: func() (func() error, error) {
			return func() error { return p.s.writeFile("/ctl", "umount "+h.Name) },
				p.s.writeFile("/ctl", "mount "+h.Name+" "+h.Options)
		},
	})
	return nil
}

// has reports whether options make the same hierarchy as those of h, in whatever order.
func (h *savedHierarchy) has(options string) bool {
	words := func(options string) (all []string) {
		for word := range strings.SplitSeq(strings.ReplaceAll(options, "+", ","), ",") {
			switch word {
			case "all":
				all = append(all, subsys.Names(nil)...)
			case "name=" + h.Name:
			default:
				all = append(all, word)
			}
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	return slices.Equal(words(h.Options), words(options))
}

func (p *plan) planContainer(i int) error {
	c, key := &p.f.Container[i], fmt.Sprintf("container.%d", i)
	attr, err := p.s.attr(c.Path)
	switch {
	case p.made[c.Path]: // a root that is not mounted yet
	case errors.Is(err, linux.ENOENT):
		if len(split(c.Path)) == 1 {
			return p.fail(key+".path", c.Path, err)
		}
		if up := parent(c.Path); !p.made[up] {
			if _, err := p.s.attr(up); err != nil {
				return p.fail(key+".path", up, err)
			}
		}
		p.made[c.Path] = true
		mode := p9.FileMode(0o755)
		if c.Mode != nil {
			mode = parseMode(*c.Mode)
		}
		p.shape = append(p.shape, planStep{what: "+ " + c.Path, key: key + ".path", do: func() (func() error, error) {
			return func() error { return rmdir(p.s, c.Path) }, mkdir(p.s, c.Path, mode)
		}})
	case err != nil:
		return p.fail(key+".path", c.Path, err)
	case !attr.Mode.IsDir():
		return p.fail(key+".path", c.Path, linux.ENOTDIR)
	}
	if err := p.planOwner(key, c.Path, c.Path, c.savedOwner); err != nil {
		return err
	}
	for _, v := range p.f.settings(i) {
		if err := p.planSetting(key+".set."+v.name, c.Path, v); err != nil {
			return err
		}
	}
	return p.planFileOwners(key, c)
}

// checkFile refuses a file that a container which is to be made will not have, as far as
// that is known.
func (p *plan) checkFile(key, container, name string) error {
	names := split(container)
	if !p.made[container] || len(names) < 2 || p.made["/"+names[0]] {
		return nil
	}
	like, known := p.like[names[0]]
	if !known {
		like = p.findLike("/"+names[0], container)
		p.like[names[0]] = like
	}
	if like.lacks(name) {
		return p.fail(key, join(container, name), linux.ENOENT)
	}
	return nil
}

// likeFiles are the files of a container that has those of a new one, or of a root, of
// which only names of our own subsystems can be told.
type likeFiles struct {
	files []string
	root  bool
}

// findLike looks for a container that is like a new one: the nearest that there is, or a
// child of the root.
func (p *plan) findLike(root, container string) (like likeFiles) {
	at := parent(container)
	for p.made[at] {
		at = parent(at)
	}
	files, children, err := p.s.list(at)
	if err != nil {
		return likeFiles{} // it cannot be looked at
	}
	like = likeFiles{files, isRoot(files)}
	for i := 0; like.root && i < len(children); i++ {
		if files, _, err := p.s.list(join(root, children[i])); err == nil {
			like = likeFiles{files, false}
		}
	}
	return like
}

// lacks reports whether a file is known not to be there. A root has none of the limits of
// the kernel's controllers.
func (l likeFiles) lacks(name string) bool {
	subsystem, _, dotted := strings.Cut(name, ".")
	switch {
	case len(l.files) == 0 || slices.Contains(l.files, name) && !(l.root && slices.Contains([]string{"release_agent", "events"}, name)):
		return false
	case l.root:
		return dotted && !slices.Contains(subsys.Optional, subsystem) &&
			slices.ContainsFunc(l.files, func(file string) bool { return strings.HasPrefix(file, subsystem+".") })
	}
	return true
}

func (p *plan) planSetting(key, container string, v setting) error {
	path := join(container, v.name)
	what := fmt.Sprintf("%s: %q", path, v.value)
	if err := p.checkFile(key, container, v.name); err != nil {
		return err
	}
	if !p.made[container] {
		now, err := p.s.readFile(path)
		if err != nil {
			return p.fail(key, path, err)
		}
		if now = strings.TrimSuffix(now, "\n"); now == v.value {
			return nil
		}
		what = fmt.Sprintf("%s: %q -> %q", path, now, v.value)
	}
	p.settings = append(p.settings, planStep{what: what, key: key, do: func() (func() error, error) {
		before, err := p.s.readFile(path)
		if err != nil {
			return nil, err
		}
		if strings.TrimSuffix(before, "\n") == v.value {
			return nil, nil
		}
		undo := func() error { return p.s.resetFile(path, before) }
		err = p.s.setFile(path, before, v.value)
		if err != nil {
			if now, _ := p.s.readFile(path); now != before {
				err = errors.Join(err, undo()) // the lines that were taken
			}
		}
		return undo, err
	}})
	return nil
}

// planRemovals plans to remove what the file does not have, below the roots that
// it has, children first.
func (p *plan) planRemovals() error {
	wanted := make(map[string]bool)
	for _, c := range p.f.Container {
		wanted[c.Path] = true
	}
	for i, h := range p.f.Hierarchy {
		root := "/" + h.Name
		if !wanted[root] || p.made[root] {
			continue
		}
		err := p.s.containers(root, func(path string, _ int, files []string) error {
			if wanted[path] {
				return nil
			}
			p.removals = append(p.removals, planStep{what: "- " + path, key: fmt.Sprintf("hierarchy.%d", i), do: func() (func() error, error) {
				before, err := p.s.saved(path, files)
				if err != nil {
					return nil, err
				}
				return func() error { return p.remake(before) }, rmdir(p.s, path)
			}})
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.Reverse(p.removals)
	return nil
}

// remake makes a container that was removed what it was.
func (p *plan) remake(c *savedContainer) error {
	if err := mkdir(p.s, c.Path, parseMode(*c.Mode)); err != nil {
		return err
	}
	errs := []error{p.chown(c.Path, c.savedOwner)}
	for _, name := range ops.SettingOrder(c.Set) {
		now, err := p.s.readFile(join(c.Path, name))
		if err == nil && strings.TrimSuffix(now, "\n") != c.Set[name] {
			err = p.s.setFile(join(c.Path, name), now, c.Set[name])
		}
		errs = append(errs, err)
	}
	for _, name := range ops.SettingOrder(c.File) {
		errs = append(errs, p.chown(join(c.Path, name), c.File[name]))
	}
	return errors.Join(append(errs, p.chownOthers(c))...)
}
