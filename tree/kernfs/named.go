package kernfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxName is the longest name of a named hierarchy that the kernel takes.
const MaxName = 63

// ErrRefused is what errors of ProbeNamed and OpenNamed match when this host
// has no named hierarchies for this process, in contrast to a failure that
// should not be. The message says why.
var ErrRefused = errors.New("named cgroup hierarchies are refused here")

// ProbeNamed tells whether OpenNamed can work, without making a hierarchy: nil,
// or an error with the reason.
func ProbeNamed() error {
	fd, err := configure("containerfs-probe")
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// OpenNamed opens the root directory of the named hierarchy, which is made if
// there is none of that name.
func OpenNamed(name string) (*Dir, error) {
	if !validName(name) {
		return nil, &OpError{"name", name, unix.EINVAL}
	}
	// While a hierarchy of that name is being taken down the kernel restarts
	// the call on a context that it has marked as failed, hence EBUSY, and hence
	// a new context for each attempt.
	for end := time.Now().Add(5 * time.Second); ; {
		dir, err := openNamed(name)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return dir, err
		}
		time.Sleep(time.Millisecond)
	}
}

func openNamed(name string) (*Dir, error) {
	cfg, err := configure(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(cfg)
	if err := unix.FsconfigCreate(cfg); err != nil {
		return nil, &OpError{"make hierarchy", name, refusal("create", err)}
	}
	return mountDetached(cfg, name)
}

// configure makes a file system context for a named hierarchy; all that can be
// refused for good is refused here, but for what depends on the cgroup namespace.
func configure(name string) (int, error) {
	fd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &OpError{"fsopen", "cgroup", refusal("fsopen", err)}
	}
	err = unix.FsconfigSetFlag(fd, "none")
	if err == nil {
		err = unix.FsconfigSetString(fd, "name", name)
	}
	if err == nil {
		err = setIfKnown(fd, favorMoves)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &OpError{"configure hierarchy", name, refusal("name", err)}
	}
	return fd, nil
}

// favorMoves is the option that has the kernel move tasks of the hierarchy at once.
// Else the first move after a pause waits for what all CPUs are about, which takes 10 ms
// and more; the price is a memory barrier in each fork, exec and exit of the host.
// Kernels before 6.0 do not know it: there moves wait.
const favorMoves = "favordynmods"

// setIfKnown sets a flag, unless the kernel does not know it.
func setIfKnown(fd int, flag string) error {
	err := unix.FsconfigSetFlag(fd, flag)
	if err == unix.EINVAL {
		err = nil
	}
	return err
}

// A refused error keeps the errno and tells people what it means.
type refused struct {
	why   string
	errno error
}

func (e *refused) Error() string        { return fmt.Sprintf("%v (%s)", e.errno, e.why) }
func (e *refused) Unwrap() error        { return e.errno }
func (e *refused) Is(target error) bool { return target == ErrRefused }

func refusal(step string, err error) error {
	switch {
	case step == "create" && err == unix.EPERM:
		return &refused{"this process is in a cgroup or user namespace of its own, and there is no hierarchy of that name", err}
	case err == unix.EPERM:
		return &refused{"no privilege: CAP_SYS_ADMIN is needed", err}
	case err == unix.ENOSYS:
		return &refused{"the kernel has no fsopen, or a filter forbids it", err}
	case step == "fsopen" && err == unix.ENODEV:
		return &refused{"the kernel has no cgroup v1", err}
	case step == "name" && err == unix.ENOENT:
		return &refused{"the kernel was booted with cgroup_no_v1=named", err}
	}
	return err
}

func validName(name string) bool {
	if name == "" || len(name) > MaxName {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Names lists the named hierarchies that exist on the host.
func Names() ([]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseNames(data), nil
}

func parseNames(data []byte) (names []string) {
	for line := range bytes.Lines(data) {
		_, line, _ = bytes.Cut(line, []byte(":"))
		controllers, _, ok := bytes.Cut(line, []byte(":"))
		for c := range bytes.SplitSeq(controllers, []byte(",")) {
			if name, found := bytes.CutPrefix(c, []byte("name=")); ok && found {
				names = append(names, string(name))
			}
		}
	}
	return names
}
