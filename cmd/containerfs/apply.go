package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/subsys"
)

// maxSavedFile bounds what apply reads.
const maxSavedFile = 64 << 20

func applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "make hierarchies what a file says",
		ArgsUsage: "FILE",
		Description: `FILE is of save, or - for standard input. What differs from the server is changed and
printed: + a container or hierarchy that is made, - one that is removed, and values
as old -> new. What the file does not name stays; --prune removes containers that it
does not name, in the hierarchies that it has whole: those with a [[hierarchy]] and a
[[container]] of their root. Of others it says so.

A container with uid or gid is given to them with its control files, but for those that
have an owner of their own, in [container.file.NAME]: name the limits that the owner must
not change.

  [[container]]
  path = "/all/alice"
  uid = 1000
  gid = 1000
  [container.file."numtasks.shares"]
  uid = 0

If one of the changes fails, or a signal ends the command, those before it are taken back;
exit code 6 says that this failed as well, and the message what is left. A second signal
leaves all as it is then. Processes stay where they are.

  containerfs apply --dry-run containers.toml
  containerfs apply containers.toml`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print the difference and change nothing"},
			&cli.BoolFlag{Name: "prune", Usage: "remove containers that the file does not have"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 1)
			if err != nil {
				return err
			}
			f, err := readSaved(c, args[0])
			if err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				p := plan{s: s, f: f, out: c.App.Writer, dry: c.Bool("dry-run"), made: make(map[string]bool), like: make(map[string]likeFiles)}
				if err := p.make(c.Bool("prune")); err != nil {
					return err
				}
				for _, note := range p.notes {
					fmt.Fprintf(c.App.ErrWriter, "containerfs: apply: nothing is removed in %s\n", printable(note))
				}
				ctx, stop := interruptible(c.Context)
				defer stop()
				return p.apply(ctx, newProgress(c.App.ErrWriter, "apply"))
			})
		},
	}
}

