package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/user"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/ops/rules"
	"containerfs/tree/hostproc"
)

const rulesDescription = `Rules put tasks into containers by who they are and what they execute: serve
--rules FILE. A rule is a line, as in libcgroup's cgrules.conf:

  USER[:PROCESS]  HIERARCHY[,HIERARCHY]...  DESTINATION  [OPTION[,OPTION]...]

  USER         a user's name or number, @ and that of a group, * for everybody, or %
               for the user and the process of the line before
  PROCESS      the name of the executed file, or its absolute path; a * at the end
               stands for any rest
  HIERARCHY    its name, or * for all that are mounted
  DESTINATION  a container's path in the hierarchy, with %u user, %U uid, %g group,
               %G gid, %p process and %P pid put in; a \ before % keeps it
  OPTION       create: make the container where it is missing; with cpuset it has
               the cpuset.cpus and cpuset.mems of its parent at that time, and
               what a [[template]] of serve's config file sets for its path
               ignore: what is in it, or below, stays; the line is for nothing else

What follows a # is a comment. A task is classified when it executes a program or
changes its user or group, by its effective ones. In each hierarchy the first line
decides that fits the task and names the hierarchy. What a task forks is where it
is. A task that was moved by hand stays until it executes another program. Pid 1,
the server and its ancestors are never moved, nor are kernel threads.

/rules in a mount has the rules in force with the times that each decided
(matches) and could not be followed (failures), and how long tasks waited.

  *:firefox  net  browsers
  @students  cpu  students/%u  create
  professor  cpu  professors
  *          *    by-hand      ignore`

func rulesCommand() *cli.Command {
	c := &cli.Command{
		Name:        "rules",
		Usage:       "check classification rules, or say what they do with a task",
		ArgsUsage:   "check FILE | test ...",
		Description: rulesDescription,
		Action: func(c *cli.Context) error {
			if near := nearestCommand(c.Command.Subcommands, c.Args().First()); near != "" {
				return usagef("no command %q; did you mean rules %s?", "rules "+c.Args().First(), near)
			}
			return usagef("usage: containerfs rules check FILE | rules test PID | rules test --user USER --exe PATH")
		},
		Subcommands: []*cli.Command{
			{
				Name:        "check",
				Usage:       "check a file of rules",
				ArgsUsage:   "FILE",
				Description: "Says the line of the first mistake, or how many rules there are, and who in\nthem is not known on this host. The exit code for a mistake is 2, as serve's.\n\n  containerfs rules check /etc/containerfs.rules",
				Flags:       []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return usagef("usage: containerfs rules check FILE")
					}
					return checkRules(c.App.Writer, c.Args().First(), c.Bool("json"))
				},
			},
			{
				Name:      "test",
				Usage:     "say which rule decides for a task, and why",
				ArgsUsage: "PID | --user USER [--group GROUP] --exe PATH",
				Description: "For each hierarchy the line that decides, by what it fits, and the destination.\n" +
					"The rules are those in force at the server, or with --rules those of a file. A\n" +
					"PID is of this host: the server has to be here, too, unless --rules is given.\n\n" +
					"  containerfs rules test --user alice --exe /usr/bin/firefox\n" +
					"  containerfs rules test --rules new.conf $$",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "user", Usage: "a task of `USER`, by name or number"},
					&cli.StringFlag{Name: "group", Usage: "with the effective group `GROUP`, by name or number", DefaultText: "the user's own"},
					&cli.StringFlag{Name: "exe", Usage: "that executes `PATH`"},
					&cli.StringFlag{Name: "rules", Usage: "by the rules in `FILE`"},
					&cli.BoolFlag{Name: "v", Usage: "show the lines that were passed over, too"},
					jsonFlag(),
				},
				Action: testRules,
			},
		},
	}
	for _, sub := range c.Subcommands {
		sub.OnUsageError = onUsageError
		sub.HideHelpCommand = true
	}
	return c
}

// readRules reads a file that the command line names.
func readRules(name string) (*rules.File, error) {
	f, err := rules.Read(name)
	if err != nil {
		err = &exitError{exitUsage, err}
	}
	return f, err
}

