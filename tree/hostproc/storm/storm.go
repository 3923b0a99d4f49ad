// Package storm makes processes and threads for tests: many, short-lived, and
// in all the ways there are, with children that have children, so that a
// tracker of tasks has something to lose.
//
// A process of a storm is a raw fork of the Go program that called it. It has
// one thread and no runtime: it must not allocate, grow its stack, or take a
// lock that another thread might have had. All that it runs is therefore one
// nosplit function, grow, which does raw system calls only, and no division of 64
// bits: where words have 32 that is a function of the runtime, in which the thread
// can be told to wait for others, that are not there. Threads come from the Go
// runtime, in the storm's first process.
package storm

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Params say what a storm is like. Shares are percent of the forks.
type Params struct {
	Forks   int           // processes made in all
	Workers int           // threads of the first process that fork
	Stem    int           // processes that descend from one fork of a worker, it included
	Depth   int           // generations below a worker
	Life    time.Duration // the longest sleep of a process between its acts
	Parent  int           // share of CLONE_PARENT
	Vfork   int           // share of forks for which the parent waits
	Clone3  int           // share of clone3
	Orphans int           // share of processes that end without waiting for their children
	Exec    int           // share of processes that end by executing true(1)
	Kill    int           // share of processes without children that their forker kills as they start
	SetUID  int           // share of processes that become another user before they end
	Threads int           // share of a worker's forks before which it makes way for a new thread
	Seed    uint64
}

// Default is the storm of SPEC's trap: 10 % CLONE_PARENT.
var Default = Params{
	Forks: 10000, Workers: 2, Stem: 12, Depth: 4, Life: 20 * time.Millisecond,
	Parent: 10, Vfork: 10, Clone3: 20, Orphans: 20, Exec: 2, Kill: 10, SetUID: 10, Threads: 20, Seed: 1,
}

// Args are the arguments with which Main makes this storm.
func (p Params) Args() []string {
	var args []string
	p.flags(io.Discard).VisitAll(func(f *flag.Flag) { args = append(args, "-"+f.Name+"="+f.Value.String()) })
	return args
}

func (p *Params) flags(out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("storm", flag.ContinueOnError)
	fs.SetOutput(out)
	for _, f := range []struct {
		name string
		at   *int
	}{
		{"forks", &p.Forks}, {"workers", &p.Workers}, {"stem", &p.Stem}, {"depth", &p.Depth}, {"parent", &p.Parent},
		{"vfork", &p.Vfork}, {"clone3", &p.Clone3}, {"orphans", &p.Orphans}, {"exec", &p.Exec},
		{"kill", &p.Kill}, {"setuid", &p.SetUID}, {"threads", &p.Threads},
	} {
		fs.IntVar(f.at, f.name, *f.at, "")
	}
	fs.DurationVar(&p.Life, "life", p.Life, "")
	fs.Uint64Var(&p.Seed, "seed", p.Seed, "")
	return fs
}

// Main runs a storm in this process and writes one line "forks N" when all of
// its processes are gone. A test starts itself again for it, so that the storm
// has a process of its own, which is the reaper of all that it leaves.
func Main(args []string, stdout, stderr io.Writer) int {
	p := Default
	if err := p.flags(stderr).Parse(args); err != nil {
		return 2
	}
	n, err := Run(p)
	fmt.Fprintln(stdout, "forks", n)
	if err != nil {
		fmt.Fprintln(stderr, "storm:", err)
		return 1
	}
	return 0
}

// Run makes the storm in this process, which must have no other children: it
// becomes a subreaper and reaps whatever it finds. It returns how many
// processes were made; a fork that the host refuses ends its family, silently.
func Run(p Params) (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("subreaper: %w", err)
	}
	if p.Workers < 1 || p.Stem < 1 || p.Depth < 1 {
		return 0, errors.New("workers, stem and depth must be at least 1")
	}
	var left, made atomic.Int64
	left.Store(int64(p.Forks))
	var workers sync.WaitGroup
	workers.Add(p.Workers)
	for i := range p.Workers {
		go worker(p, rand.New(rand.NewPCG(p.Seed, uint64(i))), &left, &made, &workers)
	}
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	for {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		_, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case err == unix.ECHILD && ended:
			return int(made.Load()), nil
		case err == unix.ECHILD:
			time.Sleep(time.Millisecond)
		case err != nil && err != unix.EINTR:
			return int(made.Load()), fmt.Errorf("wait: %w", err)
		}
	}
}

