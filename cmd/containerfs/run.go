package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/cmd/containerfs/internal/terminal"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a command in containers",
		ArgsUsage: "[-c PATH]... -- CMD ARG...",
		Description: `CMD is in the containers before its first instruction; if it cannot be moved into
all of them it is not started. Works on the server's host only.

The exit code is CMD's, 128 and the signal's number if a signal ended it, 126 if it
cannot be run, 127 if there is none of that name. CMD is in our process group, so
that keys of the terminal are for both; signals that are sent to us are passed on,
but SIGINT and SIGQUIT in the foreground of a terminal, which CMD has from there.

  containerfs run -c /all/Charlie -- make -j4
  containerfs run -c /cpu/batch -c /net/slow -- rsync -a src dst`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "c", Usage: "run it in the container `PATH`; may be repeated, for other hierarchies"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			dirs := c.StringSlice("c")
			for _, dir := range dirs {
				if err := checkPath(dir); err != nil {
					return err
				}
			}
			return runIn(c, dirs, args)
		},
	}
}

// launchName is the hidden command that waits until it has been moved and then
// becomes what it was told: its first argument is the program's file, the rest what
// it is called with.
const launchName = "run-launch"

// launchGate is the launcher's descriptor on which one byte tells it to go.
const launchGate = 3

func launchCommand() *cli.Command {
	return &cli.Command{
		Name:            launchName,
		Hidden:          true,
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			gate := os.NewFile(launchGate, "gate")
			if len(args) < 2 || gate == nil {
				return usagef("%s is for run only", launchName)
			}
			unix.CloseOnExec(launchGate)
			var b [1]byte
			if n, _ := gate.Read(b[:]); n != 1 {
				return &reported{&exitError{exitFailed, errors.New("not moved")}}
			}
			return cannotRun(args[1], syscall.Exec(args[0], args[1:], os.Environ()))
		},
	}
}

// cannotRun is why a command is not run, with the shell's exit code.
func cannotRun(name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = exitNoCommand
	}
	var inner *exec.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &exitError{code, fmt.Errorf("run %s: %w", name, err)}
}

// runIn runs a command in containers.
func runIn(c *cli.Context, dirs, args []string) error {
	program, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return cannotRun(args[0], err)
	}
	child, err := startIn(c, dirs, program, args)
	if err != nil {
		return err
	}
	return child.wait()
}

// startIn starts a launcher, moves it and lets it go.
func startIn(c *cli.Context, dirs []string, program string, args []string) (*runChild, error) {
	s, err := connect(c.Context, c.String("server"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.needHere(); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	var a *attacher
	if len(dirs) > 0 {
		if a, err = newAttacher(s, dirs, false); err != nil {
			return nil, err
		}
	}

	gate, open, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer open.Close() // a launcher that was not told to go then ends
	// Signals from here on are the child's.
	child := newRunChild()
	p, err := os.StartProcess("/proc/self/exe", append([]string{"containerfs", launchName, program}, args...), &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, gate},
	})
	gate.Close()
	if err != nil {
		child.stop()
		return nil, fmt.Errorf("run: %w", err)
	}
	child.process = p
	if a != nil {
		if err := a.attach(p.Pid); err != nil {
			open.Close()
			p.Wait()
			child.stop()
			return nil, err
		}
	}
	open.Write([]byte{1}) // if it has been ended meanwhile, wait says how
	return child, nil
}

// passedOn are the signals that are sent to us and meant for the command.
var passedOn = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH,
}

// runChild is the command that is run.
type runChild struct {
	process *os.Process // signalled by pidfd: its pid can be another's once it has ended
	signals chan os.Signal
}

// newRunChild begins to keep signals for the command.
func newRunChild() *runChild {
	r := &runChild{signals: make(chan os.Signal, 16)}
	for _, s := range passedOn {
		// What we were started to ignore, the command is too.
		if !signal.Ignored(s) {
			signal.Notify(r.signals, s)
		}
	}
	return r
}

func (r *runChild) stop() {
	signal.Stop(r.signals)
	close(r.signals)
}

// wait passes signals on until the command has ended, and returns its exit code as
// an error.
func (r *runChild) wait() error {
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for sig := range r.signals {
			fromTerminal := sig == unix.SIGINT || sig == unix.SIGQUIT || sig == unix.SIGWINCH
			if !fromTerminal || !terminal.Foreground() {
				r.process.Signal(sig)
			}
		}
	}()
	status, err := r.await()
	r.stop()
	<-passed
	switch {
	case err != nil:
		return fmt.Errorf("run: %w", err)
	case status.Signaled():
		return &reported{&exitError{128 + int(status.Signal()), errors.New(status.Signal().String())}}
	case status.ExitStatus() != 0:
		return &reported{&exitError{status.ExitStatus(), errors.New("the command failed")}}
	}
	return nil
}

// await waits for the command's end. While it is stopped in the foreground of a
// terminal we are, too, so that the shell gets the terminal back.
func (r *runChild) await() (unix.WaitStatus, error) {
	pid := r.process.Pid
	for {
		// The key that stops it stops us as well, and we can be told of its stop
		// when all goes on again. So what there is to be told is asked for anew.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		var status unix.WaitStatus
		told, err := unix.Wait4(pid, &status, unix.WUNTRACED|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR || err == nil && told == 0:
			continue
		case err != nil || !status.Stopped():
			return status, err
		}
		if terminal.Foreground() {
			unix.Kill(unix.Getpid(), unix.SIGSTOP)
			r.process.Signal(unix.SIGCONT)
		}
	}
}
