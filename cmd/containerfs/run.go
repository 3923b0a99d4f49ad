package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

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
fails: CMD was not started then, or has succeeded and what follows it failed.

CMD is in our process group, so that keys of the terminal are for both; signals that are
sent to us are passed on, but SIGINT and SIGQUIT in the foreground of a terminal, which
CMD has from there.

Classification rules (see containerfs rules) go before -c: what was moved by hand stays
until it executes a program, and CMD is one, as is each that it executes later. Where a
rule has CMD moved elsewhere at once there is a warning with a line "USER HIERARCHY PATH
ignore", which keeps what is in PATH if it stands before that rule.

With --new the containers are made, with --set values are written to those of them that
have the file, in the order given, and with --rm every process that CMD leaves in them is
ended, as by containerfs kill, and they are removed with what is below them: after any end
of CMD, and of run but by SIGKILL. Nothing of --new and --set stays if CMD cannot be started.
For a time limit let CMD be timeout(1): what that misses is ended as well.

--usage prints how long CMD took and, each where a container of -c measures it, the CPU
time of all that was in it and below meanwhile (cpuacct), the most memory (memory, bc)
and tasks (pids, bc) that there were since the container was made, and how many of its
processes the kernel has ended for want of memory (memory; in cgroup version 1 without those
below). --usage-file has the exit code of run, too.

  containerfs run -c /all/Charlie -- make -j4
  containerfs run -c /cpu/batch -c /net/slow -- rsync -a src dst
  containerfs run --new --rm -c /m/job7 --set memory.limit_in_bytes=64M -- make check
  containerfs run --new --rm -c /m/job8 -- timeout -k 10s 1h make check`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "c", Usage: "run it in the container `PATH`; may be repeated, for other hierarchies"},
			&cli.BoolFlag{Name: "new", Usage: "make the containers, which must not be there"},
			&cli.StringSliceFlag{Name: "set", Usage: "write a value to a file of the containers, `NAME=VALUE`; may be repeated"},
			&cli.BoolFlag{Name: "rm", Usage: "with --new: end what is left when CMD has ended, and remove the containers"},
			&cli.BoolFlag{Name: "usage", Usage: "print on standard error what the containers have measured when CMD has ended"},
			&cli.StringFlag{Name: "usage-file", Usage: "write that to `FILE`, as one JSON object"},
		},
		OnUsageError: func(c *cli.Context, err error, sub bool) error {
			return notRun(onUsageError(c, err, sub))
		},
		Action: func(c *cli.Context) error {
			j, err := newJob(c)
			if err != nil {
				return notRun(err)
			}
			return j.run()
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

// passedOn are the signals that are sent to us and meant for the command.
var passedOn = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH,
}

// runChild is the command that is run.
type runChild struct {
	process *os.Process // signalled by pidfd: its pid can be another's once it has ended
	signals chan os.Signal
	passed  chan struct{} // closed when none is passed on any more; nil before any is
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

// stop lets signals be ours again.
func (r *runChild) stop() {
	signal.Stop(r.signals)
	close(r.signals)
	if r.passed != nil {
		<-r.passed
	}
}

// wait passes signals on, until stop, and waits for the end of the command. Its exit code is
// returned as an error.
func (r *runChild) wait() error {
	r.passed = make(chan struct{})
	go func() {
		defer close(r.passed)
		for sig := range r.signals {
			fromTerminal := sig == unix.SIGINT || sig == unix.SIGQUIT || sig == unix.SIGWINCH
			if !fromTerminal || !terminal.Foreground() {
				r.process.Signal(sig)
			}
		}
	}()
	status, err := r.await()
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
