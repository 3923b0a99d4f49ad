package cpuacct

import (
	"encoding/binary"
	"syscall"

	"containerfs/tree"
)

// Save is tree.Saver's: what was counted, and what stat has told.
func (s *Subsystem) Save(c *tree.Container, b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(c)
	told := shown{}
	if st.shown != nil {
		told = *st.shown
	}
	if st.total == (Times{}) && told == (shown{}) {
		return b
	}
	return tree.AppendNumbers(b, st.total.Run, st.total.User, st.total.System, told.user, told.system)
}

// NothingSaved is what Save appends of a container where nothing was counted, if it has to
// append something.
var NothingSaved = make([]byte, saved)

const saved = 5 // numbers

// SplitSaved parts what Save has appended from what is saved of the kernel's controller, behind it.
func SplitSaved(b []byte) (ours, kernel []byte, err error) {
	n := 0
	for range saved {
		_, size := binary.Uvarint(b[n:])
		if size <= 0 && len(b) > 0 {
			return nil, nil, syscall.EINVAL
		}
		n += size
	}
	return b[:n], b[n:], nil
}

// Restore is tree.Saver's. What was counted since is not forgotten: where more is kept, a reset
// is taken back. How far the tasks that are there are credited is in the memory.
func (s *Subsystem) Restore(c *tree.Container, b []byte) error {
	b, _, err := SplitSaved(b)
	if err != nil {
		return err
	}
	var total Times
	var told shown
	if len(b) > 0 {
		if err := tree.Numbers(b, &total.Run, &total.User, &total.System, &told.user, &told.system); err != nil {
			return err
		}
		if told.user > total.Run || told.system > total.Run-told.user {
			return syscall.EINVAL
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(c)
	if total.Run <= st.total.Run {
		return nil
	}
	st.total, st.shown = total, nil
	if told != (shown{}) {
		st.shown = &told
	}
	return nil
}
