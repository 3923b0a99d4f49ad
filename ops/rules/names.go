package rules

import (
	"errors"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Names translates names of users and groups by the host's databases, and remembers
// the answers for a while: an exec storm asks for the same few again and again. Where the
// databases cannot be asked the last answer holds: for whom nobody knew for a moment the
// next rule would decide. It may be used concurrently.
type Names struct {
	mu   sync.Mutex
	kept map[question]answer
}

// question is what was asked of the databases.
type question struct {
	what byte // u, g: number of a name; U, G: name of a number; m: groups of a user
	name string
}

type answer struct {
	text   string
	groups []string
	ok     bool
	until  time.Time
}

const (
	namesKept    = 4096
	namesKeptFor = 10 * time.Second
)

func (n *Names) ask(what byte, name string) answer {
	q := question{what, name}
	now := time.Now()
	n.mu.Lock()
	a, known := n.kept[q]
	n.mu.Unlock()
	if known && now.Before(a.until) {
		return a
	}
	if fresh, err := look(q); err == nil || !known {
		a = fresh
	}
	a.until = now.Add(namesKeptFor)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept == nil || len(n.kept) >= namesKept {
		n.kept = make(map[question]answer)
	}
	n.kept[q] = a
	return a
}

var look = inDatabases // another in a test

// inDatabases asks them. An error is that they cannot be asked, which is not that nobody has
// the name.
func inDatabases(q question) (a answer, err error) {
	switch q.what {
	case 'u':
		var u *user.User
		if u, err = user.Lookup(q.name); err == nil {
			a = answer{text: u.Uid, ok: true}
		}
	case 'g':
		var g *user.Group
		if g, err = user.LookupGroup(q.name); err == nil {
			a = answer{text: g.Gid, ok: true}
		}
	case 'U', 'm':
		var u *user.User
		if u, err = user.LookupId(q.name); err != nil {
			break
		}
		if q.what == 'm' {
			a.groups, err = u.GroupIds()
		}
		a.text, a.ok = u.Username, u.Username != ""
	case 'G':
		var g *user.Group
		if g, err = user.LookupGroupId(q.name); err == nil {
			a = answer{text: g.Name, ok: g.Name != ""}
		}
	}
	if errors.As(err, new(user.UnknownUserError)) || errors.As(err, new(user.UnknownGroupError)) ||
		errors.As(err, new(user.UnknownUserIdError)) || errors.As(err, new(user.UnknownGroupIdError)) {
		err = nil
	}
	return a, err
}

// uid is the number of a user. A name of digits that nobody has is a number.
func (n *Names) uid(name string) (uint32, bool) { return n.number('u', name) }

// gid is the number of a group, likewise.
func (n *Names) gid(name string) (uint32, bool) { return n.number('g', name) }

func (n *Names) number(what byte, name string) (uint32, bool) {
	digits := name
	if a := n.ask(what, name); a.ok {
		digits = a.text
	}
	id, err := strconv.ParseUint(digits, 10, 32)
	return uint32(id), err == nil && uint32(id) != ^uint32(0)
}

// User is the name of a user, or the number of one who has none.
func (n *Names) User(uid uint32) string { return n.nameOf('U', uid) }

// Group is the name of a group, likewise.
func (n *Names) Group(gid uint32) string { return n.nameOf('G', gid) }

func (n *Names) nameOf(what byte, id uint32) string {
	digits := strconv.FormatUint(uint64(id), 10)
	if a := n.ask(what, digits); a.ok {
		return a.text
	}
	return digits
}

// member reports whether the database has a user in a group.
func (n *Names) member(uid, gid uint32) bool {
	a := n.ask('m', strconv.FormatUint(uint64(uid), 10))
	return slices.Contains(a.groups, strconv.FormatUint(uint64(gid), 10))
}

// Unknown are the users and groups of a file that nobody knows, as written, with the
// lines that name them: these rules fit nobody.
func (f *File) Unknown(n *Names) (rs []*Rule) {
	for _, r := range f.Rules {
		ok := true
		switch {
		case r.User == "*":
		case r.User[0] == '@':
			_, ok = n.gid(r.User[1:])
		default:
			_, ok = n.uid(r.User)
		}
		if !ok {
			rs = append(rs, r)
		}
	}
	return rs
}
