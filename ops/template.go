package ops

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"containerfs/ops/rules"
	"containerfs/tree"
)

// template is one in force.
type template struct {
	*rules.Template
	made atomic.Uint64 // containers, since it is in force
}

// makingName is what a container goes by until it has all that its template gives it. Whoever
// finds it by its own name finds it whole, also after the server was killed in between; what is
// left then is removed before the next one is made.
const makingName = ".making"

// templateFor is the template of what a rule makes by the first n names of its destination.
func (s *ruleSet) templateFor(h *tree.Hierarchy, r *rules.Rule, n int) *template {
	i := slices.IndexFunc(s.templates, func(t *template) bool { return t.For(h.Name(), r, n) })
	if i < 0 {
		return nil
	}
	return s.templates[i]
}

// errMaking is for who would have others wait in vain for the name.
var errMaking = fmt.Errorf("a container goes by that name while it is made: %w", syscall.EINVAL)

// make makes a container for a process, by a template if it is not nil: EEXIST as mkdir. It
// returns when all that was done for it is kept, with one wait for the disk.
func (c *Classifier) make(parent *tree.Container, name string, t *template, s *rules.Subject) (made *tree.Container, err error) {
	if t == nil {
		made, err = c.mkdir(parent, name, true)
	} else {
		made, err = c.makeBy(t, parent, name, s)
	}
	if err = c.tell(err); err == nil {
		if t != nil {
			t.made.Add(1)
		}
		return made, nil
	}
	left := false
	c.fs.tree.View(func() { left = made != nil && !made.Removed() })
	if left {
		err = errors.Join(err, c.rmdir(parent, made, makingName), c.tell(nil))
	}
	return nil, err
}

// makeBy makes a container by a template; with an error it is what there is of it. What cannot
// have its name is not begun: many names are chosen by who executes a program.
func (c *Classifier) makeBy(t *template, parent *tree.Container, name string, s *rules.Subject) (*tree.Container, error) {
	err := checkName(name)
	if err == nil {
		c.fs.tree.View(func() {
			if _, e := (containerDir{parent}).lookup(c.fs, name); e == nil {
				err = syscall.EEXIST
			}
		})
	}
	if err != nil {
		return nil, err
	}
	set, forTasks, err := c.settings(parent, t)
	if err != nil {
		return nil, err
	}
	failures := c.fs.failures()
	made, err := c.mkdir(parent, makingName, forTasks)
	if errors.Is(err, syscall.EEXIST) {
		var left *tree.Container
		c.fs.tree.View(func() { left = parent.Child(makingName) })
		if left != nil {
			if err := c.rmdir(parent, left, makingName); err != nil {
				return nil, fmt.Errorf("%s is left: %w", makingName, err)
			}
		}
		made, err = c.mkdir(parent, makingName, forTasks)
	}
	if err != nil {
		return nil, err
	}
	if err = c.fill(made, t, set); err == nil {
		err = c.name(made, name, t, s, failures)
	}
	return made, err
}

func (c *Classifier) mkdir(parent *tree.Container, name string, forTasks bool) (*tree.Container, error) {
	d := deed{op: "mkdir", node: containerDir{parent}, name: name, resolved: c.fs.resolved()}
	made, err := c.at.mkdir(parent, name, 0o755, forTasks)
	return made, c.did(d, err)
}

func (c *Classifier) rmdir(parent, child *tree.Container, name string) error {
	d := deed{op: "rmdir", node: containerDir{parent}, name: name, resolved: c.fs.resolved()}
	return c.did(d, c.at.remove(containerDir{child}, true, nil))
}

// did notes a deed and what it came to, for tell.
func (c *Classifier) did(d deed, err error) error {
	if err == nil {
		c.fs.stamp(&d)
	}
	c.untold = append(c.untold, done{d, err})
	return err
}

// done is a deed with what it came to.
type done struct {
	deed
	err error
}

// tell ends what was noted as told does, and returns the reason why not all of it is done and
// kept. Err is what the whole came to by itself.
func (c *Classifier) tell(err error) error {
	var lost error // what was done, and is not kept
	for _, d := range c.untold {
		if e := c.at.told(d.deed, d.err); d.err == nil && lost == nil {
			lost = e
		}
	}
	c.untold = nil
	return cmp.Or(lost, err)
}

// settings are what is written to a new container, and whether it has been made for tasks
// before that. It has not where its template sets cpus or mems of a cpuset, for those of the
// parent may be what it cannot have beside others: then it is given the parent's of what the
// template does not set.
func (c *Classifier) settings(parent *tree.Container, t *template) (set map[string]string, forTasks bool, err error) {
	set, forTasks = make(map[string]string), true
	maps.Copy(set, t.Set)
	c.fs.tree.View(func() {
		for _, r := range c.fs.table(parent).rows {
			if base := strings.TrimPrefix(r.name, "cpuset."); !c.fs.isCpuset(r) || base != "cpus" && base != "mems" {
				continue
			}
			if _, ok := t.Set[r.name]; ok {
				forTasks = false
				continue
			}
			var value []byte
			if value, err = c.fs.controlFile(parent, r).read(c.at, nil); err != nil {
				return
			}
			set[r.name] = string(value)
		}
	})
	if forTasks {
		return t.Set, true, err
	}
	return set, false, err
}

