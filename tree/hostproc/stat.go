package hostproc

import (
	"bytes"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// Bits of a task's flags, include/linux/sched.h.
const (
	flagExiting = 0x00000004
	flagKernel  = 0x00200000
)

// A stat is what is used of /proc/<pid>/stat.
type stat struct {
	pid     int32
	state   byte
	ppid    int32
	flags   uint32
	threads int32
	start   uint64
}

// live is false for a thread that is dead, a zombie or on its way there.
func (s *stat) live() bool {
	switch s.state {
	case 'Z', 'X', 'x':
		return false
	}
	return s.flags&flagExiting == 0
}

// statOf is the stat in what was read, with the error of the reading.
func statOf(text []byte, err error) (stat, error) {
	if err != nil {
		return stat{}, err
	}
	s, ok := parseStat(text)
	if !ok {
		return s, unix.EIO
	}
	return s, nil
}

// parseStat reads the text of a stat file. The name of the program, in
// parentheses, is chosen by its owner and can hold anything, but nothing after
// it can hold a parenthesis.
func parseStat(data []byte) (s stat, ok bool) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 2 || end < open || len(data) < end+4 || data[open-1] != ' ' || data[end+1] != ' ' || data[end+3] != ' ' {
		return s, false
	}
	pid, rest, ok := number(data[:open])
	if !ok || len(rest) != 0 || pid > 1<<31-1 {
		return s, false
	}
	s.pid, s.state = int32(pid), data[end+2]
	// Fields are counted from 1 as in proc(5); the state is the third.
	rest = data[end+4:]
	for field := 4; field <= 22; field++ {
		var n uint64
		switch field {
		case 4, 9, 20, 22:
			if n, rest, ok = number(rest); !ok {
				return s, false
			}
		default:
			next := bytes.IndexByte(rest, ' ')
			if next < 0 {
				return s, false
			}
			rest = rest[next+1:]
		}
		switch field {
		case 4:
			s.ppid, ok = int32(n), n <= 1<<31-1
		case 9:
			s.flags, ok = uint32(n), n <= 1<<32-1
		case 20:
			s.threads, ok = int32(n), n <= 1<<31-1
		case 22:
			s.start = n
		}
		if !ok {
			return s, false
		}
	}
	return s, true
}

// number reads a decimal number and the one space, tab or newline behind it.
func number(data []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(data) && data[i] >= '0' && data[i] <= '9'; i++ {
		if n > (1<<64-1-9)/10 {
			return 0, data, false
		}
		n = n*10 + uint64(data[i]-'0')
	}
	if i == 0 {
		return 0, data, false
	}
	if i == len(data) {
		return n, nil, true
	}
	switch data[i] {
	case ' ', '\t', '\n':
		return n, data[i+1:], true
	}
	return 0, data, false
}

// A status is what is used of /proc/<pid>/status.
type status struct {
	state      byte
	tgid       int32
	ruid, suid uint32
}

// parseStatus reads the text of a status file, where the kernel escapes the
// newlines in the program's name.
func parseStatus(data []byte) (s status, ok bool) {
	const state, tgid, uid = 1, 2, 4
	found := 0
	for len(data) > 0 && found != state|tgid|uid {
		line := data
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			line, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		if v, is := bytes.CutPrefix(line, []byte("State:\t")); is && len(v) > 0 {
			s.state = v[0]
			found |= state
		} else if v, is := bytes.CutPrefix(line, []byte("Tgid:\t")); is {
			n, _, ok := number(v)
			if !ok || n > 1<<31-1 {
				return s, false
			}
			s.tgid = int32(n)
			found |= tgid
		} else if v, is := bytes.CutPrefix(line, []byte("Uid:\t")); is {
			var ids [3]uint64 // real, effective, saved
			for i := range ids {
				if ids[i], v, ok = number(v); !ok || ids[i] > 1<<32-1 {
					return s, false
				}
			}
			s.ruid, s.suid = uint32(ids[0]), uint32(ids[2])
			found |= uid
		}
	}
	return s, found == state|tgid|uid
}

// parseCgroup finds the path that /proc/<pid>/cgroup gives for the hierarchy
// name=<name>, which may have controllers. The path is a part of data.
func parseCgroup(data []byte, name string) (path []byte, ok bool) {
	for set, path := range kernfs.Memberships(data) {
		last := set[bytes.LastIndexByte(set, ',')+1:]
		if which, is := bytes.CutPrefix(last, []byte("name=")); is && name != "" && string(which) == name {
			return path, true
		}
	}
	return nil, false
}

// inCgroup is true if /proc/<pid>/cgroup has the thread below the root of any
// hierarchy. One whose fork is not finished is shown in the roots of all. In a
// cgroup namespace roots can look like "/..".
func inCgroup(data []byte) bool {
	for _, path := range kernfs.Memberships(data) {
		if len(path) > 1 && path[0] == '/' && !bytes.HasPrefix(path, []byte("/..")) {
			return true
		}
	}
	return false
}

// ranAtAll is true if /proc/<pid>/schedstat counts anything. It counts nothing
// where the kernel does not keep these.
func ranAtAll(data []byte) bool { return bytes.ContainsAny(data, "123456789") }

// parseGroup turns the path of a directory that the mirror could have made
// into its group.
func parseGroup(path []byte) (group uint64, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return 0, false
	}
	digits := path[1:]
	if len(digits) == 0 {
		return 0, true
	}
	group, rest, ok := number(digits)
	return group, ok && rest == nil && digits[0] != '0' && digits[len(digits)-1] >= '0'
}
