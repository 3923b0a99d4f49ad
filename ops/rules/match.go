package rules

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Subject is what rules ask of a task.
type Subject struct {
	PID      int32
	UID, GID uint32   // effective
	Groups   []uint32 // supplementary
	Exe      string   // the file that it executes, "" if there is none
	Comm     string   // its own name
}

// Matching are the rules that fit a task, in order.
func (f *File) Matching(s *Subject, n *Names) (rs []*Rule) {
	for _, r := range f.Rules {
		if r.processFits(s) != "" && r.userFits(s, n) != "" {
			rs = append(rs, r)
		}
	}
	return rs
}

// Concerns reports whether the rule is about a hierarchy.
func (r *Rule) Concerns(hierarchy string) bool {
	return r.all || slices.Contains(r.Hierarchies, hierarchy)
}

// Why says by what a rule fits a task, or by what it does not.
func (r *Rule) Why(s *Subject, n *Names) (why string, fits bool) {
	user, process := r.userFits(s, n), r.processFits(s)
	switch {
	case user == "":
		return fmt.Sprintf("%s is not %s", n.User(s.UID), r.User), false
	case process == "":
		return fmt.Sprintf("%s is not the process %s", s.name(), r.Process), false
	}
	return user + ", " + process, true
}

// userFits says how the user of a rule fits, "" if it does not.
func (r *Rule) userFits(s *Subject, n *Names) string {
	if r.User == "*" {
		return "everybody"
	}
	group, isGroup := strings.CutPrefix(r.User, "@")
	if !isGroup {
		if uid, ok := n.uid(r.User); ok && uid == s.UID {
			return "user " + r.User
		}
		return ""
	}
	gid, ok := n.gid(group)
	switch {
	case !ok:
		return ""
	case gid == s.GID:
		return "group " + group
	case slices.Contains(s.Groups, gid):
		return "supplementary group " + group
	case n.member(s.UID, gid):
		return "member of group " + group
	}
	return ""
}

// processFits says how the process of a rule fits, "" if it does not.
func (r *Rule) processFits(s *Subject) string {
	if r.Process == "" {
		return "any process"
	}
	want, starred := strings.CutSuffix(r.Process, "*")
	fits := func(name string) bool {
		return name == want || starred && strings.HasPrefix(name, want)
	}
	switch {
	case want[0] == '/':
		if fits(s.Exe) {
			return "path " + s.Exe
		}
	case s.Exe != "" && fits(path.Base(s.Exe)):
		return "name of " + s.Exe
	case fits(s.Comm) || len(s.Comm) == MaxComm && strings.HasPrefix(want, s.Comm):
		return "process name " + s.Comm
	}
	return ""
}

// MaxComm is how much of a process's own name the kernel keeps.
const MaxComm = 15

// name is what a task calls itself by the file that it executes.
func (s *Subject) name() string {
	if s.Exe == "" {
		return s.Comm
	}
	return s.Exe
}

// verbs are the letters that stand for something after a %.
const verbs = "uUgGpP"

// Path is the destination for a task: the names of the containers from the root of the
// hierarchy on.
func (r *Rule) Path(s *Subject, n *Names) ([]string, error) {
	return r.path(func(verb byte) string {
		switch verb {
		case 'u':
			return n.User(s.UID)
		case 'U':
			return strconv.FormatUint(uint64(s.UID), 10)
		case 'g':
			return n.Group(s.GID)
		case 'G':
			return strconv.FormatUint(uint64(s.GID), 10)
		case 'p':
			if s.Exe != "" {
				return path.Base(s.Exe)
			}
		}
		return strconv.Itoa(int(s.PID))
	})
}

func (r *Rule) path(value func(verb byte) string) (names []string, err error) {
	length := 0
	for _, e := range r.elements {
		var name strings.Builder
		for _, p := range e {
			if p.verb == 0 {
				name.WriteString(p.text)
				continue
			}
			v := value(p.verb)
			if strings.Contains(v, "/") {
				return nil, fmt.Errorf("destination %q: %q for %%%c is no part of a name", r.Destination, v, p.verb)
			}
			name.WriteString(v)
		}
		if name := name.String(); name == "" || name == "." || name == ".." {
			return nil, fmt.Errorf("destination %q: %q is no name of a container", r.Destination, name)
		}
		names = append(names, name.String())
		length += 1 + name.Len()
	}
	if length > maxPath {
		return nil, fmt.Errorf("destination %q: longer than %d bytes", r.Destination, maxPath)
	}
	return names, nil
}
