package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"
)

// maxSavedFile bounds what apply reads.
const maxSavedFile = 64 << 20

func applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "make hierarchies what a file says",
		ArgsUsage: "FILE",
		Description: `FILE is of save, or - for standard input. What differs from the server is changed and
printed: + a container or hierarchy that is made, - one that is removed, and values
as old -> new. What the file does not name stays; --prune removes containers that it
does not name, in the hierarchies that it has whole: those with a [[hierarchy]] and a
[[container]] of their root. Of others it says so.

A container with uid or gid is given to them with its control files, but for those that
have an owner of their own, in [container.file.NAME]: name the limits that the owner must
not change.

  [[container]]
  path = "/all/alice"
  uid = 1000
  gid = 1000
  [container.file."numtasks.shares"]
  uid = 0

If one of the changes fails, or a signal ends the command, those before it are taken back;
exit code 6 says that this failed as well, and the message what is left. A second signal
leaves all as it is then. Processes stay where they are.

  containerfs apply --dry-run containers.toml
  containerfs apply containers.toml`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print the difference and change nothing"},
			&cli.BoolFlag{Name: "prune", Usage: "remove containers that the file does not have"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 1)
			if err != nil {
				return err
			}
			f, err := readSaved(c, args[0])
			if err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				p := plan{s: s, f: f, out: c.App.Writer, dry: c.Bool("dry-run"), made: make(map[string]bool), like: make(map[string]likeFiles)}
				if err := p.make(c.Bool("prune")); err != nil {
					return err
				}
				for _, note := range p.notes {
					fmt.Fprintf(c.App.ErrWriter, "containerfs: apply: nothing is removed in %s\n", printable(note))
				}
				ctx, stop := interruptible(c.Context)
				defer stop()
				return p.apply(ctx, newProgress(c.App.ErrWriter, "apply"))
			})
		},
	}
}

func readSaved(c *cli.Context, name string) (*savedFile, error) {
	var b []byte
	var err error
	if in := c.App.Reader; name == "-" {
		name = "standard input"
		b, err = io.ReadAll(io.LimitReader(in, maxSavedFile+1))
	} else {
		var f *os.File
		if f, err = os.Open(name); err != nil {
			return nil, usagef("apply: %v", err)
		}
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, maxSavedFile+1))
	}
	switch {
	case err != nil:
		return nil, usagef("apply: %v", err)
	case len(b) > maxSavedFile:
		return nil, usagef("apply: %s is over %d bytes", name, maxSavedFile)
	}
	return parseSaved(name, b)
}

// interruptible is done at the first signal that asks for an end; the next one ends.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	var signals []os.Signal
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	if len(signals) == 0 {
		return parent, func() {} // for signal.NotifyContext it would be all
	}
	ctx, stop = signal.NotifyContext(parent, signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

var errInterrupted = errors.New("interrupted")

// apply makes the changes, or only prints them.
func (p *plan) apply(ctx context.Context, bar *progress) error {
	defer bar.end()
	all := slices.Concat(p.shape, p.settings, p.removals)
	var printed []string
	var undo undoList
	done := 0
	err := p.run(func(s planStep) error {
		if p.dry {
			printed = append(printed, s.what)
			return nil
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		back, err := s.do()
		if err != nil {
			return err
		}
		if back != nil {
			printed = append(printed, s.what)
			undo.add(s.what, back)
		}
		done++
		bar.step(done, len(all))
		return nil
	})
	if err != nil {
		return undo.after(err)
	}
	bar.end()
	for _, line := range printed {
		if line == "" {
			continue
		}
		if _, err := fmt.Fprintln(p.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// run makes the changes with ran. Settings depend on each other in ways that only the
// server knows, as a child's CPUs on its parent's, before or behind: those that are
// refused are tried again as long as others are not.
func (p *plan) run(ran func(planStep) error) error {
	for _, s := range p.shape {
		if err := ran(s); err != nil {
			return p.failed(s, err)
		}
	}
	for pending := p.settings; len(pending) > 0; {
		var refused []planStep
		var first error
		for _, s := range pending {
			err := ran(s)
			if exitCode(err) == exitUnavailable {
				return err
			}
			if errors.Is(err, errInterrupted) {
				return p.failed(s, err)
			}
			if err != nil {
				refused = append(refused, s)
				if first == nil {
					first = p.failed(s, err)
				}
			}
		}
		if len(refused) == len(pending) {
			return first
		}
		pending = refused
	}
	for _, s := range p.removals {
		if err := ran(s); err != nil {
			return p.failed(s, err)
		}
	}
	return nil
}

func (p *plan) failed(s planStep, err error) error {
	what := s.what
	if what == "" {
		what = "owner and mode"
	}
	return fmt.Errorf("apply %s: %s: %w", p.f.at(s.key), what, err)
}
