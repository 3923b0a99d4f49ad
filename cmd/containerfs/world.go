package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/cmd/containerfs/internal/localhost"
	"containerfs/subsys"
)

// hostFact begins the line of ctl that says which host the server is on.
const hostFact = "host: "

// hierarchyInfo is an active hierarchy as ctl shows it.
type hierarchyInfo struct {
	Name       string   `json:"name"`
	Options    string   `json:"options"`
	Subsystems []string `json:"subsystems"`
	Mounted    bool     `json:"mounted"`
}

// world is what a server says of itself in ctl.
type world struct {
	hierarchies []hierarchyInfo
	facts       []string
}

// errConfined is of a listener with attach=.
var errConfined = fmt.Errorf("its listener shows one hierarchy or container only (attach=), which has none: %w", linux.ENOENT)

func (s *session) world() (*world, error) {
	text, err := s.readFile("/ctl")
	if errors.Is(err, linux.ENOENT) {
		err = errConfined
	}
	if err != nil {
		return nil, &pathError{"read", "/ctl", err}
	}
	w := new(world)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if fact, ok := strings.CutPrefix(line, "# "); ok {
			w.facts = append(w.facts, fact)
			continue
		}
		name, opts, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("ctl of the server has a line %q", line)
		}
		h := hierarchyInfo{Name: name, Mounted: true}
		if rest, ok := strings.CutSuffix(opts, " (unmounted)"); ok {
			opts, h.Mounted = rest, false
		}
		h.Options = opts
		for opt := range strings.SplitSeq(withoutAgent(opts), ",") {
			if opt != "noprefix" && !strings.Contains(opt, "=") {
				h.Subsystems = append(h.Subsystems, opt)
			}
		}
		w.hierarchies = append(w.hierarchies, h)
	}
	return w, nil
}

// fact is what follows a beginning of one of the lines about the host.
func (w *world) fact(prefix string) (string, bool) {
	for _, f := range w.facts {
		if rest, ok := strings.CutPrefix(f, prefix); ok {
			return rest, true
		}
	}
	return "", false
}

// hierarchy is the one of a name, or nil.
func (w *world) hierarchy(name string) *hierarchyInfo {
	for i := range w.hierarchies {
		if w.hierarchies[i].Name == name {
			return &w.hierarchies[i]
		}
	}
	return nil
}

var errNotLocal = errors.New("this needs the server's own host: the server is on another one, or in another pid namespace")

// here reports whether the server is on this host, and a pid the same to both.
func (w *world) here() bool {
	theirs, ok := w.fact(hostFact)
	ours, err := localhost.Identity()
	return ok && err == nil && theirs == ours
}

// isHere is here for a command that can do without what ctl says.
func (s *session) isHere() bool {
	w, err := s.world()
	return err == nil && w.here()
}

// needHere is errNotLocal unless the server is on this host.
func (s *session) needHere() error {
	w, err := s.world()
	if isGone(err) {
		return errNotLocal // we are shown one container, and nothing of the host
	}
	if err != nil {
		return err
	}
	if !w.here() {
		return errNotLocal
	}
	return nil
}

// place is the container that a task is in, of one hierarchy.
type place struct {
	Hierarchy  string   `json:"hierarchy"`
	Subsystems []string `json:"subsystems"`
	Path       string   `json:"path"` // in the hierarchy
}

// dir is the container's directory.
func (p place) dir() string { return "/" + p.Hierarchy + strings.TrimSuffix(p.Path, "/") }