// worker makes processes from a thread of its own, until it makes way for a
// successor in a new thread. A thread ends with the goroutine it is locked to.
func worker(p Params, rng *rand.Rand, left, made *atomic.Int64, workers *sync.WaitGroup) {
	runtime.LockOSThread()
	// Neither the processes nor the fork are to run a handler of the runtime.
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		panic(err)
	}
	for {
		stem := min(int64(p.Stem), left.Add(-int64(p.Stem))+int64(p.Stem))
		if stem <= 0 {
			workers.Done()
			return
		}
		pid := plant(&p, rng.Uint64()|1, int(stem))
		if pid > 0 {
			made.Add(stem)
		} else {
			time.Sleep(10 * time.Millisecond) // no pid, no memory
		}
		if rng.IntN(100) < p.Threads {
			go worker(p, rng, left, made, workers)
			return
		}
		if wait := p.Life / 8; wait > 0 {
			time.Sleep(rand.N(wait))
		}
	}
}

// Fork makes one child process that lives for a while and exits with 0. It is
// the caller's to reap.
func Fork(life time.Duration) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
		return 0, err
	}
	p := Params{Depth: 1, Life: -life}
	pid = plant(&p, 1, 1)
	unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if pid < 0 {
		return 0, syscall.Errno(-pid)
	}
	return pid, nil
}

// anotherUser is who processes of a storm become.
const anotherUser = 65534

var truePath = [...]byte{'/', 'b', 'i', 'n', '/', 't', 'r', 'u', 'e', 0}

// plant forks the first process of a family of so many.
//
//go:norace
//go:nosplit
func plant(p *Params, rng uint64, family int) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	if pid != 0 {
		return int(pid)
	}
	grow(p, rng, family)
	return 0
}

// below makes a number under n of the lower half of a random one. It divides 32 bits.
//
//go:norace
//go:nosplit
func below(random uint64, n int) int { return int(uint32(random) % uint32(n)) }

// grow is the life of a process and of all that descend from it. Each is a
// copy that goes on here with less to do, hence a loop and no recursion. A
// negative Life is slept to its end.
//
//go:norace
//go:nosplit
func grow(p *Params, rng uint64, family int) {
	var (
		depth = p.Depth
		ts    [2]uintptr
		args  [8]uint64 // struct clone_args
		argv  [2]uintptr
	)
	for {
		// One was made: family counts it and what is to descend from it.
		family--
		depth--
		self, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		rng ^= uint64(self) * 0x9E3779B97F4A7C15
		if rng == 0 {
			rng = 1
		}
		born := false
		for !born {
			rng ^= rng << 13
			rng ^= rng >> 7
			rng ^= rng << 17
			life := int64(p.Life)
			if life > 0 {
				life = int64(below(rng>>8, int(life>>10)+1)) << 10
			} else {
				life = -life
			}
			if life > 0 {
				for ts[0] = 0; life >= 1e9; life -= 1e9 {
					ts[0]++
				}
				ts[1] = uintptr(life)
				syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
			}
			if family <= 0 {
				if below(rng>>20, 100) < p.SetUID {
					syscall.RawSyscall(syscall.SYS_SETRESUID, anotherUser, anotherUser, anotherUser)
				}
				break
			}
			// What the last generation cannot pass on it makes itself.
			share := 1
			if depth > 0 {
				share = 1 + below(rng>>24, family)
			}
			var flags uint64
			if below(rng>>32, 100) < p.Parent {
				flags |= unix.CLONE_PARENT
			}
			if below(rng>>40, 100) < p.Vfork {
				flags |= unix.CLONE_VFORK
			}
			var pid uintptr
			var errno syscall.Errno
			if below(rng>>48, 100) < p.Clone3 {
				args[0], args[4] = flags, uint64(unix.SIGCHLD)
				if flags&unix.CLONE_PARENT != 0 {
					args[4] = 0 // the kernel gives the parent's
				}
				pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), 64, 0)
			} else {
				pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(flags|uint64(unix.SIGCHLD)), 0, 0, 0, 0, 0)
			}
			switch {
			case errno != 0:
				family = 0
			case pid == 0:
				family = share
				born = true
			default:
				family -= share
				// Who has another parent may be gone, and its pid somebody else's.
				if share == 1 && flags&unix.CLONE_PARENT == 0 && below(rng>>20, 100) < p.Kill {
					syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(unix.SIGKILL), 0)
				}
			}
		}
		if born {
			continue
		}
		if below(rng>>16, 100) >= p.Orphans {
			for {
				_, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), 0, 0, 0, 0, 0)
				if errno != 0 && errno != syscall.EINTR {
					break
				}
			}
		}
		if below(rng>>56, 100) < p.Exec {
			argv[0] = uintptr(unsafe.Pointer(&truePath))
			syscall.RawSyscall(syscall.SYS_EXECVE, argv[0], uintptr(unsafe.Pointer(&argv)), 0)
		}
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
