package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"
)

func killCommand() *cli.Command {
	return &cli.Command{
		Name:      "kill",
		Usage:     "end every process in a container and below",
		ArgsUsage: "PATH...",
		Description: `SIGKILL for all of them, and for those born meanwhile, until none is left. The
container stays. A hierarchy's root, which has the rest of the host, cannot be killed.

  containerfs kill /all/Charlie`,
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			return eachPath(c, args, func(s *session, path string) error {
				return killIn(s, c.App.ErrWriter, path)
			})
		},
	}
}

// killIn ends every process in a container and below.
func killIn(s *session, stderr io.Writer, path string) error {
	err := newProgress(stderr, printable("kill "+path)).during(func() error {
		return s.writeFile(join(path, "kill"), "1")
	})
	if errors.Is(err, linux.ENOENT) {
		if files, _, listErr := s.list(path); listErr == nil && !slices.Contains(files, "kill") {
			return fmt.Errorf("a root cannot be killed: %w", linux.EPERM)
		}
	}
	if errors.Is(err, linux.EAGAIN) {
		if frozen := s.frozenIn(path); frozen != "" {
			return fmt.Errorf("%w: %s is frozen, and ends when it is thawed: containerfs thaw %[2]s", err, frozen)
		}
	}
	return err
}

// frozenIn finds a container that is frozen, and keeps what is in it from ending.
func (s *session) frozenIn(path string) (frozen string) {
	s.visible(clean(path), func(path string, _ int, files []string) error {
		for _, f := range freezers {
			if frozen == "" && f.thaw == "THAWED" && slices.Contains(files, f.file) {
				if text, err := s.readFile(join(path, f.file)); err == nil && strings.TrimSpace(text) == f.isFrozen {
					frozen = path
				}
			}
		}
		return nil
	}, func(string, int) {})
	return frozen
}

func waitCommand() *cli.Command {
	return &cli.Command{
		Name:      "wait",
		Usage:     "wait until containers are empty",
		ArgsUsage: "PATH...",
		Description: `Until no task is left in them and below. A container that is removed is empty. A server that
does not answer is waited for 10 seconds longer than --timeout says.

  containerfs wait /all/Charlie && containerfs rmdir /all/Charlie
  containerfs wait --timeout 30s /all/Charlie`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "timeout", Usage: "give up after `TIME`, in seconds or as 5m, with exit code 5; 0 looks once", DefaultText: "never"},
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
			var until time.Time
			if c.IsSet("timeout") {
				until = time.Now().Add(within)
			}
			return eachPath(c, args, func(s *session, path string) error {
				return newProgress(c.App.ErrWriter, printable("wait "+path)).during(func() error {
					return s.until(until, func() error { return waitEmpty(s, path, until) })
				})
			})
		},
	}
}

// How often wait looks: soon at first, for what ends soon.
const (
	waitShortest = 10 * time.Millisecond
	waitLongest  = 500 * time.Millisecond
)

// waitEmpty waits until a container is empty. A zero time is for ever.
func waitEmpty(s *session, path string, until time.Time) error {
	populated := join(path, "populated")
	for first, pause := true, waitShortest; ; first, pause = false, min(pause*3/2, waitLongest) {
		text, err := s.readFile(populated)
		switch {
		case !first && isGone(err):
			return nil
		case err != nil:
			return err
		case text == "0\n":
			return nil
		case until.IsZero():
			time.Sleep(pause)
			continue
		}
		left := time.Until(until)
		if left <= 0 {
			return fmt.Errorf("still populated: %w", linux.EBUSY)
		}
		time.Sleep(min(pause, left))
	}
}
