package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"
)

// freezer is how a kind of the kernel's freezer is told, and how it tells that it
// is done.
type freezer struct {
	file         string // that is written to
	frozen, thaw string
	state        string // file that says what it has come to
	isFrozen     string // in one of its lines
	isThawed     string
}

// freezers are those that a container can have: of cgroup v1, and of v2.
var freezers = []freezer{
	{"freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN", "THAWED"},
	{"cgroup.freeze", "1", "0", "cgroup.events", "frozen 1", "frozen 0"},
	{"state", "FROZEN", "THAWED", "state", "FROZEN", "THAWED"}, // mounted noprefix
	{"freeze", "1", "0", "freeze", "1", "0"},
}

func freezeCommand() *cli.Command {
	return freezerCommand("freeze", "stop every process in containers, until they are thawed", true)
}

func thawCommand() *cli.Command {
	return freezerCommand("thaw", "let the processes of frozen containers go on", false)
}

func freezerCommand(name, usage string, freeze bool) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "PATH...",
		Description: fmt.Sprintf(`For containers of a hierarchy to which the kernel's freezer is bound. Waits until it
is done, or for --timeout; then it is tried on, and the exit code is 5.

  containerfs %s /frost/batch`, name),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "timeout", Usage: "wait for `TIME`, in seconds or as 5m", Value: "10s"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			within, err := duration(c, "timeout")
			if err != nil {
				return err
			}
			return eachPath(c, args, func(s *session, path string) error {
				return newProgress(c.App.ErrWriter, printable(name+" "+path)).during(func() error {
					return s.until(time.Now().Add(within), func() error { return setFrozen(s, path, freeze, within) })
				})
			})
		},
	}
}

var errNoFreezer = errors.New("no freezer is bound to this hierarchy: start the server with --enable freezer for cgroup version 1 or --enable cgroup for 2, and mount a hierarchy with it")

func setFrozen(s *session, path string, freeze bool, within time.Duration) error {
	files, _, err := s.list(path)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(freezers, func(f freezer) bool { return slices.Contains(files, f.file) })
	switch {
	case i < 0:
		return errNoFreezer
	case isRoot(files):
		// Its freezer does not reach the tasks in it, which are where the host has them.
		return fmt.Errorf("a root cannot be frozen: %w", linux.EPERM)
	}
	f := freezers[i]
	command, want := f.thaw, f.isThawed
	if freeze {
		command, want = f.frozen, f.isFrozen
	}
	if err := s.writeFile(join(path, f.file), command); err != nil {
		return err
	}
	if !slices.Contains(files, f.state) {
		return nil // it does not say
	}
	for until, pause := time.Now().Add(within), waitShortest; ; pause = min(pause*3/2, waitLongest) {
		text, err := s.readFile(join(path, f.state))
		switch {
		case err != nil:
			return err
		case slices.Contains(strings.Split(text, "\n"), want):
			return nil
		case time.Now().After(until):
			return fmt.Errorf("not done yet: %w", linux.EBUSY)
		}
		time.Sleep(pause)
	}
}
