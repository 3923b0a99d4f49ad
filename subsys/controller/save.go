package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// settings are what clients have set in a node's files, by file: the kernel keeps it
// over a restart of the server, and loses it when the host is booted again. Guarded
// by the Tree's mu.
type settings struct {
	// Values are what files showed after they were written.
	Values map[string]string `json:"values,omitempty"`

	// Devices are the writes to devices.allow and devices.deny, which show
	// nothing, as NAME VALUE.
	Devices []string `json:"devices,omitempty"`

	// before is what files showed before the first write, for one that cannot be
	// kept.
	before map[string]string
}

// maxDevices bounds what is remembered of a container's devices.
const maxDevices = 256

// noteBefore notes what a file shows that nobody has set yet. No lock is held.
func (n *node) noteBefore(name string, dir *kernfs.Dir) {
	known := false
	n.t.tree.View(func() {
		_, set := n.set.Values[name]
		_, noted := n.set.before[name]
		known = set || noted
	})
	if known {
		return
	}
	b, err := dir.Read(name, nil)
	if err != nil {
		return
	}
	n.t.tree.Update(func() {
		if n.set.before == nil {
			n.set.before = make(map[string]string)
		}
		if _, noted := n.set.before[name]; !noted {
			n.set.before[name] = string(b)
		}
	})
}

// command has the kernel take a write, and notes what that has set. No lock is held while
// the kernel takes its time.
func (n *node) command(f kernfs.File, dir *kernfs.Dir, data []byte) error {
	switch {
	case f.Reads:
		n.noteBefore(f.Name, dir)
		if err := dir.Command(f.Name, data); err != nil {
			return err
		}
		n.remember(f.Name, dir)
		return nil
	case f.Name == "devices.allow" || f.Name == "devices.deny":
		return n.changeDevices(f.Name, dir, data)
	}
	return dir.Command(f.Name, data)
}

// remember notes what a file shows that was written. Of several writers the last one
// finds what the kernel has in the end.
func (n *node) remember(name string, dir *kernfs.Dir) {
	n.t.noting.Lock()
	defer n.t.noting.Unlock()
	b, err := dir.Read(name, nil)
	if err != nil {
		return
	}
	n.t.tree.Update(func() {
		if n.set.Values == nil {
			n.set.Values = make(map[string]string)
		}
		n.set.Values[name] = string(b)
	})
}

// changeDevices is a write to devices.allow or devices.deny. As nothing shows in which
// order the kernel took several, they are made one after the other.
func (n *node) changeDevices(name string, dir *kernfs.Dir, data []byte) error {
	n.t.noting.Lock()
	defer n.t.noting.Unlock()
	n.noteBefore(devicesList, dir)
	if err := dir.Command(name, data); err != nil {
		return err
	}
	n.t.tree.Update(func() {
		line := name + " " + strings.TrimSpace(string(data))
		if line == "devices.allow a" || line == "devices.deny a" {
			n.set.Devices = nil // all before is undone
		}
		n.set.Devices = slices.DeleteFunc(n.set.Devices, func(s string) bool { return s == line })
		if len(n.set.Devices) < maxDevices {
			n.set.Devices = append(n.set.Devices, line)
		}
	})
	return nil
}

// devicesList shows what devices are allowed, unless that is all but some.
const devicesList = "devices.list"

// devicesBack are the writes that take back those to devices.allow and devices.deny that are not
// kept. What an earlier one had set of the same devices is set again: it is among those that are
// kept, or in the list from before the first.
func (n *node) devicesBack(kept []string) (writes []string) {
	list, noted := n.set.before[devicesList]
	now := n.set.Devices
	switch {
	case !noted:
		return kept
	case slices.Equal(now, kept):
		return nil
	}
	again := kept
	if len(kept) > 0 && strings.HasSuffix(kept[0], " a") {
		if list = ""; kept[0] == "devices.allow a" {
			list = "a"
		}
		if len(now) > 0 && now[0] == kept[0] {
			again = kept[1:] // where there are containers below, it is not taken
		}
	}
	all := strings.HasPrefix(list, "a") // but some, which are denied
	undoes, undone := "devices.deny ", "devices.allow "
	if all {
		undoes, undone = undone, undoes
	}
	for _, line := range slices.Backward(now) {
		if slices.Contains(kept, line) {
			continue
		}
		if devices, ok := strings.CutPrefix(line, undone); ok {
			writes = append(writes, undoes+devices)
		} else if strings.HasSuffix(line, " a") {
			writes = append(writes, undoes+"a")
		}
	}
	if !all {
		for line := range strings.Lines(list) {
			writes = append(writes, "devices.allow "+strings.TrimSuffix(line, "\n"))
		}
	}
	return append(writes, again...)
}

// own is what clients have set in the files of the subsystem. With mu.
func (s *Subsystem) own(n *node) *settings {
	own := new(settings)
	for name, value := range n.set.Values {
		if s.owns(name) {
			if own.Values == nil {
				own.Values = make(map[string]string)
			}
			own.Values[name] = value
		}
	}
	if s.owns("devices.allow") {
		own.Devices = slices.Clone(n.set.Devices)
	}
	return own
}

// Save appends what clients have set in the files of the subsystem. With mu.
func (s *Subsystem) Save(c *tree.Container, b []byte) []byte {
	n := s.node(c)
	if n == nil {
		return b
	}
	own := s.own(n)
	if own.Values == nil && own.Devices == nil {
		return b
	}
	text, err := json.Marshal(own)
	if err != nil {
		return b
	}
	return append(b, text...)
}

