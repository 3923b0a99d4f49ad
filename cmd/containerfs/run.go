package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/cmd/containerfs/internal/gated"
	"containerfs/cmd/containerfs/internal/terminal"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a command in containers",
		ArgsUsage: "-c PATH... -- CMD ARG...",
		Description: `CMD is in the containers before its first instruction; if it cannot be moved into
all of them it is not started. Works on the server's host only.

The exit code is CMD's, 128 and the signal's number if a signal ended it, 126 if it
cannot be run, 127 if there is none of that name, and 125 when it is run itself that
fails: CMD was not started then, whatever the reason. CMD is in our process group, so
that keys of the terminal are for both; signals that are sent to us are passed on,
but SIGINT and SIGQUIT in the foreground of a terminal, which CMD has from there.

Classification rules (see containerfs rules) go before -c: what was moved by hand stays
until it executes a program, and CMD is one, as is each that it executes later. Where a
rule has CMD moved elsewhere at once there is a warning with a line "USER HIERARCHY PATH
ignore", which keeps what is in PATH if it stands before that rule.

  containerfs run -c /all/Charlie -- make -j4
  containerfs run -c /cpu/batch -c /net/slow -- rsync -a src dst`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "c", Usage: "run it in the container `PATH`; may be repeated, for other hierarchies"},
		},
		OnUsageError: func(c *cli.Context, err error, sub bool) error {
			return notRun(onUsageError(c, err, sub))
		},
		Action: func(c *cli.Context) error {
			child, err := startRun(c)
			if err != nil {
				return notRun(err)
			}
			return child.wait()
		},
	}
}

// notRun gives a failure of our own its exit code: what the codes of other commands say
// can be CMD's.
func notRun(err error) error {
	if code := exitCode(err); code == exitCannotRun || code == exitNoCommand {
		return err
	}
	return &exitError{exitNotRun, err}
}

// runArgs are the containers and the command of a command line.
func runArgs(c *cli.Context) (dirs, args []string, err error) {
	args, err = paths(c, 1, -1)
	dirs = c.StringSlice("c")
	switch {
	case err != nil:
		return nil, nil, err
	case len(dirs) == 0:
		text := fmt.Sprintf("usage: containerfs %s %s", c.Command.Name, c.Command.ArgsUsage)
		if _, err := exec.LookPath(args[0]); err != nil && checkPath(args[0]) == nil {
			text += fmt.Sprintf("; did you mean -c %s?", args[0])
		}
		return nil, nil, &usageError{text}
	}
	for _, dir := range dirs {
		if err := checkPath(dir); err != nil {
			return nil, nil, err
		}
	}
	return dirs, args, nil
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
	if at := (*os.PathError)(nil); errors.As(err, &at) {
		err = at.Err // its path is the name again
	}
	return &exitError{code, fmt.Errorf("run %s: %w", name, err)}
}

// startRun starts the command that the command line says.
func startRun(c *cli.Context) (*runChild, error) {
	dirs, args, err := runArgs(c)
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		err = cannotRun(args[0], err)
		if checkPath(args[0]) == nil && len(args) > 1 && args[1] == "--" {
			err = fmt.Errorf("%w; did you mean -c %s?", err, args[0])
		}
		return nil, err
	}
	return startIn(c, dirs, program, args)
}

// startIn makes a process, moves it and lets it execute the program.
func startIn(c *cli.Context, dirs []string, program string, args []string) (*runChild, error) {
	s, err := connect(c.Context, c.String("server"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.needHere(); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	a, err := newAttacher(s, dirs, false)
	if err != nil {
		return nil, err
	}
	// Signals from here on are the child's.
	child := newRunChild()
	p, err := gated.Start(program, args)
	if err != nil {
		child.stop()
		return nil, fmt.Errorf("run: %w", err)
	}
	child.process = p.Process
	if err := a.attach(p.Pid); err != nil {
		p.End()
		child.stop()
		return nil, err
	}
	warnOfRules(c.App.ErrWriter, s, dirs, int32(p.Pid), args[0], program)
	if err := p.Go(); err != nil {
		p.Wait()
		child.stop()
		return nil, cannotRun(args[0], err)
	}
	return child, nil // if it has been ended meanwhile, wait says how
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
		return notRun(fmt.Errorf("run: %w", err))
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
