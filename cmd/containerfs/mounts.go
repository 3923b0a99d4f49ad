package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

func mountsCommand() *cli.Command {
	return &cli.Command{
		Name:  "mounts",
		Usage: "list the server's hierarchies",
		Description: `One line for each: its name, its options, and "unmounted" if it is kept by its
children only.

  containerfs mounts
  containerfs mounts --json`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := paths(c, 0, 0); err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				w, err := s.world()
				if err != nil {
					return err
				}
				for _, h := range w.hierarchies {
					switch {
					case c.Bool("json"):
						err = writeJSON(c.App.Writer, h)
					case h.Mounted:
						_, err = fmt.Fprintf(c.App.Writer, "%s\t%s\n", h.Name, printable(h.Options))
					default:
						_, err = fmt.Fprintf(c.App.Writer, "%s\t%s\tunmounted\n", h.Name, printable(h.Options))
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func subsystemsCommand() *cli.Command {
	return &cli.Command{
		Name:  "subsystems",
		Usage: "list the server's subsystems and where they are bound",
		Description: `One line for each: its name, the hierarchy that it is bound to, or - for none, and
the number of containers there.

  containerfs subsystems
  containerfs subsystems --json`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := paths(c, 0, 0); err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				return subsystems(c, s)
			})
		},
	}
}

// subsystemInfo is a line of containers.
type subsystemInfo struct {
	Name       string  `json:"name"`
	Hierarchy  *string `json:"hierarchy"` // null: not bound
	Containers int     `json:"containers"`
	Enabled    bool    `json:"enabled"`
}

func subsystems(c *cli.Context, s *session) error {
	w, err := s.world()
	if err != nil {
		return err
	}
	text, err := s.readFile("/containers")
	if err != nil {
		return &pathError{"read", "/containers", err}
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) < 4 {
			continue
		}
		info := subsystemInfo{Name: fields[0], Enabled: fields[3] == "1"}
		info.Containers, _ = strconv.Atoi(fields[2])
		for i := range w.hierarchies {
			for _, name := range w.hierarchies[i].Subsystems {
				if name == info.Name {
					info.Hierarchy = &w.hierarchies[i].Name
				}
			}
		}
		if c.Bool("json") {
			err = writeJSON(c.App.Writer, info)
		} else {
			bound := "-"
			if info.Hierarchy != nil {
				bound = *info.Hierarchy
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s\t%s\t%d\n", info.Name, bound, info.Containers)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
