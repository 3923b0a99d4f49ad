package ops

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// topDir is the root of the name space: `/` of SPEC §2.
type topDir struct{}

func (topDir) qid() p9.QID  { return dirQID(qidTopDir) }
func (topDir) parent() node { return topDir{} }

func (topDir) attr(fs *FS) (perm, p9.Attr, error) {
	nlink := 3 // proc
	for h := range fs.tree.Hierarchies {
		if h.Published() {
			nlink++
		}
	}
	return fs.fixedDir(nlink)
}

// topFile is a fixed entry of the root directory.
type topFile struct {
	name string
	node node
}

// topFiles are all of them.
var topFiles = []topFile{
	{"ctl", ctlFile{}},
	{"containers", subsystemTable{}},
	{"events", eventsFile{}},
	{"rules", rulesFile{}},
	{"proc", procDir{}},
}

func (topDir) lookup(fs *FS, name string) (node, error) {
	for _, f := range topFiles {
		if f.name == name {
			return f.node, nil
		}
	}
	if h := fs.tree.Published(name); h != nil {
		return containerDir{h.Root()}, nil
	}
	if name == StatusName {
		return statusFile{topDir{}}, nil
	}
	return nil, syscall.ENOENT
}

func (topDir) list(f *file, after uint64, yield func(entry) bool) error {
	for i := after; i < uint64(len(topFiles)); i++ {
		if !yield(entry{topFiles[i].name, topFiles[i].node.qid(), i + 1}) {
			return nil
		}
	}
	for h := range f.at.fs.tree.Hierarchies {
		offset := offsetChildren + h.Number()
		if h.Published() && offset > after && !yield(entry{h.Name(), containerDir{h.Root()}.qid(), offset}) {
			break
		}
	}
	return nil
}

// unmounted is what ctl and messages have behind a hierarchy that is out of sight (SPEC §1).
const unmounted = " (unmounted)"

// ctlFile is ctl: reading lists the active hierarchies with their options, and
// the facts about the host; writing mounts, remounts and unmounts, and moves a process
// into several hierarchies at once.
type ctlFile struct{}

func (ctlFile) qid() p9.QID  { return fileQID(qidCtl) }
func (ctlFile) drains() bool { return false }

// attr: everybody may open it, since it is the write that is refused, with EPERM
// (SPEC §1).
func (ctlFile) attr(fs *FS) (perm, p9.Attr, error) { return fs.fixedFile(0o666) }

func (ctlFile) read(at *attachment, b []byte) ([]byte, error) {
	for h := range at.fs.tree.Hierarchies {
		b = fmt.Appendf(b, "%s %s", h.Name(), showOptions(h))
		if !h.Published() {
			b = append(b, unmounted...)
		}
		b = append(b, '\n')
	}
	for _, fact := range at.fs.facts {
		// One of several errors has several lines.
		b = fmt.Appendf(b, "# %s\n", strings.ReplaceAll(fact, "\n", "; "))
	}
	return b, nil
}

// write executes one of ctlCommands.
func (ctlFile) write(at *attachment, data []byte) error {
	command := strings.TrimSuffix(string(data), "\n")
	word, _, _ := strings.Cut(command, " ")
	for _, c := range ctlCommands {
		switch {
		case c.word != word:
		case !c.everybody && !at.privileged():
			return tree.ErrNotPrivileged
		default:
			return c.run(at, command)
		}
	}
	if err := at.actor.CheckPrivileged(); err != nil {
		return err
	}
	return fmt.Errorf("the commands are %s: %w", strings.Join(CtlCommands(), ", "), syscall.EINVAL)
}

// errWords is for a command of ctl with too few words or too many.
func errWords(usage string) error { return fmt.Errorf("it is `%s`: %w", usage, syscall.EINVAL) }