// isCpuset reports whether a file is one of cpuset's.
func (fs *FS) isCpuset(r *row) bool { return r.ofSubsystem() && fs.names[r.subsystem()] == "cpuset" }

// checkSettings says of templates which of their files no container can have set, where it is
// mounted what they are for: nothing is made by these.
func (fs *FS) checkSettings(templates []*rules.Template) {
	for _, t := range templates {
		h, err := fs.find(t.Hierarchy())
		if err != nil {
			continue
		}
		var files map[string]*row
		fs.tree.View(func() { files = fs.tableIn(h, false).byName })
		for _, name := range SettingOrder(t.Set) {
			switch r := files[name]; {
			case r == nil:
				fs.log.Warn("a template sets a file that there is not", "path", t.Path, "file", name)
			case r.write == nil:
				fs.log.Warn("a template sets a file that cannot be written", "path", t.Path, "file", name)
			}
		}
	}
}

// SettingOrder sorts names of control files, with those behind that others have to come
// before: a set is exclusive once there is one.
func SettingOrder[T any](m map[string]T) []string {
	isLate := func(name string) int {
		if strings.HasSuffix(name, "exclusive") {
			return 1
		}
		return 0
	}
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(isLate(a)-isLate(b), strings.Compare(a, b))
	})
}

// fill writes what is set to the control files of a new container. What one file
// takes may depend on another: those that failed are tried again for as long as one is taken.
func (c *Classifier) fill(made *tree.Container, t *template, set map[string]string) error {
	for files := SettingOrder(set); len(files) > 0; {
		var failed []string
		var first error
		for _, name := range files {
			if err := c.write(made, name, set[name]); err != nil {
				failed = append(failed, name)
				first = cmp.Or(first, fmt.Errorf("template %s: %s: %w", t.Path, name, err))
			}
		}
		if len(failed) == len(files) {
			return first
		}
		files = failed
	}
	return nil
}

// write writes to a control file, as echo does, each line of a value by itself: that is how
// the kernel takes those of files with a line for each device.
func (c *Classifier) write(to *tree.Container, name, value string) error {
	var f controlFile
	c.fs.tree.View(func() {
		if r := c.fs.table(to).byName[name]; r != nil {
			f = c.fs.controlFile(to, r)
		}
	})
	if f.r == nil {
		return syscall.ENOENT
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(value, "\n"), "\n") {
		data, resolved := []byte(line+"\n"), c.fs.resolved()
		err := errTooLong
		if len(data) <= MaxWrite {
			err = f.write(c.at, data)
		}
		if err = c.did(deed{op: "write", node: f, data: data, resolved: resolved}, err); err != nil {
			return err
		}
	}
	return nil
}

// name gives a container that has all that its template sets its name, and in the same change
// to whom it is delegated. Until then it is the server's, so that nobody is in it or has opened
// its files, and what is left of it can be removed. It gets none if something of it is undone by
// then, where a commit has failed since there were so many failures.
func (c *Classifier) name(made *tree.Container, name string, t *template, s *rules.Subject, failures uint64) error {
	d := deed{op: "rename", node: containerDir{made.Parent()}, name: makingName, to: name, resolved: c.fs.resolved()}
	var also func(*tree.Container)
	if t.Delegate {
		also = func(*tree.Container) { c.delegate(made, t.Set, s) }
	}
	isWhole := func(found *tree.Container) error {
		if found != made {
			return errRenamed
		}
		if c.fs.failures() == failures {
			return nil
		}
		for _, d := range c.untold {
			if d.err != nil {
				continue
			}
			if err := c.fs.journal.Await(d.number, true); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	d.changed, err = c.at.rename(d.node, makingName, d.node, name, isWhole, also)
	if err = c.did(d, err); err == nil && t.Delegate {
		_ = c.did(deed{op: "setattr", node: containerDir{made}, set: fmt.Sprintf("uid=%d gid=%d", s.UID, s.GID), resolved: d.resolved}, nil)
	}
	return err
}

// delegate gives a container to the user and the group of a process, with its control files
// but for some, and for those of cpuset: with them its user could have it take no process, and
// those that its rule is for would stay where it does not limit them. Update.
func (c *Classifier) delegate(made *tree.Container, but map[string]string, s *rules.Subject) {
	a := attrsOf(made)
	for _, r := range c.fs.table(made).rows {
		if _, ok := but[r.name]; ok || c.fs.isCpuset(r) {
			a.setFile(r.id, a.file(r))
		}
	}
	c.fs.recorder.chown(a.dir.uid, s.UID, false)
	a.dir.uid, a.dir.gid = s.UID, s.GID
	a.makerUID, a.makerGID = s.UID, s.GID
}
