package numtasks

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strconv"
	"syscall"

	"containerfs/tree"
)

// Tasks are the tasks of the host, to be killed.
type Tasks interface {
	// Task looks a thread up: ESRCH when it is gone or on its way.
	Task(tid int32) (tree.TaskInfo, error)

	// Signal sends a signal to the process that the thread is of, and to no
	// other: ESRCH when it is gone.
	Signal(task tree.TaskInfo, sig syscall.Signal) error
}

// Host is what numtasks needs of the machine. Methods may be called concurrently.
type Host interface {
	Tasks

	// Bound is how many tasks the machine can have.
	Bound() (int64, error)
}

// NewHost is the machine that the server runs on. Without tasks nothing can be
// killed: that is EOPNOTSUPP.
func NewHost(tasks Tasks) Host {
	if tasks == nil {
		tasks = unreachable{}
	}
	return machine{tasks}
}

type machine struct{ Tasks }

// Bound is Host's.
func (machine) Bound() (int64, error) {
	bound := int64(math.MaxInt64)
	for _, name := range []string{"/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSuffix(text, []byte("\n"))), 10, 32)
		if err != nil || n <= 0 {
			return 0, errors.Join(err, syscall.EIO)
		}
		bound = min(bound, n)
	}
	return bound, nil
}

type unreachable struct{}

func (unreachable) Task(int32) (tree.TaskInfo, error) { return tree.TaskInfo{}, syscall.EOPNOTSUPP }
func (unreachable) Signal(tree.TaskInfo, syscall.Signal) error {
	return syscall.EOPNOTSUPP
}
