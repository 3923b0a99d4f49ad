package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

const description = `Containers are named by paths as /hierarchy/container/file. A command that
takes several paths goes on after a failure and exits with the code of the
first one.

  containerfs mkdir /all/Charlie
  containerfs write /all/Charlie/cpuset.cpus 0
  containerfs write /all/Charlie/cpuset.mems 0
  containerfs write /all/Charlie/tasks $$
  containerfs read /all/Charlie/tasks

ADDR is unix:///PATH, tcp://HOST:PORT, tls://HOST:PORT?cert=FILE&key=FILE&ca=FILE,
vsock://CID:PORT, or ssh://[USER@]HOST[:PORT][/PATH], which runs ssh and has the
containerfs of that host pass on what is sent to the server there, as USER; ?command=FILE
says where that containerfs is. Over tls the server's certificate has to be HOST's, or that of
NAME with &name=NAME.`

const exitStatusText = `0 ok, 1 failed, 2 usage, 3 not found, 4 not permitted, 5 busy,
6 partly done, 75 server unavailable; of run, what the command exits with,
125 for every failure of run itself, 126 if the command cannot be run, 127 if
there is none.`

const environmentText = `CONTAINERFS_SERVER is the server where --server does not say which; CONTAINERFS_STATE
the state directory of serve; XDG_RUNTIME_DIR and XDG_STATE_HOME are where others than root
have their socket and state, by the names in the defaults of --server and serve --state.`

// app is the command line; its streams are given so that tests can hold them.
func app(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	a := &cli.App{
		Name:        "containerfs",
		Usage:       "containers of this or another host's tasks, over 9P",
		Description: description + "\n\nExit codes: " + exitStatusText,
		Reader:      stdin,
		Writer:      stdout,
		ErrWriter:   stderr,
		Version:     version(),
		// A comma separates the subsystems of one hierarchy, not hierarchies.
		DisableSliceFlagSeparator: true,
		OnUsageError:              onUsageError,
		// The exit code is execute's business; the library would exit by itself.
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); c.Args().Present() {
				return noCommand(c.App, name)
			}
			return usagef("no command given; see containerfs --help")
		},
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name:        "server",
				Usage:       "the server's `ADDR`",
				EnvVars:     []string{serverVariable},
				Value:       clientAddr().String(),
				DefaultText: "the unix socket $XDG_RUNTIME_DIR/containerfs/9p.sock of others than root, if it is there, else /run/containerfs/9p.sock",
			},
			cli.HelpFlag, // else only the library's command brings it
		},
		Commands: []*cli.Command{
			serveCommand(),
			manualCommand(),
			completionCommand(),
			lsCommand(),
			readCommand(),
			writeCommand(),
			mkdirCommand(),
			rmdirCommand(),
			mvCommand(),
			statCommand(),
			chownCommand(),
			chmodCommand(),
			mountCommand(),
			mountRelayCommand(),
			proxyCommand(),
			rulesCommand(),
			getCommand(),
			setCommand(),
			attachCommand(),
			runCommand(),
			psCommand(),
			treeCommand(),
			topCommand(),
			watchCommand(),
			exporterCommand(),
			killCommand(),
			freezeCommand(),
			thawCommand(),
			waitCommand(),
			saveCommand(),
			applyCommand(),
			mountsCommand(),
			subsystemsCommand(),
			doctorCommand(),
			helpCommand(),
		},
	}
	for _, c := range a.Commands {
		if c.OnUsageError == nil {
			c.OnUsageError = onUsageError
		}
		// Else every command has a subcommand "help", and `mkdir help` asks
		// for help.
		c.HideHelpCommand = true
	}
	return a
}

// noCommand is about a name that is no command's.
func noCommand(a *cli.App, name string) error {
	if near := nearestCommand(a.Commands, name); near != "" {
		return usagef("no command %q; did you mean %s?", name, near)
	}
	return usagef("no command %q; see containerfs --help", name)
}

// badValue is what package flag says of a value that is no number, or no boolean.
var badValue = regexp.MustCompile(`^invalid (boolean )?value ("(?s:.*)") for (?:flag )?-([^ ]+): `)

// onUsageError says what is wrong with flags as the commands themselves do.
func onUsageError(c *cli.Context, err error, _ bool) error {
	if err.Error() == "flag provided but not defined: -server" {
		return usagef("--server goes before the command: containerfs --server ADDR %s ...", strings.TrimPrefix(c.Command.HelpName, "containerfs "))
	}
	if bad := badValue.FindStringSubmatch(err.Error()); bad != nil {
		want := "a number" // strings are never refused here
		if bad[1] != "" {
			want = "true or false"
		}
		return usagef("%s: %s: want %s", bad[3], bad[2], want)
	}
	help := "containerfs --help"
	if c.Command != nil && c.Command.HelpName != "" {
		help = c.Command.HelpName + " --help"
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return usagef("there is no flag %q; see %s", name, help) // of -la, which are two, it does not say how it is written
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return usagef("%s wants a value; see %s", dashed(name), help)
	}
	return usagef("%v", err)
}

// execute runs one command line and returns its exit code. What went wrong has
// been written to stderr by then, a line each.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := app(stdin, stdout, stderr)
	err := a.RunContext(ctx, flagsFirst(a, args))
	report(stderr, err)
	return exitCode(err)
}

// report writes an error as one line, unless that has been done.
func report(stderr io.Writer, err error) {
	if err != nil && !errors.As(err, new(*reported)) {
		fmt.Fprintf(stderr, "containerfs: %s\n", printable(errorText(err)))
	}
}

// paths returns a command's arguments when there are at least min and, unless
// max is negative, at most max of them.
func paths(c *cli.Context, min, max int) ([]string, error) {
	if n := c.NArg(); n < min || (max >= 0 && n > max) {
		return nil, usagef("usage: containerfs %s %s", c.Command.Name, c.Command.ArgsUsage)
	}
	return c.Args().Slice(), nil
}

// eachPath connects, does what the command does to every path and goes on
// after a failure. It returns the first failure, each having been reported when
// it happened. Without a server there is nothing to go on with.
func eachPath(c *cli.Context, paths []string, do func(*session, string) error) error {
	for _, path := range paths {
		if err := checkPath(path); err != nil {
			return err
		}
	}
	return withServer(c, func(s *session) error {
		f := failures{stderr: c.App.ErrWriter}
		for _, path := range paths {
			if err := do(s, path); err != nil && f.add(&pathError{c.Command.Name, path, err}) {
				break
			}
		}
		return f.first
	})
}

// withServer connects and does what the command does.
func withServer(c *cli.Context, do func(*session) error) error {
	s, err := connect(c.Context, c.String("server"))
	if err != nil {
		return err
	}
	defer s.close()
	return do(s)
}

// failures are those of a command that goes on after one.
type failures struct {
	stderr io.Writer
	first  error
}

// add reports a failure. Without a server there is nothing to go on with: that is
// true.
func (f *failures) add(err error) (stop bool) {
	report(f.stderr, err)
	if f.first == nil {
		f.first = &reported{err}
	}
	return exitCode(err) == exitUnavailable
}