func readSaved(c *cli.Context, name string) (*savedFile, error) {
	var b []byte
	var err error
	if in := c.App.Reader; name == "-" {
		name = "standard input"
		b, err = io.ReadAll(io.LimitReader(in, maxSavedFile+1))
	} else {
		var f *os.File
		if f, err = os.Open(name); err != nil {
			return nil, usagef("apply: %v", err)
		}
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, maxSavedFile+1))
	}
	switch {
	case err != nil:
		return nil, usagef("apply: %v", err)
	case len(b) > maxSavedFile:
		return nil, usagef("apply: %s is over %d bytes", name, maxSavedFile)
	}
	return parseSaved(name, b)
}

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
	settings []planStep // in an order that is to be found: see applySettings
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
		if options != h.Options {
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

// planFileOwners plans to change owners and modes of a container's files: those that the
// file does not name have the container's owner, as save leaves them out.
func (p *plan) planFileOwners(key string, c *savedContainer) error {
	for _, name := range settingOrder(c.File) {
		if err := p.checkFile(key+".file."+name, c.Path, name); err != nil {
			return err
		}
		if err := p.planOwner(key+".file."+name, c.Path, join(c.Path, name), c.fileOwner(name)); err != nil {
			return err
		}
	}
	switch {
	case c.UID == nil && c.GID == nil:
		return nil
	case p.made[c.Path]: // which files it has is known when it has been
		p.shape = append(p.shape, planStep{key: key, do: func() (func() error, error) {
			return nil, p.chownOthers(c)
		}})
		return nil
	}
	now, err := p.othersOwners(c)
	if err != nil {
		return p.fail(key+".path", c.Path, err)
	}
	if len(now) == 0 {
		return nil
	}
	p.shape = append(p.shape, planStep{
		what: fmt.Sprintf("%s: owner of %d files -> %s", c.Path, len(now), c.owner()), key: key,
		do: func() (func() error, error) {
			back := func() (err error) {
				for name, was := range now {
					err = errors.Join(err, p.chown(join(c.Path, name), savedOwner{UID: was.UID, GID: was.GID}))
				}
				return err
			}
			err := p.chownFiles(c, now)
			if err != nil {
				var half undoList
				half.add(c.Path+": owners of files", back)
				err = half.after(err)
			}
			return back, err
		},
	})
	return nil
}

// owner is the owner that a container has in the file; what is not given is a dash.
func (c *savedContainer) owner() string {
	show := func(id *uint32) string {
		if id == nil {
			return "-"
		}
		return fmt.Sprint(*id)
	}
	return show(c.UID) + ":" + show(c.GID)
}

// othersOwners are the files that c does not name and whose owner is to be changed, with
// what they have now.
func (p *plan) othersOwners(c *savedContainer) (map[string]savedOwner, error) {
	files, _, err := p.s.list(c.Path)
	if err != nil {
		return nil, err
	}
	now := make(map[string]savedOwner)
	for _, name := range files {
		if _, named := c.File[name]; named {
			continue
		}
		attr, err := p.s.attr(join(c.Path, name))
		if err != nil {
			return nil, err
		}
		if valid, _ := ownerChange(attr, c.fileOwner(name)); !valid.Empty() {
			now[name] = ownerOf(attr)
		}
	}
	return now, nil
}

// chownOthers gives the files that c does not name the container's owner.
func (p *plan) chownOthers(c *savedContainer) error {
	now, err := p.othersOwners(c)
	if err != nil {
		return err
	}
	return p.chownFiles(c, now)
}

func (p *plan) chownFiles(c *savedContainer, files map[string]savedOwner) error {
	for name := range files {
		if err := p.chown(join(c.Path, name), c.fileOwner(name)); err != nil {
			return err
		}
	}
	return nil
}

func parseMode(text string) p9.FileMode {
	mode, _ := octalMode(text) // it has been checked
	return mode
}

// planOwner plans a change of mode and owner of a container, or of a file in it.
func (p *plan) planOwner(key, container, path string, want savedOwner) error {
	if p.made[container] {
		// What it is made with is known when it has been.
		p.shape = append(p.shape, planStep{key: key, do: func() (func() error, error) {
			return nil, p.chown(path, want) // it goes with the container
		}})
		return nil
	}
	attr, err := p.s.attr(path)
	if err != nil {
		return p.fail(key, path, err)
	}
	valid, set := ownerChange(attr, want)
	if valid.Empty() {
		return nil
	}
	now := ownerOf(attr)
	p.shape = append(p.shape, planStep{
		what: fmt.Sprintf("%s: %s -> %s", path, now, want.over(now)), key: key,
		do: func() (func() error, error) {
			back := p9.SetAttr{Permissions: attr.Mode.Permissions(), UID: attr.UID, GID: attr.GID}
			return func() error { return p.setAttr(path, valid, back) }, p.setAttr(path, valid, set)
		},
	})
	return nil
}

func (o savedOwner) String() string {
	return fmt.Sprintf("mode %s owner %d:%d", *o.Mode, *o.UID, *o.GID)
}

// over is what becomes of an owner and mode.
func (o savedOwner) over(now savedOwner) savedOwner {
	if o.Mode == nil {
		o.Mode = now.Mode
	} else {
		mode := modeBits(parseMode(*o.Mode))
		o.Mode = &mode
	}
	if o.UID == nil {
		o.UID = now.UID
	}
	if o.GID == nil {
		o.GID = now.GID
	}
	return o
}

// ownerChange is what has to be set.
func ownerChange(attr p9.Attr, want savedOwner) (valid p9.SetAttrMask, set p9.SetAttr) {
	if want.Mode != nil && parseMode(*want.Mode) != attr.Mode.Permissions() {
		valid.Permissions, set.Permissions = true, parseMode(*want.Mode)
	}
	if want.UID != nil && p9.UID(*want.UID) != attr.UID {
		valid.UID, set.UID = true, p9.UID(*want.UID)
	}
	if want.GID != nil && p9.GID(*want.GID) != attr.GID {
		valid.GID, set.GID = true, p9.GID(*want.GID)
	}
	return valid, set
}

func (p *plan) chown(path string, want savedOwner) error {
	_, err := p.s.change(path, func(now p9.Attr) (p9.SetAttrMask, p9.SetAttr) { return ownerChange(now, want) })
	return err
}

func (p *plan) setAttr(path string, valid p9.SetAttrMask, set p9.SetAttr) error {
	f, err := p.s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.SetAttr(valid, set)
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
		return func() error { return write(p.s, path, []byte(before)) }, p.s.writeFile(path, v.value)
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
	for _, name := range settingOrder(c.Set) {
		now, err := p.s.readFile(join(c.Path, name))
		if err == nil && strings.TrimSuffix(now, "\n") != c.Set[name] {
			err = p.s.writeFile(join(c.Path, name), c.Set[name])
		}
		errs = append(errs, err)
	}
	for _, name := range settingOrder(c.File) {
		errs = append(errs, p.chown(join(c.Path, name), c.File[name]))
	}
	return errors.Join(append(errs, p.chownOthers(c))...)
}

// interruptible is done at the first signal that asks for an end; the next one ends.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	var signals []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	if len(signals) == 0 {
		return parent, func() {} // for signal.NotifyContext it would be all
	}
	ctx, stop = signal.NotifyContext(parent, signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

var errInterrupted = errors.New("interrupted")

// apply makes the changes, or only prints them.
func (p *plan) apply(ctx context.Context, bar *progress) error {
	defer bar.end()
	all := slices.Concat(p.shape, p.settings, p.removals)
	var printed []string
	var undo undoList
	done := 0
	err := p.run(func(s planStep) error {
		if p.dry {
			printed = append(printed, s.what)
			return nil
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		back, err := s.do()
		if err != nil {
			return err
		}
		if back != nil {
			printed = append(printed, s.what)
			undo.add(s.what, back)
		}
		done++
		bar.step(done, len(all))
		return nil
	})
	if err != nil {
		return undo.after(err)
	}
	bar.end()
	for _, line := range printed {
		if line == "" {
			continue
		}
		if _, err := fmt.Fprintln(p.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// run makes the changes with ran. Settings depend on each other in ways that only the
// server knows, as a child's CPUs on its parent's, before or behind: those that are
// refused are tried again as long as others are not.
func (p *plan) run(ran func(planStep) error) error {
	for _, s := range p.shape {
		if err := ran(s); err != nil {
			return p.failed(s, err)
		}
	}
	for pending := p.settings; len(pending) > 0; {
		var refused []planStep
		var first error
		for _, s := range pending {
			err := ran(s)
			if exitCode(err) == exitUnavailable {
				return err
			}
			if errors.Is(err, errInterrupted) {
				return p.failed(s, err)
			}
			if err != nil {
				refused = append(refused, s)
				if first == nil {
					first = p.failed(s, err)
				}
			}
		}
		if len(refused) == len(pending) {
			return first
		}
		pending = refused
	}
	for _, s := range p.removals {
		if err := ran(s); err != nil {
			return p.failed(s, err)
		}
	}
	return nil
}

func (p *plan) failed(s planStep, err error) error {
	what := s.what
	if what == "" {
		what = "owner and mode"
	}
	return fmt.Errorf("apply %s: %s: %w", p.f.at(s.key), what, err)
}