func checkRules(out io.Writer, name string, asJSON bool) error {
	f, err := readRules(name)
	if bad := (*rules.LineError)(nil); asJSON && errors.As(err, &bad) {
		written := writeJSON(out, struct {
			Line  int    `json:"line"`
			Error string `json:"error"`
		}{bad.Line, bad.Err.Error()})
		if written != nil {
			return written
		}
	}
	if err != nil {
		return err
	}
	unknown := f.Unknown(new(rules.Names))
	if asJSON {
		for _, r := range f.Rules {
			err := writeJSON(out, struct {
				Line  int    `json:"line"`
				User  string `json:"user"`
				Known bool   `json:"known"`
			}{r.Line, r.User, !slices.Contains(unknown, r)})
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range unknown {
		fmt.Fprintf(out, "%s:%d: %s is not known on this host\n", printable(name), r.Line, printable(r.User))
	}
	_, err = fmt.Fprintf(out, "%s: %d rules\n", printable(name), len(f.Rules))
	return err
}

// trial is what rules are tried on.
type trial struct {
	s           *session // nil if no server is asked
	file        *rules.File
	subject     rules.Subject
	names       rules.Names
	hierarchies []string          // that there are
	places      map[string]string // where the task is in them; nil if it is none
	verbose     bool
	json        bool
	never       string // why the rules are not for the task, "" if they are
}

func testRules(c *cli.Context) error {
	t := &trial{verbose: c.Bool("v"), json: c.Bool("json")}
	pid, err := t.whom(c)
	if err != nil {
		return err
	}
	if name := c.String("rules"); name != "" {
		f, err := readRules(name)
		if err != nil {
			return err
		}
		t.file, t.hierarchies = f, hierarchiesOf(f)
	} else {
		s, err := connect(c.Context, c.String("server"))
		if err != nil {
			return err
		}
		defer s.close()
		if err := t.ask(s, pid); err != nil {
			return err
		}
	}
	if pid != 0 {
		err := t.lookAt(c, pid)
		if errors.Is(err, syscall.ESRCH) {
			err = &pathError{"rules test", c.Args().First(), linux.ESRCH}
		}
		if err != nil {
			return err
		}
	}
	out := bufio.NewWriter(c.App.Writer)
	if len(t.file.Rules) == 0 && c.String("rules") == "" && !t.json {
		fmt.Fprintln(out, "no rules are in force at the server")
	}
	if t.never != "" && !t.json {
		fmt.Fprintln(out, t.never+" is never moved by rules; if it were not:")
	}
	for _, h := range t.hierarchies {
		if err := t.explain(out, h); err != nil {
			return err
		}
	}
	return out.Flush()
}

// whom takes apart what is asked about: the process of a number, or else a task that there
// need not be.
func (t *trial) whom(c *cli.Context) (pid int32, err error) {
	switch {
	case c.NArg() == 1 && !c.IsSet("user") && !c.IsSet("group") && !c.IsSet("exe"):
		n, err := onlyPID(c.Args().First())
		return int32(n), err
	case c.NArg() > 0 || c.String("user") == "" || !path.IsAbs(c.String("exe")):
		return 0, usagef("usage: containerfs rules test PID | rules test --user USER [--group GROUP] --exe PATH, an absolute one")
	}
	t.subject, err = subjectNamed(c.String("user"), c.String("group"), c.String("exe"))
	return 0, err
}

// lookAt finds out what a process is, and whether it is never moved: ESRCH.
func (t *trial) lookAt(c *cli.Context, pid int32) error {
	id, err := hostproc.IdentityOf(pid)
	if err != nil {
		return err
	}
	server := 0
	if c.String("rules") == "" { // else no server is asked
		server, _ = serverProcess(c.Context, c.String("server"))
	}
	t.subject = subjectOf(pid, id)
	t.never, err = neverMoved(pid, lineage(server))
	return err
}

// subjectNamed is a task that there need not be.
func subjectNamed(name, group, exe string) (s rules.Subject, err error) {
	uid, gid := name, name
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err == nil {
		uid, gid = u.Uid, u.Gid
	}
	if s.UID, err = hostID("user", uid); err != nil {
		return s, err
	}
	if group != "" {
		s.GID, err = groupID(group)
	} else {
		s.GID, err = hostID("group", gid)
	}
	if err != nil {
		return s, err
	}
	s.Exe, s.Comm = exe, path.Base(exe)
	return s, nil
}

// hierarchiesOf are those that a file names, and * if it does.
func hierarchiesOf(f *rules.File) (names []string) {
	seen := make(map[string]bool)
	for _, r := range f.Rules {
		for _, h := range r.Hierarchies {
			if h != "*" && !seen[h] {
				names = append(names, h)
			}
			seen[h] = true
		}
	}
	if seen["*"] {
		names = append(names, "*")
	}
	return names
}

// ask asks the server for its rules and hierarchies, and for where a process is.
func (t *trial) ask(s *session, pid int32) error {
	t.s = s
	if pid != 0 {
		if err := s.needHere(); err != nil {
			return err
		}
	}
	var err error
	if t.file, err = s.rules(); err != nil {
		return err
	}
	dirs, err := readdir(s.root)
	if err != nil {
		return &pathError{"list", "/", err}
	}
	for _, d := range dirs {
		if d.QID.Type == p9.TypeDir && d.Name != "proc" {
			t.hierarchies = append(t.hierarchies, d.Name)
		}
	}
	if pid == 0 {
		return nil
	}
	w, err := s.world()
	if err != nil {
		return err
	}
	places, err := s.places(w, int(pid))
	if err != nil {
		return &pathError{"read", fmt.Sprintf("/proc/%d/container", pid), err}
	}
	t.places = make(map[string]string)
	for _, p := range places {
		t.places[p.Hierarchy] = p.Path
	}
	return nil
}

// rules are those in force at the server.
func (s *session) rules() (*rules.File, error) {
	text, err := s.readFile("/rules")
	var f *rules.File
	if err == nil {
		f, err = rulesInForce(text)
	}
	if err != nil {
		return nil, &pathError{"read", "/rules", err}
	}
	return f, nil
}

// rulesInForce reads what a server shows of its rules, with the numbers of the lines
// of the file that they are from.
func rulesInForce(text string) (*rules.File, error) {
	f, err := rules.Parse("/rules", []byte(text))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(text, "\n")
	for _, r := range f.Rules {
		_, comment, _ := strings.Cut(lines[r.Line-1], "#")
		if _, err := fmt.Sscanf(comment, " line=%d", &r.Line); err != nil {
			return nil, fmt.Errorf("%q has no number of a line", lines[r.Line-1])
		}
	}
	return f, nil
}
