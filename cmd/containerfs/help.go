package main

import (
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// helpCommand stands in for the library's, which has errors of another form and
// does not know commands of commands.
func helpCommand() *cli.Command {
	return &cli.Command{
		Name:        "help",
		Aliases:     []string{"h"},
		Usage:       "show the commands, or what one is for",
		ArgsUsage:   "[COMMAND]",
		Description: "As COMMAND --help.\n\n  containerfs help attach\n  containerfs help rules test",
		Action: func(c *cli.Context) error {
			args := []string{c.App.Name}
			commands := c.App.Commands
			for _, name := range c.Args().Slice() {
				var next *cli.Command
				for _, sub := range commands {
					if sub.HasName(name) {
						next = sub
					}
				}
				if next == nil && len(args) == 1 {
					return noCommand(c.App, name)
				}
				if next == nil {
					return usagef("no command %q; see containerfs %s --help", args[1]+" "+name, args[1])
				}
				args, commands = append(args, next.Name), next.Subcommands
			}
			again := app(c.App.Reader, c.App.Writer, c.App.ErrWriter)
			return again.RunContext(c.Context, append(args, "--help"))
		},
	}
}

// version is that of the module as it was built, with that of Go.
func version() string {
	v := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return v + " " + runtime.Version()
}
