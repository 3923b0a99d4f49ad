package cpuset

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"strconv"

	"containerfs/tree"
)

// Rows are what a state store offers a subsystem, for the origins of members: a
// server that is started again gives who leaves for the root the CPUs back that he
// had.
type Rows interface {
	// Write sets rows, those with nil values are removed, and returns when that
	// is kept.
	Write(rows map[string][]byte) error

	All(f func(key string, value []byte)) error
}

// memory is what is in Rows. Only Enforce and Close use it, after Remember.
type memory struct {
	rows Rows
	boot string
	last map[string]string // by tid
}

// remembered are the origins of another life, by tid, until the first Resync is
// over. Guarded by the Tree's mu.
type remembered struct {
	start  uint64 // or later
	origin Set
}

// Remember has origins kept in rows, as of the last Enforce, and those of another
// life known. It is called before there are tasks.
func (s *Subsystem) Remember(rows Rows) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	s.memory = &memory{rows: rows, boot: string(boot), last: make(map[string]string)}
	s.before = make(map[int32]remembered)
	return rows.All(func(key string, value []byte) {
		s.memory.last[key] = string(value)
		tid, err := strconv.ParseInt(key, 10, 32)
		if text, ok := bytes.CutPrefix(value, []byte(s.memory.boot)); ok && err == nil {
			var r remembered
			if r.start, r.origin, ok = readOrigin(text); ok {
				s.before[int32(tid)] = r
			}
		}
	})
}

func readOrigin(text []byte) (start uint64, origin Set, ok bool) {
	start, n := binary.Uvarint(text)
	if n <= 0 {
		return 0, nil, false
	}
	var words []uint64
	for text = text[n:]; len(text) > 0; text = text[n:] {
		var w uint64
		if w, n = binary.Uvarint(text); n <= 0 || len(words) == maxSaved {
			return 0, nil, false
		}
		words = append(words, w)
	}
	return start, trim(words), true
}

// recall is the origin of a member that was one before the server was. mu.
func (s *Subsystem) recall(task *tree.Task) (origin Set) {
	r, ok := s.before[task.TID()]
	if !ok || s.tree.Settled() {
		return nil
	}
	if task.Start() > r.start {
		return nil // a later one of its tid
	}
	return r.origin
}

// keepOrigins writes what has changed of the origins.
func (s *Subsystem) keepOrigins() {
	m := s.memory
	if m == nil {
		return
	}
	now := make(map[string]string)
	settled := false
	s.tree.Update(func() {
		if settled = s.tree.Settled(); !settled {
			return
		}
		s.before = nil
		for task, origin := range s.origins {
			if task.Live() && !origin.Empty() {
				row := tree.AppendNumbers([]byte(m.boot), task.Start())
				now[strconv.Itoa(int(task.TID()))] = string(tree.AppendNumbers(row, origin...))
			}
		}
	})
	if !settled {
		return // who was a member is not known yet
	}
	changes := make(map[string][]byte)
	for key, row := range now {
		if m.last[key] != row {
			changes[key] = []byte(row)
		}
	}
	for key := range m.last {
		if _, ok := now[key]; !ok {
			changes[key] = nil
		}
	}
	if len(changes) == 0 {
		return
	}
	if err := m.rows.Write(maps.Clone(changes)); err != nil {
		s.log.Warn("the CPUs that tasks had before they became members could not be kept", "err", err)
		return
	}
	m.last = now
}
