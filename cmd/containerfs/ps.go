package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"
)

func psCommand() *cli.Command {
	return &cli.Command{
		Name:      "ps",
		Usage:     "show all containers of a process",
		ArgsUsage: "PID...",
		Description: `One line for each active hierarchy, the newest first: the PID, the container's
path and the hierarchy's subsystems. A hierarchy that is not mounted any more shows
as -, and with --json has no container, which is the whole path. PIDs, or those of
threads, are the server's host's.

  containerfs ps $$
  containerfs ps --json 4711 4712`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, -1)
			if err != nil {
				return err
			}
			for _, arg := range args {
				if _, err := onlyPID(arg); err != nil {
					return err
				}
			}
			// The paths are of a directory that every process has.
			var w *world
			return eachPath(c, proc(args), func(s *session, path string) (err error) {
				if w == nil {
					if w, err = s.world(); err != nil {
						return err
					}
				}
				return ps(c, s, w, split(path)[1])
			})
		},
	}
}

func proc(pids []string) []string {
	var all []string
	for _, pid := range pids {
		all = append(all, "/proc/"+pid)
	}
	return all
}

func ps(c *cli.Context, s *session, w *world, id string) error {
	pid, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	places, err := s.places(w, pid)
	if errors.Is(err, linux.ENOENT) {
		err = linux.ESRCH // the directory is the process
	}
	if err != nil {
		return err
	}
	for _, p := range places {
		dir := ""
		if p.Hierarchy != "" {
			dir = p.dir()
		}
		if c.Bool("json") {
			err = writeJSON(c.App.Writer, struct {
				PID int `json:"pid"`
				place
				Container string `json:"container,omitempty"` // its path for other commands
			}{pid, p, dir})
		} else {
			if dir == "" {
				dir = "- " + p.Path
			}
			_, err = fmt.Fprintf(c.App.Writer, "%d\t%s\t%s\n", pid, printable(dir), strings.Join(p.Subsystems, ","))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
