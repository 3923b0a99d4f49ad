package cpuset

import (
	"bytes"
	"encoding/json"
	"syscall"

	"containerfs/tree"
)

// Save is tree.Saver's. A root's sets are the machine's.
func (s *Subsystem) Save(c *tree.Container, b []byte) []byte {
	st := s.state(c)
	sets := st.sets
	if c.IsRoot() {
		if st.flags == rootFlags {
			return b
		}
		sets = [resources]Set{}
	} else if st.flags == 0 && sets[cpus].Empty() && sets[mems].Empty() {
		return b
	}
	b = tree.AppendNumbers(b, uint64(st.flags), uint64(len(sets[cpus])))
	b = tree.AppendNumbers(b, sets[cpus]...)
	return tree.AppendNumbers(b, sets[mems]...)
}

// maxSaved bounds the words of a set that was saved: of 65,536 CPUs.
const maxSaved = 1 << 16 / wordBits

// SplitSaved parts what Save has appended to what is saved of the kernel's controller, a JSON
// object or nothing: no flags begin as an object does.
func SplitSaved(b []byte) (kernel, ours []byte, err error) {
	if !bytes.HasPrefix(b, []byte("{")) {
		return nil, b, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	var object json.RawMessage
	if err := d.Decode(&object); err != nil {
		return nil, nil, err
	}
	return object, b[d.InputOffset():], nil
}

// Restore is tree.Saver's. What is not online stays configured. What a server had set in
// files of the kernel's controller is not there without that.
func (s *Subsystem) Restore(c *tree.Container, b []byte) error {
	kernel, b, err := SplitSaved(b)
	if err != nil {
		return err
	}
	if kernel != nil {
		s.log.Warn("what was set in files of the kernel's cpuset is lost without --enable cpuset", "path", c.Path(), "settings", string(kernel))
	}
	now := state{}
	if c.IsRoot() {
		now.flags = rootFlags
	}
	if len(b) > 0 {
		words, err := tree.AllNumbers(b)
		if err != nil {
			return err
		}
		if len(words) < 2 || len(words) > 2+2*maxSaved || words[0] >= uint64(memoryMigrate)<<1 || words[1] > uint64(len(words)-2) {
			return syscall.EINVAL
		}
		now.flags = flags(words[0])
		words, split := words[2:], words[1]
		now.sets[cpus] = trim(append([]uint64{}, words[:split]...))
		now.sets[mems] = trim(append([]uint64{}, words[split:]...))
	}
	st := s.state(c)
	if c.IsRoot() {
		now.sets = st.sets
	}
	var was, is [resources]Set
	for r := range resources {
		was[r] = s.inForce(c, r)
		if p := c.Parent(); p != nil {
			if parents := s.state(p).sets[r]; now.sets[r].Equal(parents) {
				now.sets[r] = parents // one copy for both
			}
		}
	}
	settled := false
	s.tree.Update(func() {
		*st = now
		settled = s.tree.Settled()
	})
	if settled && s.before != nil {
		if err := s.before(c); err != nil {
			s.log.Warn("what could not be kept is taken back, and the kernel did not take that yet", "path", c.Path(), "err", err)
		}
	}
	for r := range resources {
		if is[r] = s.inForce(c, r); settled && !is[r].Equal(was[r]) {
			s.apply(c, r, was[r], is[r])
		}
	}
	return nil
}
