package bc

import (
	"maps"
	"os"
	"strconv"
	"strings"

	"containerfs/tree"
)

// Rows are what a state store offers a subsystem, for the rlimits of processes that
// were lowered: a server that is started again gives them back.
type Rows interface {
	// Write sets rows, those with nil values are removed, and returns when that
	// is kept, all or nothing.
	Write(rows map[string][]byte) error

	All(f func(key string, value []byte)) error
}

// memory is what is in Rows. Guarded by changeMu, after Remember.
type memory struct {
	rows Rows
	boot string
	last map[string]string // by tgid
}

// remembered are the caps of a process in another life, until the first Resync is
// over. Guarded by the Tree's mu.
type remembered struct {
	start uint64 // or a little later
	caps  caps
}

// Remember has caps kept in rows, and those of another life known. What a process
// has of its own is kept before it is lowered; children have their forker's, and
// rows of their own as of the last Enforce. It is called before there are tasks.
func (s *Subsystem) Remember(rows Rows) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	s.memory = &memory{rows: rows, boot: string(boot), last: make(map[string]string)}
	s.before = make(map[int32]remembered)
	return rows.All(func(key string, value []byte) {
		s.memory.last[key] = string(value)
		tgid, err := strconv.ParseInt(key, 10, 32)
		if row, ok := strings.CutPrefix(string(value), s.memory.boot); ok && err == nil {
			if r, ok := readRow([]byte(row)); ok {
				s.before[int32(tgid)] = r
			}
		}
	})
}

// row is what is kept of a process, by a thread of it.
func (m *memory) row(thread *tree.Task, k *caps) (key, row string) {
	b := tree.AppendNumbers([]byte(m.boot), thread.Start())
	for _, r := range capped {
		b = tree.AppendNumbers(b, k[r].own.Soft, k[r].own.Hard, k[r].bound, k[r].was)
	}
	return strconv.Itoa(int(thread.TGID())), string(b)
}

func readRow(b []byte) (r remembered, ok bool) {
	all := []*uint64{&r.start}
	for _, c := range capped {
		k := &r.caps[c]
		all = append(all, &k.own.Soft, &k.own.Hard, &k.bound, &k.was)
	}
	return r, tree.Numbers(b, all...) == nil
}

// recall are the caps that a process had in another life, nil for none. With mu
// held.
func (s *Subsystem) recall(first *tree.Task) *caps {
	r, ok := s.before[first.TGID()]
	if !ok || s.tree.Settled() {
		return nil
	}
	if first.Start() > r.start {
		return nil // a later one of its number
	}
	return &r.caps
}

// keepAhead keeps what the plans are going to lower. Under changeMu.
func (s *Subsystem) keepAhead(plans ...*plan) error {
	m := s.memory
	if m == nil {
		return nil
	}
	rows := make(map[string]string)
	for _, p := range plans {
		if p.lowers() {
			k := p.unfinished()
			key, row := m.row(p.thread, &k)
			rows[key] = row
		}
	}
	return m.write(rows)
}

// write writes those of rows that are not kept like that; "" is for none.
func (m *memory) write(rows map[string]string) error {
	changes := make(map[string][]byte)
	for key, row := range rows {
		switch last, ok := m.last[key]; {
		case row == "" && ok:
			changes[key] = nil
		case row != last:
			changes[key] = []byte(row)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := m.rows.Write(maps.Clone(changes)); err != nil {
		return err
	}
	for key, row := range changes {
		if row == nil {
			delete(m.last, key)
		} else {
			m.last[key] = string(row)
		}
	}
	return nil
}

// keepCaps writes what has changed of the caps. Under changeMu.
func (s *Subsystem) keepCaps() {
	m := s.memory
	if m == nil {
		return
	}
	rows := make(map[string]string)
	settled := false
	s.tree.Update(func() {
		if settled = s.tree.Settled(); !settled {
			return
		}
		s.before = nil
		if len(s.caps) == 0 {
			return
		}
		s.tree.EachProcess(func(p *tree.Process, thread *tree.Task) {
			if k := s.caps[p]; k != nil {
				key, row := m.row(thread, k)
				rows[key] = row
			}
		})
	})
	if !settled {
		return // who is there is not known yet
	}
	for key := range m.last {
		if _, ok := rows[key]; !ok {
			rows[key] = ""
		}
	}
	if err := m.write(rows); err != nil {
		s.log.Warn("the rlimits that processes had before they were lowered could not be kept", "err", err)
	}
}

// Close keeps what processes have of their own.
func (s *Subsystem) Close() error {
	if s.tree == nil {
		return nil
	}
	return s.tree.Change(func() error {
		s.keepCaps()
		return nil
	})
}