// places are the containers of a task, the newest hierarchy's first. A hierarchy
// that is not mounted has no directories: its name is empty.
func (s *session) places(w *world, tid int) ([]place, error) {
	text, err := s.readFile(fmt.Sprintf("/proc/%d/container", tid))
	if err != nil {
		return nil, err
	}
	var all []place
	for line := range strings.Lines(text) {
		// Names of subsystems have no colon, and a path can have one.
		names, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			return nil, fmt.Errorf("the server has a line %q", line)
		}
		p := place{Subsystems: strings.Split(names, ","), Path: path}
		for _, h := range w.hierarchies {
			if h.Mounted && slices.Equal(h.Subsystems, p.Subsystems) {
				p.Hierarchy = h.Name
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// readFile is a control file's whole contents.
func (s *session) readFile(path string) (string, error) {
	var b strings.Builder
	err := read(s, &b, path)
	return b.String(), err
}

// writeFile gives a control file a command.
func (s *session) writeFile(path, command string) error {
	return write(s, path, []byte(command+"\n"))
}

// setFile has a control file show a value in place of what it shows now, by as many commands
// as the kernel wants for that.
func (s *session) setFile(path, now, value string) error {
	for _, command := range subsys.Commands(path[strings.LastIndexByte(path, '/')+1:], now, value) {
		if err := s.writeFile(path, command); err != nil {
			return err
		}
	}
	return nil
}

// resetFile has a control file show a value that it had, whatever it shows now.
func (s *session) resetFile(path, value string) error {
	now, err := s.readFile(path)
	if err != nil {
		now = "" // one that cannot be read
	}
	return s.setFile(path, now, value)
}

// numbers reads the ids in a control file, one a line.
func (s *session) numbers(path string) ([]int, error) {
	text, err := s.readFile(path)
	if err != nil {
		return nil, err
	}
	var all []int
	for line := range strings.Lines(text) {
		n, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("the server has a line %q in it", line)
		}
		all = append(all, n)
	}
	return all, nil
}

// list lists a container: its control files and its children.
func (s *session) list(path string) (files, children []string, err error) {
	dir, err := s.walk(path)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	entries, err := readdir(dir)
	for _, e := range entries {
		if e.QID.Type&p9.TypeDir != 0 || e.Type == p9.TypeDir {
			children = append(children, e.Name)
		} else {
			files = append(files, e.Name)
		}
	}
	return files, children, err
}

// stat is the number of what a path names, and its attributes.
func (s *session) stat(path string) (p9.QID, p9.Attr, error) {
	f, err := s.walk(path)
	if err != nil {
		return p9.QID{}, p9.Attr{}, err
	}
	defer f.Close()
	qid, _, attr, err := f.GetAttr(p9.AttrMaskAll)
	return qid, attr, err
}

// attr is the attributes of a path.
func (s *session) attr(path string) (p9.Attr, error) {
	_, attr, err := s.stat(path)
	return attr, err
}

// isGone is true of what was removed, or ended, since it was found.
func isGone(err error) bool {
	return errors.Is(err, linux.ENOENT) || errors.Is(err, linux.ENODEV) || errors.Is(err, linux.ESRCH)
}

// isRoot reports whether files are those of a hierarchy's root: nothing else has an agent.
func isRoot(files []string) bool { return slices.Contains(files, "release_agent") }

// withoutAgent are the options of a hierarchy as ctl shows them, but for the release agent,
// which comes last: a comma can be in it.
func withoutAgent(options string) string {
	options, _, _ = strings.Cut(options, ",release_agent=")
	return options
}

// join is the path of an entry in a directory.
func join(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// clean is a path without doubled and trailing slashes.
func clean(path string) string { return "/" + strings.Join(split(path), "/") }

// containers calls do for a container and all below it, parents first. One that is
// removed meanwhile is left out, unless it is the first.
func (s *session) containers(path string, do func(path string, depth int, files []string) error) error {
	return s.visible(path, do, nil)
}

// visible is containers, which goes on behind one below the first that we may not list:
// hidden is told of it, unless it is nil.
func (s *session) visible(path string, do func(path string, depth int, files []string) error, hidden func(path string, depth int)) error {
	var walk func(path string, depth int) error
	walk = func(path string, depth int) error {
		files, children, err := s.list(path)
		switch {
		case err == nil:
		case depth > 0 && isGone(err):
			return nil
		case depth > 0 && hidden != nil && errors.Is(err, linux.EACCES):
			hidden(path, depth)
			return nil
		default:
			return &pathError{"list", path, err}
		}
		if err := do(path, depth, files); err != nil {
			return err
		}
		for _, name := range children {
			if err := walk(join(path, name), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(path, 0)
}

// tops are the containers that a path stands for: itself, or every mounted
// hierarchy's root for / where that is not a container.
func (s *session) tops(path string) ([]string, error) {
	if path = clean(path); path != "/" {
		return []string{path}, nil
	}
	w, err := s.world()
	if isGone(err) {
		return []string{"/"}, nil // the server shows us one container only
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, h := range w.hierarchies {
		if h.Mounted {
			all = append(all, "/"+h.Name)
		}
	}
	return all, nil
}
