package cpuacct

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what cpuacct needs of the machine. Methods may be called concurrently;
// errors are a syscall.Errno or wrap one.
type Host interface {
	// Read is what a thread of a process has run. Without split the result
	// has neither User nor System. ESRCH when there is no such thread; of a
	// zombie it may know.
	Read(tgid, tid int32, split bool) (Times, error)

	// Watch calls ended, from one goroutine, with each task of the host that
	// ends from now on, until stop, which waits for that goroutine. It fails
	// where the host tells of no task's end. Source is in words for the log.
	Watch(ended func([]Final)) (source string, stop func(), err error)

	// Probe says in words for the log at start what Watch will use, and what
	// the host refuses.
	Probe() (source string, refusals []string)

	// Now is a clock that never goes back.
	Now() time.Duration

	// Tick is the current clock tick after boot, as tasks' start times are.
	Tick() uint64
}

// NewHost is the machine that the server runs on.
func NewHost() Host { return machine{finalSources} }

type machine struct{ sources []finalSource }

// finalSource is a way to learn of finals.
type finalSource struct {
	words string
	open  func() (watcher, error)
}

// watcher is an open source.
type watcher interface {
	// run calls ended until close.
	run(ended func([]Final))

	// close ends run, or what open began.
	close()
}

// finalSources are the ways, best first.
var finalSources = []finalSource{
	{"the scheduler's last switch away from them, exact", openSwitches},
	{"taskstats' exit records, less a tick at most and the end itself", openTaskstats},
}

// openBest opens the best source that the host allows.
func (m machine) openBest() (w watcher, words string, err error) {
	for _, source := range m.sources {
		w, refusal := source.open()
		if refusal == nil {
			return w, source.words, err
		}
		err = errors.Join(err, refusal)
	}
	return nil, "their last reading only, each 10 s", err
}

func (m machine) Watch(ended func([]Final)) (string, func(), error) {
	w, words, err := m.openBest()
	if w == nil {
		return "", nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.run(ended) })
	return words, func() {
		w.close()
		wg.Wait()
	}, nil
}

func (m machine) Probe() (source string, refusals []string) {
	w, words, err := m.openBest()
	if w != nil {
		w.close()
	}
	if err != nil {
		refusals = append(refusals, fmt.Sprintf("the end of tasks is not known exactly: %v", err))
	}
	if t, err := m.Read(int32(os.Getpid()), int32(os.Getpid()), true); err != nil {
		refusals = append(refusals, fmt.Sprintf("the CPU time of tasks cannot be read: %v", err))
	} else if t.Run == 0 {
		refusals = append(refusals, "this kernel keeps no schedstat: the CPU time of live tasks is not known")
	}
	return words, refusals
}

func (machine) Now() time.Duration { return clock(unix.CLOCK_MONOTONIC) }

func (machine) Tick() uint64 { return ticks(uint64(clock(unix.CLOCK_BOOTTIME))) }

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(err) // these clocks are always there
	}
	return time.Duration(ts.Nano())
}

// ticks turns nanoseconds into USER_HZ.
func ticks(ns uint64) uint64 { return ns / uint64(time.Second/userHZ) }
