package kernfs

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MirrorPrefix begins the names of the hierarchies that are mirrors (see hostproc).
const MirrorPrefix = "containerfs-"

// MaxName is the longest name of a named hierarchy that the kernel takes.
const MaxName = 63

// ErrRefused is what errors of OpenNamed match when this host has no named
// hierarchies for this process, in contrast to a failure that should not be. The
// message says why.
var ErrRefused = errors.New("named cgroup hierarchies are refused here")

// OpenNamed opens the root directory of the named hierarchy, which is made if
// there is none of that name.
func OpenNamed(name string) (*Dir, error) { return OpenNamedWith(name, "") }

// OpenNamedWith is OpenNamed, but if the hierarchy is made it has a controller, which
// nothing else on the host may use.
//
// The kernel looks for the css set of a task that is moved among all that have the
// same directories in the hierarchies with controllers, one after the other and with
// interrupts off: 0.1 us for each directory of this one that has tasks, if it has no
// controller, and not at all if it has.
func OpenNamedWith(name, controller string) (*Dir, error) {
	if !validName(name) {
		return nil, &OpError{"name", name, unix.EINVAL}
	}
	wait := 5 * time.Second
	if controller != "" {
		wait = time.Second // for what may use it for good
	}
	// While a hierarchy of that name is being taken down the kernel restarts
	// the call on a context that it has marked as failed, hence EBUSY, and hence
	// a new context for each attempt.
	for end := time.Now().Add(wait); ; {
		dir, err := openNamed(name, controller)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return dir, err
		}
		time.Sleep(time.Millisecond)
	}
}

func openNamed(name, controller string) (*Dir, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	what := controller
	exists := slices.Contains(names, name)
	switch {
	case exists:
		what = "" // whatever it has
	case controller == "":
		what = "none"
	default:
		if err := isFree(controller); err != nil {
			return nil, &OpError{"take controller", controller, err}
		}
	}
	d, err := makeNamed(name, what)
	if exists && errors.Is(err, unix.EINVAL) {
		err = &OpError{"make hierarchy", name, unix.EBUSY} // it is there no more
	}
	if err == nil {
		_ = unix.Fchmod(d.fd, dirMode)
	}
	return d, err
}

// makeNamed opens a named hierarchy, and makes it if what says of what.
func makeNamed(name, what string) (*Dir, error) {
	cfg, err := configure(name, what)
	if err != nil {
		options := []string{"name=" + name}
		if what != "" {
			options = append(options, what)
		}
		d, err := mountApart("cgroup", name, options, err)
		var op *OpError
		if errors.As(err, &op) && op.Op == "make hierarchy" {
			op.Err = refusal("mount", op.Err)
		}
		return d, err
	}
	defer unix.Close(cfg)
	if err := unix.FsconfigCreate(cfg); err != nil {
		return nil, &OpError{"make hierarchy", name, refusal("create", err)}
	}
	return mountDetached(cfg, name)
}

// isFree tells why a hierarchy that is made cannot have a controller, as far as
// version 1 is about.
func isFree(controller string) error {
	data, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	switch c, known := ParseControllers(string(data))[controller]; {
	case !known:
		return fmt.Errorf("%w: the kernel has none of that name", unix.ENODEV)
	case !c.Enabled:
		return fmt.Errorf("%w: disabled at boot", unix.ENODEV)
	case c.Hierarchy != "0":
		return fmt.Errorf("%w: another hierarchy has it", unix.EBUSY)
	}
	return nil
}

// A Controller is what /proc/cgroups says of one.
type Controller struct {
	Hierarchy string // the number of the version 1 hierarchy that it is in, "0" for none
	Dirs      string // how many directories that has, those that are being freed included
	Enabled   bool   // not switched off at boot
}

// ParseControllers reads the text of /proc/cgroups.
func ParseControllers(text string) map[string]Controller {
	all := make(map[string]Controller)
	for line := range strings.Lines(text) {
		// #subsys_name hierarchy num_cgroups enabled
		if f := strings.Fields(line); len(f) == 4 && !strings.HasPrefix(f[0], "#") {
			all[f[0]] = Controller{f[1], f[2], f[3] != "0"}
		}
	}
	return all
}

// configure makes a file system context for a named hierarchy. what is a controller, "none",
// or "" for whatever one of that name has. All that can be refused for good is refused here,
// but for what depends on the cgroup namespace.
func configure(name, what string) (int, error) {
	fd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &OpError{"fsopen", "cgroup", refusal("fsopen", err)}
	}
	if what != "" {
		err = unix.FsconfigSetFlag(fd, what)
	}
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

// MovesAtOnce reports whether the kernel knows that option. A hierarchy that was there
// already has it if it was made with it, or another one has.
var MovesAtOnce = sync.OnceValue(func() bool {
	fd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetFlag(fd, favorMoves) == nil
})

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
		return &refused{"the kernel has no fsopen, or a filter forbids it, and it cannot be mounted otherwise", err}
	case step != "name" && err == unix.ENODEV:
		return &refused{"the kernel has no cgroup v1", err}
	case step != "fsopen" && err == unix.ENOENT:
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
func Names() (names []string, err error) {
	err = eachNamed(func(name string, _ []string) { names = append(names, name) })
	return names, err
}

// Controllers lists those of a named hierarchy. One that does not exist has none.
func Controllers(name string) (controllers []string, err error) {
	err = eachNamed(func(n string, has []string) {
		if n == name {
			controllers = has
		}
	})
	return controllers, err
}

func eachNamed(do func(name string, controllers []string)) error {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		ParseNamed(string(data), do)
	}
	return err
}

// ParseNamed finds the named hierarchies in the text of a cgroup file of /proc.
func ParseNamed(text string, do func(name string, controllers []string)) {
	for set := range Memberships([]byte(text)) {
		parts := strings.Split(string(set), ",")
		if name, ok := strings.CutPrefix(parts[len(parts)-1], "name="); ok {
			do(name, parts[:len(parts)-1])
		}
	}
}

// Memberships yields the whole lines of a cgroup file of /proc, which are
// number:controllers,name=NAME:path: what is between the colons, and the path, as parts of
// data. In version 2 there is nothing between them.
func Memberships(data []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(set, path []byte) bool) {
		for line := range bytes.Lines(data) {
			line, whole := bytes.CutSuffix(line, []byte("\n"))
			_, rest, _ := bytes.Cut(line, []byte(":"))
			if set, path, ok := bytes.Cut(rest, []byte(":")); whole && ok && !yield(set, path) {
				return
			}
		}
	}
}