// ctlCommands are the commands of ctl, by their first word. They are run without the
// newline at their end.
var ctlCommands = []struct {
	word      string
	everybody bool // may ask for it; else the privileged
	run       func(at *attachment, command string) error
}{
	{"mount", false, (*attachment).ctlMount},
	{"remount", false, (*attachment).ctlRemount},
	{"umount", false, (*attachment).ctlUmount},
	{"attach", true, (*attachment).attachPaths},
}

// CtlCommands are the first words of the commands that ctl knows: the manual has to have
// all of them.
func CtlCommands() (words []string) {
	for _, c := range ctlCommands {
		words = append(words, c.word)
	}
	return words
}

// mountWords takes `WORD NAME [OPTIONS]` apart.
func (at *attachment) mountWords(command string) (name string, o options, err error) {
	words := strings.Split(command, " ")
	if n := len(words); n < 2 || n > 3 {
		return "", o, errWords(words[0] + " NAME [OPTIONS]")
	}
	o, err = at.fs.parseOptions(strings.Join(words[2:], ""), len(words) == 3, at.mayNameAgents())
	return words[1], o, err
}

// ctlMount is `mount NAME [OPTIONS]`.
func (at *attachment) ctlMount(command string) error {
	name, o, err := at.mountWords(command)
	if err != nil {
		return err
	}
	return at.fs.mountNamed(name, o)
}

// ctlRemount is `remount NAME [OPTIONS]`.
func (at *attachment) ctlRemount(command string) error {
	name, o, err := at.mountWords(command)
	if err != nil {
		return err
	}
	fs := at.fs
	h, err := fs.find(name)
	switch {
	case err != nil:
		return err
	case o.name != "" && o.name != name:
		return fmt.Errorf("its name stays %s: %w", name, syscall.EINVAL)
	}
	if o.noprefix {
		if err := fs.checkClashes(o.subsystems); err != nil {
			return err
		}
	}
	return fs.tree.Remount(tree.RemountRequest{
		Hierarchy:  h,
		Subsystems: o.subsystems,
		Noprefix:   o.noprefix,
		Done: func() {
			if o.hasAgent {
				rootOf(h).agent = o.releaseAgent
			}
			fs.renewFiles(h)
		},
	})
}

// ctlUmount is `umount NAME`.
func (at *attachment) ctlUmount(command string) error {
	words := strings.Split(command, " ")
	if len(words) != 2 {
		return errWords("umount NAME")
	}
	h, err := at.fs.find(words[1])
	if err != nil {
		return err
	}
	return at.fs.tree.Unmount(h)
}

// find is the mounted hierarchy of a name, or ENOENT.
func (fs *FS) find(name string) (h *tree.Hierarchy, err error) {
	fs.tree.View(func() { h = fs.tree.Published(name) })
	if h == nil {
		err = errNoHierarchy
	}
	return h, err
}

// subsystemTable is containers: a row per subsystem (SPEC §9).
type subsystemTable struct{}

func (subsystemTable) qid() p9.QID                        { return fileQID(qidTable) }
func (subsystemTable) drains() bool                       { return false }
func (subsystemTable) attr(fs *FS) (perm, p9.Attr, error) { return fs.fixedFile(0o444) }
func (subsystemTable) write(*attachment, []byte) error    { return errReadOnly }

func (subsystemTable) read(at *attachment, b []byte) ([]byte, error) {
	b = append(b, "#subsys_name\thierarchy\tnum_containers\tenabled\n"...)
	for id, name := range at.fs.names {
		number, count := uint64(0), 1
		if h := at.fs.tree.Bound(id); h != nil {
			number, count = h.Number(), h.Containers()
		}
		b = fmt.Appendf(b, "%s\t%d\t%d\t1\n", name, number, count)
	}
	return b, nil
}

// newestFirst are the active hierarchies, the newest first. View.
func (fs *FS) newestFirst() []*tree.Hierarchy {
	hs := slices.Collect(fs.tree.Hierarchies)
	slices.Reverse(hs)
	return hs
}
