package controller

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// Core is the subsystem of the files that version 2 gives every directory,
// whatever its controllers: freeze and kill.
const Core = "cgroup"

// Names are the controllers that can be asked for, in the order of their
// registration.
var Names = []string{
	"cpu", "memory", "blkio", "io", "devices", "freezer", "net_cls", "net_prio",
	"pids", "hugetlb", "perf_event", "rdma", "misc", Core,
}

// facts are what the kernel says of its controllers.
type facts struct {
	known   map[string]bool     // those of the kernel; true: not switched off
	v1      map[string][]string // by controller: the set of the version 1 hierarchy that it is in
	v2      []string            // at hand in version 2
	mounts  map[string]string   // by set, joined by commas: where the hierarchy is mounted as a whole
	unified string              // where version 2 is mounted, if it is
	mirrors map[string]string   // by controller: the mirror, of whatever server, that has it
}

// AbsentError is about a controller that this kernel does not have. Unlike one that is in
// use somewhere else, it cannot be had later either.
type AbsentError struct{ message string }

func (e *AbsentError) Error() string { return e.message }

func absentf(format string, args ...any) error {
	return &AbsentError{fmt.Sprintf(format, args...)}
}

// place is where the host has a controller.
type place struct {
	version int
	set     []string // of version 1: all controllers of the hierarchy
	mount   string   // where it is mounted, "" for nowhere
	fresh   bool     // there is no such hierarchy yet
}

// openRoot opens the root directory of the kernel's hierarchy.
func (p *place) openRoot() (*kernfs.Dir, error) {
	switch {
	case p.mount != "":
		return kernfs.OpenDir(p.mount)
	case p.version == 2:
		return kernfs.OpenUnified()
	}
	root, err := kernfs.OpenControllers(p.set...)
	if errors.Is(err, unix.EINVAL) {
		return nil, absentf("%s of version 1 is switched off in this kernel (cgroup_no_v1): %v", join(p.set), err)
	}
	return root, err
}

// Left is the base that a server with this id has left in the kernel's hierarchy of a controller
// of version 1, "" if there is none.
func Left(name, id string) string {
	f, err := probe()
	if err != nil {
		return ""
	}
	at, err := f.find(name)
	if err != nil || at.version != 1 || at.fresh {
		return ""
	}
	root, err := at.openRoot()
	if err != nil {
		return ""
	}
	defer root.Close()
	base, err := root.Open(prefix + id)
	if err != nil {
		return ""
	}
	base.Close()
	return "/" + prefix + id
}

// probe asks the host.
func probe() (*facts, error) {
	var text [3][]byte
	for i, name := range []string{"cgroups", "self/cgroup", "self/mountinfo"} {
		b, err := os.ReadFile("/proc/" + name)
		if err != nil && !(i == 0 && errors.Is(err, os.ErrNotExist)) { // a kernel without version 1
			return nil, err
		}
		text[i] = b
	}
	f := parseFacts(text[0], text[1], text[2])
	root, err := f.openUnified()
	if err != nil {
		return f, nil // there is none
	}
	defer root.Close()
	list, err := root.Read("cgroup.controllers", nil)
	if err != nil {
		return nil, err
	}
	f.v2 = strings.Fields(string(list))
	return f, nil
}

// Look finds the names of the control files of controllers, by controller and without its
// name before them, where the host has a directory that shows them. It makes none: of version
// 2 there may be no such directory yet, and of a version 1 hierarchy that is mounted nowhere
// nothing is seen.
func Look(names []string) map[string][]string {
	seen := make(map[string][]string)
	f, err := probe()
	if err != nil {
		return seen
	}
	for _, name := range names {
		at, err := f.find(name)
		if err != nil || at.mount == "" {
			continue
		}
		dirs := []string{at.mount}
		if at.version == 2 { // the kernel's root lacks most of them
			dirs, _ = filepath.Glob(filepath.Join(at.mount, "*", name+".*"))
			for i, file := range dirs {
				dirs[i] = filepath.Dir(file)
			}
		}
		for _, dir := range dirs[:min(len(dirs), 1)] {
			d, err := kernfs.OpenDir(dir)
			if err != nil {
				continue
			}
			files, _ := d.Files()
			d.Close()
			for _, row := range (&Subsystem{name: name}).rows(files) {
				seen[name] = append(seen[name], row.Name)
			}
		}
	}
	return seen
}