// Restore sets what Save has appended, where the kernel does not have it any more, or when
// a change of it could not be kept: then a file that nobody had set before gets what it
// showed. What the kernel refuses, such as a limit for a disk that is not there, is
// said. Under changeMu.
func (s *Subsystem) Restore(c *tree.Container, saved []byte) error {
	n := s.node(c)
	var own settings
	if len(saved) > 0 {
		if err := json.Unmarshal(saved, &own); err != nil {
			return fmt.Errorf("settings of %s: %w", s.name, err)
		}
	}
	values := maps.Clone(own.Values)
	for name := range n.set.Values {
		before, noted := n.set.before[name]
		if _, kept := values[name]; s.owns(name) && noted && !kept {
			if values == nil {
				values = make(map[string]string)
			}
			values[name] = before
		}
	}
	starts := !s.t.adopted
	s.t.tree.View(func() { starts = starts && !s.t.tree.Settled() })
	devices := own.Devices
	if !starts && s.owns("devices.allow") {
		devices = n.devicesBack(own.Devices)
	}
	writes := (&settings{Values: values, Devices: devices}).commands(n.set.Values)
	for _, w := range writes {
		if name, _, _ := strings.Cut(w, " "); !s.owns(name) {
			return fmt.Errorf("settings of %s: %s is not its file", s.name, name)
		}
	}
	lost := "a setting that could not be kept cannot be taken back"
	if starts {
		lost = "a setting of before the host was booted cannot be set again"
	}
	if starts && n.adopted {
		writes = nil // the kernel has it
	}
	if s.limits != nil {
		s.limits.forget(n)
	}
	s.setAll(c, writes, lost)
	s.t.tree.Update(func() {
		maps.DeleteFunc(n.set.Values, func(name, _ string) bool { return s.owns(name) })
		if s.owns("devices.allow") {
			n.set.Devices = nil
		}
		for name, value := range own.Values {
			if n.set.Values == nil {
				n.set.Values = make(map[string]string)
			}
			n.set.Values[name] = value
		}
		if own.Devices != nil {
			n.set.Devices = own.Devices
		}
	})
	return nil
}

// setAll sets files of a container. What is refused is said. Under changeMu.
func (s *Subsystem) setAll(c *tree.Container, writes []string, lost string) {
	// One can be what another has to be below: what is refused is tried again when
	// others were not.
	for len(writes) > 0 {
		var refused []string
		var errs []error
		for _, w := range writes {
			name, value, _ := strings.Cut(w, " ")
			if err := s.Set(c, name, value); err != nil {
				refused, errs = append(refused, w), append(errs, err)
			}
		}
		if len(refused) == len(writes) {
			for i, w := range refused {
				name, value, _ := strings.Cut(w, " ")
				s.t.log.Warn(lost, "path", c.Path(), "file", name, "value", value, "err", errs[i])
			}
			return
		}
		writes = refused
	}
}

// setAgain sets what clients have set in a directory that was made again, and tells of it. Under
// changeMu.
func (n *node) setAgain() {
	c := n.c
	if n == n.t.base && n.t.hier != nil {
		c = n.t.hier.Root()
	}
	for _, s := range n.t.subs {
		if !s.bound || c == nil {
			continue
		}
		var own *settings
		n.t.tree.View(func() { own = s.own(n) })
		s.setAll(c, own.commands(nil), "a setting cannot be set again")
		if s.again != nil && !c.IsRoot() {
			s.again(c)
		}
	}
}

// commands are the writes that make settings, as NAME VALUE, of files that show something
// now, as far as that is known.
func (s *settings) commands(now map[string]string) (writes []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		for _, value := range Commands(name, now[name], s.Values[name]) {
			writes = append(writes, name+" "+value)
		}
	}
	return append(writes, s.Devices...)
}

// Commands are what has to be written to a control file, one after the other, for it to
// show something: of one line as it is, else each line by itself, after those that undo
// what the file shows now for devices of which there is no line any more.
func Commands(name, now, want string) (all []string) {
	reset, byDevice := resets(name)
	now, want = strings.TrimSuffix(now, "\n"), strings.TrimSuffix(want, "\n")
	if !byDevice && name != "memory.oom_control" && !strings.Contains(want, "\n") {
		return []string{want}
	}
	for line := range strings.Lines(now) {
		device, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if byDevice && device != "default" && !strings.Contains("\n"+want, "\n"+device+" ") {
			all = append(all, device+" "+reset)
		}
	}
	for line := range strings.Lines(want) {
		line = strings.TrimSuffix(line, "\n")
		switch value, ok := strings.CutPrefix(line, "oom_kill_disable "); {
		case name != "memory.oom_control":
		case ok:
			line = value
		default:
			continue // what has happened
		}
		all = append(all, line)
	}
	return all
}

// resets tells of the files that have a line for each device with a setting: what is
// written for a device so that it has none.
func resets(name string) (value string, byDevice bool) {
	switch {
	case name == "io.max":
		return "rbps=max wbps=max riops=max wiops=max", true
	case name == "io.latency":
		return "target=0", true
	case name == "rdma.max":
		return "hca_handle=max hca_object=max", true
	case name == "misc.max":
		return "max", true
	case name == "io.weight", name == "io.bfq.weight", strings.HasPrefix(name, "blkio.") && strings.HasSuffix(name, "weight_device"):
		return "default", true
	case strings.HasPrefix(name, "blkio.throttle."):
		return "0", true
	}
	return "", false
}

// owns reports whether the subsystem has a file, by the kernel's name.
func (s *Subsystem) owns(name string) bool {
	return slices.ContainsFunc(s.files, func(f tree.File) bool { return s.name+"."+f.Name == name })
}
