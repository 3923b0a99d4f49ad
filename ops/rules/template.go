package rules

import (
	"fmt"
	"slices"
	"strings"
)

// Template is what containers have that rules make (option create) at a path of theirs.
type Template struct {
	Path     string            // of the containers, /HIERARCHY/DESTINATION as in a rule
	Set      map[string]string // what is written to their control files
	Delegate bool              // to the user and the group of the process, but for the files in Set

	elements []element // the first one is the hierarchy
}

// NewTemplate makes a Template. The last name of the path of what is delegated has the
// user in it: another one's would be the first user's, with all who come after. Nor can it be
// read as another user's.
func NewTemplate(path string, set map[string]string, delegate bool) (*Template, error) {
	t := &Template{Path: path, Set: set, Delegate: delegate}
	var err error
	if t.elements, err = parseElements(path); err != nil {
		return nil, err
	}
	switch {
	case len(t.elements) < 2 || !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("%q: want /HIERARCHY/CONTAINER, the container as in a rule", path)
	case t.Hierarchy() == "":
		return nil, fmt.Errorf("%q: the first name is a hierarchy's", path)
	case checkHierarchy(t.Hierarchy()) != nil:
		return nil, fmt.Errorf("%q: %w", path, checkHierarchy(t.Hierarchy()))
	case delegate && !t.elements[len(t.elements)-1].hasUser():
		return nil, fmt.Errorf("%q: what is delegated has %%u or %%U in its last name", path)
	case delegate && !t.elements[len(t.elements)-1].isApart():
		return nil, fmt.Errorf("%q: what is delegated has something between %%u or %%U and another %%", path)
	case delegate && !t.elements[len(t.elements)-1].isOneUsers():
		return nil, fmt.Errorf("%q: %%p is the choice of who executes it, who could have the name that is another user's: want %%U first, and no digit behind it", path)
	case !delegate && len(set) == 0:
		return nil, fmt.Errorf("%q: want something to be set, or delegated", path)
	}
	return t, nil
}

// Hierarchy is the name of the hierarchy.
func (t *Template) Hierarchy() string {
	if e := t.elements[0]; len(e) == 1 {
		return e[0].text
	}
	return ""
}

// For reports whether a template is for what a rule makes in a hierarchy by the first n
// names of its destination.
func (t *Template) For(hierarchy string, r *Rule, n int) bool {
	return t.Hierarchy() == hierarchy && slices.EqualFunc(t.elements[1:], r.elements[:n], slices.Equal[element])
}

// Is reports whether two templates are for the same containers.
func (t *Template) Is(o *Template) bool {
	return slices.EqualFunc(t.elements, o.elements, slices.Equal[element])
}

// IsUsed reports whether a rule can make containers by the template. None can that makes
// nothing, or that is behind one which decides for all whom it is for.
func (t *Template) IsUsed(rules []*Rule) bool {
	h, n := t.Hierarchy(), len(t.elements)-1
	for i, r := range rules {
		if !r.Create || r.Ignore || !r.Concerns(h) || n > len(r.elements) || !t.For(h, r, n) {
			continue
		}
		if !slices.ContainsFunc(rules[:i], func(before *Rule) bool { return before.Concerns(h) && before.covers(r) }) {
			return true
		}
	}
	return false
}

// covers reports whether a rule decides wherever another one could, in a hierarchy that
// both name.
func (r *Rule) covers(o *Rule) bool {
	return !r.Ignore && (r.User == "*" || r.User == o.User) && (r.Process == "" || r.Process == o.Process)
}

func (e element) hasUser() bool {
	return slices.ContainsFunc(e, func(p part) bool { return p.verb == 'u' || p.verb == 'U' })
}

// isApart reports whether where the user is said to be in a name nothing that varies is beside.
func (e element) isApart() bool {
	for i, p := range e {
		if i > 0 && p.verb != 0 && e[i-1].verb != 0 && (element{e[i-1], p}).hasUser() {
			return false
		}
	}
	return true
}

// isOneUsers reports whether no user can choose a program's name so that the whole is what it
// is for another.
func (e element) isOneUsers() bool {
	if !slices.ContainsFunc(e, func(p part) bool { return p.verb == 'p' }) {
		return true
	}
	return e[0].verb == 'U' && e[1].verb == 0 && (e[1].text[0] < '0' || e[1].text[0] > '9')
}
