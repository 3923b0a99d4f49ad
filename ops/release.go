package ops

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// Bounds of release agents (SPEC §8).
const maxAgents = 8 // at once

// leastTidied is how many releases wait at least before a removed one is looked for.
const leastTidied = 64

// agentLimit is the time that an agent has; then it is killed. Tests shorten it.
var agentLimit = 30 * time.Second

// agentEnv is all that an agent finds in its environment.
var agentEnv = []string{"HOME=/", "PATH=/sbin:/bin:/usr/sbin:/usr/bin"}

// releaseQueue holds the containers whose release has fired, each at most once.
// Its lock is a leaf: add is called inside the tree's mu.
type releaseQueue struct {
	mu      sync.Mutex
	waiting []*tree.Container
	tidyAt  int // so many wait when those are taken out that were removed
	serving int
	serve   func(*tree.Container) // nil until run, and after close
	done    sync.WaitGroup
}

// add hands on a container. What comes before run waits for it. With agents that take
// their time more containers can be made, released and removed than are served: those
// that are removed do not wait for ever.
func (q *releaseQueue) add(c *tree.Container) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= max(q.tidyAt, leastTidied) {
		q.waiting = slices.DeleteFunc(q.waiting, (*tree.Container).Removed)
		q.tidyAt = 2 * len(q.waiting)
	}
	q.waiting = append(q.waiting, c)
	q.startLocked()
}

// startLocked starts a server for each that waits, as far as is allowed.
func (q *releaseQueue) startLocked() {
	for q.serve != nil && q.serving < maxAgents && len(q.waiting) > 0 {
		q.serving++
		c := q.nextLocked()
		q.done.Go(func() { q.work(c) })
	}
}

func (q *releaseQueue) nextLocked() *tree.Container {
	c := q.waiting[0]
	q.waiting = q.waiting[1:]
	return c
}

// work serves c, and then until nothing waits.
func (q *releaseQueue) work(c *tree.Container) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for serve := q.serve; serve != nil; serve = q.serve {
		q.mu.Unlock()
		serve(c)
		q.mu.Lock()
		if len(q.waiting) == 0 {
			break
		}
		c = q.nextLocked()
	}
	q.serving--
}

func (q *releaseQueue) run(serve func(*tree.Container)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serve = serve
	q.startLocked()
}

// close waits for what is being served and leaves the rest to the next server.
func (q *releaseQueue) close() {
	q.mu.Lock()
	q.serve = nil
	q.mu.Unlock()
	q.done.Wait()
}

// release serves one container: its hierarchy's agent runs, if it has one. The
// path is that of now. Who is killed with the server runs again with the next one.
func (fs *FS) release(c *tree.Container) {
	var agent, path string
	fs.tree.View(func() {
		if !c.Removed() {
			agent, path = rootOf(c.Hierarchy()).agent, c.Path()
		}
	})
	fs.tree.Served(c)
	if agent != "" && fs.allowAgent { // an earlier server may have kept one
		ctx, cancel := context.WithTimeout(fs.ctx, agentLimit)
		defer cancel()
		if err := runAgent(ctx, agent, path); err != nil {
			fs.log.Warn("release agent failed", "agent", agent, "path", path, "err", err)
			if fs.ctx.Err() != nil {
				return
			}
		}
	}
	fs.tree.Released(c)
}

// runAgent runs an agent: no shell, nothing of ours but /dev/null and the
// environment of SPEC §8. When its time is over its whole process group is
// killed.
func runAgent(ctx context.Context, agent, path string) error {
	// What is executed here is this program, which the kernel has at hand: until it is
	// done no garbage is collected, and if that takes long nobody is served. The
	// agent can be on a file system that hangs.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", agent, path)
	cmd.Args[0] = agentStarter
	cmd.Env = agentEnv
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	why, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer why.Close()
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	// What the server itself was started with does not have the flag.
	if err := keepFromAgents(); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return cause
	}
	theirs.Close()
	if text, _ := io.ReadAll(why); len(text) > 0 { // all who could write have ended
		errno, _ := strconv.Atoi(string(text))
		return &os.PathError{Op: "exec", Path: agent, Err: syscall.Errno(errno)}
	}
	return err
}

// keepFromAgents has the kernel close, in whatever is executed, the descriptors that there
// are but for the first three. It can be told so at once since Linux 5.11.
func keepFromAgents() error {
	const first = 3
	if unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range fds {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd) // or it is closed by now
		}
	}
	return nil
}

// agentStarter is the name by which this program is asked to become an agent.
const agentStarter = "containerfs-agent"

// whyNot is the descriptor that takes the errno if it cannot.
const whyNot = 3

func init() {
	if os.Args[0] != agentStarter || len(os.Args) != 3 {
		return
	}
	unix.CloseOnExec(whyNot)
	err := syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	if errno, ok := err.(syscall.Errno); ok {
		_, _ = unix.Write(whyNot, strconv.AppendInt(nil, int64(errno), 10))
	}
	os.Exit(127)
}

func readAgent(c *tree.Container, b []byte) ([]byte, error) {
	return append(append(b, rootOf(c.Hierarchy()).agent...), '\n'), nil
}

func writeAgent(at *attachment, c *tree.Container, data []byte) error {
	agent := strings.TrimSuffix(string(data), "\n")
	if err := checkAgent(agent, at.mayNameAgents()); err != nil {
		return err
	}
	return at.set(c, true, func() { rootOf(c.Hierarchy()).agent = agent })
}

// mayNameAgents decides who may make the server run a program: a privileged local
// caller, where the server was started so.
func (at *attachment) mayNameAgents() bool {
	return at.fs.allowAgent && at.privileged() && at.caller.Local
}

const maxAgent = 4095

var errAgent = fmt.Errorf("naming a release agent takes --allow-release-agent of the server and a privileged local caller: %w", syscall.EPERM)

// checkAgent checks a program that is to be run: an absolute path, or nothing.
func checkAgent(agent string, may bool) error {
	switch {
	case len(agent) > maxAgent:
		return fmt.Errorf("a path has at most %d bytes: %w", maxAgent, syscall.ENAMETOOLONG)
	case !may:
		return errAgent
	case agent != "" && agent[0] != '/', strings.ContainsAny(agent, "\x00\n"):
		return fmt.Errorf("a release agent is an absolute path: %w", syscall.EINVAL)
	}
	return nil
}
