package ops

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"containerfs/tree"
)

// options is a parsed option string (SPEC §1).
type options struct {
	subsystems   tree.SubsystemSet
	noprefix     bool
	name         string
	releaseAgent string
	hasAgent     bool
}

var hierarchyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$`)

// reserved are the names that no hierarchy can have: those of the files beside
// it, and words of option strings that would not be told from it.
var reserved = map[string]bool{
	"ctl": true, "containers": true, "events": true, "proc": true,
	"rules": true, "self": true, "noprefix": true,
}

// parseOptions parses an option string: tokens split on `,` or `+`, read left to
// right, the first error wins. A string that is not present means all. agents
// says whether who asks may name a release agent.
func (fs *FS) parseOptions(s string, present, agents bool) (o options, err error) {
	if !present {
		s = "all"
	}
	for token := range strings.SplitSeq(strings.ReplaceAll(s, "+", ","), ",") {
		if err := fs.parseToken(&o, token, agents); err != nil {
			return options{}, err
		}
	}
	if o.subsystems == 0 {
		return options{}, fmt.Errorf("no subsystem among the options: %w", syscall.EINVAL)
	}
	return o, nil
}

func (fs *FS) parseToken(o *options, token string, agents bool) error {
	key, value, hasValue := strings.Cut(token, "=")
	switch {
	case token == "":
		return fmt.Errorf("empty option: %w", syscall.EINVAL)
	case token == "all":
		o.subsystems |= fs.all
		return nil
	case token == "noprefix":
		o.noprefix = true
		return nil
	case hasValue && key == "name":
		if o.name != "" || !validHierarchyName(value) {
			return fmt.Errorf("name= twice, or %q cannot be a name: %w", value, syscall.EINVAL)
		}
		o.name = value
		return nil
	case hasValue && key == "release_agent":
		if o.hasAgent {
			return fmt.Errorf("release_agent= twice: %w", syscall.EINVAL)
		}
		if err := checkAgent(value, agents); err != nil {
			return err
		}
		o.releaseAgent, o.hasAgent = value, true
		return nil
	}
	if id := fs.subsystem(token); id >= 0 {
		o.subsystems |= 1 << id
		return nil
	}
	if slices.Contains(fs.apart, token) {
		return fmt.Errorf("%s is only there when the server is started with --enable %[1]s: %w", token, syscall.ENOENT)
	}
	return fmt.Errorf("option %q is no subsystem: %w", token, syscall.ENOENT)
}

func validHierarchyName(name string) bool {
	return hierarchyName.MatchString(name) && !reserved[name]
}

// showOptions is the option string of a hierarchy as it is shown. View.
func showOptions(h *tree.Hierarchy) string {
	t := h.Tree()
	s := t.Names(h.Subsystems(), ",")
	if h.Noprefix() {
		s += ",noprefix"
	}
	if h.Name() != t.CanonicalName(h.Subsystems(), h.Noprefix()) {
		s += ",name=" + h.Name()
	}
	if agent := rootOf(h).agent; agent != "" {
		s += ",release_agent=" + agent
	}
	return s
}

// mount mounts by options. EINVAL when two control files would have the same
// name, EBUSY when the hierarchy that there is already has another release agent;
// everything else is tree.Mount's.
func (fs *FS) mount(o options, hold bool) (*tree.Hierarchy, error) {
	if o.noprefix {
		if err := fs.checkClashes(o.subsystems); err != nil {
			return nil, err
		}
	}
	return fs.tree.Mount(tree.Mount{
		Subsystems: o.subsystems,
		Noprefix:   o.noprefix,
		Name:       o.name,
		Canonical:  !validHierarchyName(o.name),
		Hold:       hold,
		Data: func() any {
			root := &rootAttrs{agent: o.releaseAgent, log: newEventLog(fs.recorder.limit)}
			root.init(fs.uid, fs.gid, 0o755)
			return root
		},
		Reuse: func(h *tree.Hierarchy) error {
			if o.hasAgent && o.releaseAgent != rootOf(h).agent {
				return fmt.Errorf("%s has another release agent: %w", h.Name(), syscall.EBUSY)
			}
			return nil
		},
	})
}

// checkClashes refuses subsystems of which two files would have the same name
// without prefixes.
func (fs *FS) checkClashes(set tree.SubsystemSet) error {
	seen := make(map[string]bool)
	for i := range coreRows {
		seen[coreRows[i].name] = true
	}
	for id := range fs.names {
		if !set.Has(id) {
			continue
		}
		for _, f := range fs.tree.Files(id) {
			if seen[f.Name] {
				return fmt.Errorf("two files would be %s without prefixes: %w", f.Name, syscall.EINVAL)
			}
			seen[f.Name] = true
		}
	}
	return nil
}
