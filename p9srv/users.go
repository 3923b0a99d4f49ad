package p9srv

import (
	"errors"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/hugelgupf/p9/linux"

	"containerfs/p9srv/wire"
)

// namesKept bounds for how long and for how many ids a name is remembered: a listing
// asks for the same few again and again, and passwd is a file, or a network away.
const (
	namesKept    = 4096
	namesKeptFor = time.Minute
)

// ids translates between numbers and names of the server's passwd or group.
// Whoever has no name is told as digits.
type ids struct {
	name func(id string) (string, error)
	look func(name string) (id string, err error)

	mu    sync.Mutex
	names map[uint32]keptName
}

type keptName struct {
	name  string
	until time.Time
}

var userNames = ids{
	name: func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	},
	look: func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	},
}

var groupNames = ids{
	name: func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	},
	look: func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	},
}

// of is the name of an id.
func (t *ids) of(id uint32) string {
	now := time.Now()
	t.mu.Lock()
	k, ok := t.names[id]
	t.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.name
	}
	digits := strconv.FormatUint(uint64(id), 10)
	name, err := t.name(digits)
	if err != nil || name == "" {
		name = digits
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil || len(t.names) >= namesKept {
		t.names = make(map[uint32]keptName)
	}
	t.names[id] = keptName{name, now.Add(namesKeptFor)}
	return name
}

// id is the id of a name: EINVAL for one that is neither known nor digits.
func (t *ids) id(name string) (uint32, error) {
	digits, err := t.look(name)
	if errors.As(err, new(user.UnknownUserError)) || errors.As(err, new(user.UnknownGroupError)) {
		digits = name
	} else if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || uint32(id) == wire.NoUID {
		return 0, linux.EINVAL
	}
	return uint32(id), nil
}
