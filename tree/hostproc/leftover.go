package hostproc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// A server without a state directory has a mirror for as long as it lives,
// whose id says who it is: <pid>-<start>, and where that is not enough because
// the pid or the clock is of a namespace, -<pid namespace>-<time namespace>.
// The ids of other mirrors must not look like that: let them begin with a letter.

// ServerID is the id for the mirror of this process.
func ServerID() (string, error) {
	proc, err := openProc()
	if err != nil {
		return "", err
	}
	defer proc.close()
	t, err := proc.task(int32(os.Getpid()))
	if err != nil {
		return "", failTask("look up", int32(os.Getpid()), err)
	}
	space, err := namespaces()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d-%d%s", t.TID, t.Start, space), nil
}

// Inode numbers of the namespaces that the host began with, in the kernel's
// include/linux/proc_ns.h.
const (
	firstPidNamespace  = 0xEFFFFFFC
	firstTimeNamespace = 0xEFFFFFFA
)

// namespaces is what ids of this process's pid and time namespaces end with.
func namespaces() (string, error) {
	pid, err := namespace("pid", firstPidNamespace)
	if err != nil {
		return "", err
	}
	clock, err := namespace("time", firstTimeNamespace)
	if err != nil || pid == firstPidNamespace && clock == firstTimeNamespace {
		return "", err
	}
	return fmt.Sprintf("-%d-%d", pid, clock), nil
}

// namespace returns the first where the kernel has no such namespaces.
func namespace(kind string, first uint64) (uint64, error) {
	var st unix.Stat_t
	path := "/proc/self/ns/" + kind
	if err := unix.Stat(path, &st); err == unix.ENOENT {
		return first, nil
	} else if err != nil {
		return 0, &OpError{"stat", path, err}
	}
	return st.Ino, nil
}

// RemoveLeftovers retires the mirrors of servers that died without doing it
// themselves, and returns their names. A mirror is touched only if its name has
// the form of ServerID, in our own namespaces, and no such process is alive:
// others belong to state directories, to servers elsewhere or to somebody
// else. The limit is for all together.
func RemoveLeftovers(limit time.Duration) (removed []string, err error) {
	end := time.Now().Add(limit)
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	defer proc.close()
	space, err := namespaces()
	if err != nil {
		return nil, err
	}
	names, err := kernfs.Names()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range names {
		pid, start, ok := parseServerName(name, space)
		if !ok {
			continue
		}
		if alive, err := proc.alive(pid, start); err != nil {
			errs = append(errs, err)
			continue
		} else if alive {
			continue
		}
		root, err := kernfs.OpenNamed(name)
		if err == nil {
			err = kernfs.Retire(root, time.Until(end))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}

// ServerGone reports whether an id is ServerID's of a process in our own namespaces
// that has ended. Not of what cannot be found out.
func ServerGone(id string) bool {
	space, err := namespaces()
	if err != nil {
		return false
	}
	pid, start, ok := parseServerName(kernfs.MirrorPrefix+id, space)
	if !ok {
		return false
	}
	proc, err := openProc()
	if err != nil {
		return false
	}
	defer proc.close()
	alive, err := proc.alive(pid, start)
	return err == nil && !alive
}

// alive is about the process: a leader that has ended counts while other threads
// of it live. A zombie makes nothing any more.
func (p *procFS) alive(pid int32, start uint64) (bool, error) {
	b := p.buf()
	defer p.bufs.Put(b)
	s, err := p.stat(b, pid)
	if err == unix.ESRCH {
		return false, nil
	} else if err != nil {
		return false, failTask("look up", pid, err)
	}
	if s.start != start {
		return false, nil
	}
	return s.threads > 1 || s.state != 'Z' && s.state != 'X', nil
}

func parseServerName(name, space string) (pid int32, start uint64, ok bool) {
	id, ok := strings.CutPrefix(name, kernfs.MirrorPrefix)
	if !ok {
		return 0, 0, false
	}
	if id, ok = strings.CutSuffix(id, space); !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(id, "-")
	p, err1 := strconv.ParseInt(a, 10, 32)
	start, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || p <= 0 || a != strconv.FormatInt(p, 10) || b != strconv.FormatUint(start, 10) {
		return 0, 0, false
	}
	return int32(p), start, true
}
