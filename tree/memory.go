package tree

import (
	"bytes"
	"maps"
	"strconv"
)

// A Memory has what a subsystem knows of tasks, and the host does not show, outlive
// the server: what they had before they became members, to be given back to them.
//
// A Memo is what is known of one task, or of a process by one of its threads; a row is
// a Memo as it is kept, under the tid or tgid. A row is of one boot of the host: in
// another all tasks are others. In the same one a task is told from a later one of its
// number by its start time. An earlier one there cannot be: it would have had the
// number all along.
//
// Only what differs from what is kept is written, all or nothing. Rows of tasks that are
// not there any more, of another boot, and those that cannot be read are removed by the
// first Keep that knows who is there. What could not be written is written the next time.
//
// A nil Memory knows nothing and keeps nothing.
//
// Recall and Knows are for callbacks with mu held. Add and Keep wait for the store, so they are
// called without mu, and one at a time: who calls both does it under changeMu.
type Memory struct {
	rows Rows
	boot string
	kept map[string]string // what is in rows

	// before is what an earlier server kept, by tid or tgid, until it is known who is
	// there. Guarded by the Tree's mu.
	before map[int32]Memo
}

// A Memo is what a Memory keeps of a task.
type Memo struct {
	Start   uint64   // the task's, or a thread's of the process, or later
	Numbers []uint64 // not changed any more
}

// Rows are what a state store offers a subsystem.
type Rows interface {
	// Write sets rows, those with nil values are removed, and returns when that
	// is kept, all or nothing.
	Write(rows map[string][]byte) error

	All(f func(key string, value []byte)) error
}

// NewMemory is the Memory of what is in rows, in the boot of the host that has this id.
// It is made before there are tasks. With an error the Memory knows only a part of what
// was kept; it can be used all the same.
func NewMemory(rows Rows, boot string) (*Memory, error) {
	m := &Memory{rows: rows, boot: boot, kept: make(map[string]string), before: make(map[int32]Memo)}
	return m, rows.All(func(key string, value []byte) {
		m.kept[key] = string(value)
		id, err := strconv.ParseInt(key, 10, 32)
		row, ok := bytes.CutPrefix(value, []byte(boot))
		if !ok || err != nil {
			return
		}
		if numbers, err := AllNumbers(row); err == nil && len(numbers) > 0 {
			m.before[int32(id)] = Memo{numbers[0], numbers[1:]}
		}
	})
}

// Recall returns the numbers that an earlier server kept of a task that a Fork of the
// first Resync tells of; nil if it kept nothing of it. With mu held.
func (m *Memory) Recall(t *Tree, task *Task) []uint64 {
	if m == nil || t.settled {
		return nil
	}
	memo, ok := m.before[task.TID()]
	if !ok || task.Start() > memo.Start {
		return nil
	}
	return memo.Numbers
}

// Knows reports whether an earlier server kept anything, as long as Recall tells of it: who
// is not recalled then was not kept.
func (m *Memory) Knows(t *Tree) bool { return m != nil && !t.settled && len(m.before) > 0 }

// Add keeps memos, by tid or tgid, beside what is kept of others, or in its place.
func (m *Memory) Add(memos map[int32]Memo) error {
	if m == nil {
		return nil
	}
	return m.write(m.encode(memos))
}

// Keep keeps what collect, called with mu held, puts into memos, by tid or tgid, and
// nothing else. As long as it is not known who is there it does nothing.
func (m *Memory) Keep(t *Tree, collect func(memos map[int32]Memo)) error {
	if m == nil {
		return nil
	}
	memos := make(map[int32]Memo)
	settled := false
	t.Update(func() {
		if settled = t.settled; settled {
			m.before = nil
			collect(memos)
		}
	})
	if !settled {
		return nil
	}
	rows := m.encode(memos)
	for key := range m.kept {
		if _, ok := rows[key]; !ok {
			rows[key] = nil
		}
	}
	return m.write(rows)
}

func (m *Memory) encode(memos map[int32]Memo) map[string][]byte {
	rows := make(map[string][]byte, len(memos))
	for id, memo := range memos {
		row := AppendNumbers([]byte(m.boot), memo.Start)
		rows[strconv.Itoa(int(id))] = AppendNumbers(row, memo.Numbers...)
	}
	return rows
}

// write writes those of rows that are not kept like that; nil is for none.
func (m *Memory) write(rows map[string][]byte) error {
	maps.DeleteFunc(rows, func(key string, row []byte) bool {
		kept, ok := m.kept[key]
		return ok && row != nil && kept == string(row)
	})
	if len(rows) == 0 {
		return nil
	}
	if err := m.rows.Write(rows); err != nil {
		return err
	}
	for key, row := range rows {
		if row == nil {
			delete(m.kept, key)
		} else {
			m.kept[key] = string(row)
		}
	}
	return nil
}