func (f *facts) openUnified() (*kernfs.Dir, error) {
	if f.unified != "" {
		return kernfs.OpenDir(f.unified)
	}
	return kernfs.OpenUnified()
}

// parseFacts reads /proc/cgroups, /proc/self/cgroup and /proc/self/mountinfo.
func parseFacts(cgroups, self, mountinfo []byte) *facts {
	f := &facts{known: map[string]bool{}, v1: map[string][]string{}, mounts: map[string]string{}, mirrors: map[string]string{}}
	for name, c := range kernfs.ParseControllers(string(cgroups)) {
		f.known[name] = c.Enabled
	}
	kernfs.ParseNamed(string(self), func(name string, controllers []string) {
		if !strings.HasPrefix(name, kernfs.MirrorPrefix) {
			return
		}
		for _, c := range controllers {
			f.mirrors[c] = name
		}
	})
	for list := range kernfs.Memberships(self) {
		if len(list) == 0 {
			continue
		}
		set := controllersOf(strings.Split(string(list), ","))
		for _, name := range set {
			f.v1[name] = set
		}
	}
	for line := range bytes.Lines(mountinfo) {
		// 36 35 98:0 /root /point opts optional... - type source super
		before, after, ok := strings.Cut(string(line), " - ")
		w, m := strings.Fields(before), strings.Fields(after)
		if !ok || len(w) < 5 || len(m) < 3 || w[3] != "/" {
			continue
		}
		switch point := unescape(w[4]); m[0] {
		case "cgroup2":
			f.unified = point
		case "cgroup":
			for _, set := range f.v1 {
				if options := strings.Split(m[2], ","); slices.Contains(options, set[0]) {
					f.mounts[strings.Join(set, ",")] = point
				}
			}
		}
	}
	return f
}

// controllersOf leaves the hierarchy's name out, sorted.
func controllersOf(list []string) (set []string) {
	for _, name := range list {
		if !strings.Contains(name, "=") {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	return set
}

// unescape undoes mountinfo's \040 for space, tab, newline and backslash.
func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(n))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// find says where a controller is, or why it cannot be had.
func (f *facts) find(name string) (place, error) {
	enabled, known := f.known[name]
	switch set := f.v1[name]; {
	case !slices.Contains(Names, name) && name != "cpuset" && name != "cpuacct":
		return place{}, fmt.Errorf("%s is no controller", name)
	case f.mirrors[name] != "":
		return place{}, fmt.Errorf("%s is in the mirror %s of a server", name, f.mirrors[name])
	case len(set) > 0:
		return place{version: 1, set: set, mount: f.mounts[strings.Join(set, ",")]}, nil
	case slices.Contains(f.v2, name), name == Core && f.unified != "":
		return place{version: 2, mount: f.unified}, nil
	case name == Core:
		return place{}, errors.New("version 2 of cgroups is not mounted here")
	case name == "blkio" && slices.Contains(f.v2, "io"): // which a hierarchy of blkio would be taken from
		return place{}, absentf("blkio is in version 2 here, which calls it io")
	case known && enabled:
		return place{version: 1, set: []string{name}, fresh: true}, nil
	case known:
		return place{}, absentf("%s is switched off in this kernel (cgroup_disable)", name)
	}
	return place{}, absentf("this kernel has no controller %s; it has in version 1 %s, in version 2 %s",
		name, join(keys(f.v1)), join(f.v2))
}

func keys(m map[string][]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func join(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
