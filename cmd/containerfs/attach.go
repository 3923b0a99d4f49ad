package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/localhost"
	"containerfs/p9srv"
)

func attachCommand() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "move processes into containers",
		ArgsUsage: "PATH... PID...",
		Description: `Each process is moved with all its threads into every PATH, of which there can
be one of each hierarchy. That is one change: it is in all of them or, if anything
fails, where it was. Where only some of several processes could be moved, the exit code is 6,
and each of the others has its line on standard error.

PIDs are those of the server's host. Over the network that is said; on a unix socket they
are refused from elsewhere, also from another pid namespace, unless --server-pids says
whose they are. -r, --unit and --cgroup work on the server's host only. These leave
out pid 1, kernel threads, the server and its ancestors; what would be every process of
the host, as the root of a hierarchy, is refused.

--from moves what is in another container and below, but for what is in a PATH already, and who
is forked there meanwhile. It works from any host.

  containerfs attach /all/Charlie $$
  containerfs attach -r /cpu/batch /net/slow 4711
  containerfs attach --unit nginx.service /cpu/web
  containerfs attach --cgroup /docker/3f2a /cpu/vms
  containerfs attach --from /cpu/vms /cpu && containerfs rmdir -r /cpu/vms`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "r", Usage: "move the processes' descendants, too"},
			&cli.BoolFlag{Name: "t", Usage: "PIDs are of single threads, which are moved alone"},
			&cli.BoolFlag{Name: "server-pids", Usage: "PIDs are those that processes have for the server, wherever that is"},
			&cli.StringSliceFlag{Name: "unit", Usage: "move the processes of the systemd unit `NAME`; may be repeated"},
			&cli.StringSliceFlag{Name: "cgroup", Usage: "move the processes of the cgroup `PATH` and below; may be repeated"},
			&cli.StringSliceFlag{Name: "from", Usage: "move what is in the container `PATH` and below; may be repeated"},
		},
		Action: func(c *cli.Context) error {
			dirs, pids, err := attachArgs(c)
			if err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				return attachAll(c, s, dirs, pids)
			})
		},
	}
}

func attachArgs(c *cli.Context) (dirs []string, pids []int, err error) {
	for _, arg := range c.Args().Slice() {
		switch pid, err := parsePID(arg); {
		case strings.HasPrefix(arg, "/") && pids != nil:
			return nil, nil, usagef("path %q is behind a PID: paths come first", arg)
		case strings.HasPrefix(arg, "/"):
			dirs = append(dirs, arg)
		case err != nil:
			return nil, nil, err
		default:
			pids = append(pids, pid)
		}
	}
	if c.Bool("t") && (c.Bool("r") || c.IsSet("unit") || c.IsSet("cgroup")) {
		return nil, nil, usagef("-t is for PIDs only")
	}
	if c.Bool("r") && slices.Contains(pids, 1) {
		return nil, nil, usagef("attach: -r 1: %v", localhost.ErrEveryProcess)
	}
	if len(dirs) == 0 || len(pids) == 0 && !c.IsSet("unit") && !c.IsSet("cgroup") && !c.IsSet("from") {
		return nil, nil, usagef("usage: containerfs attach %s", c.Command.ArgsUsage)
	}
	return dirs, pids, nil
}

func parsePID(arg string) (int, error) {
	n, err := strconv.ParseUint(arg, 10, 31)
	if err != nil || n == 0 || arg[0] == '+' {
		return 0, usagef("%q is neither a path, which starts with /, nor a PID", arg)
	}
	return int(n), nil
}

// onlyPID is parsePID where a path cannot be.
func onlyPID(arg string) (int, error) {
	pid, err := parsePID(arg)
	if err != nil {
		err = usagef("%q is no PID", arg)
	}
	return pid, err
}

// group is the processes to be moved: those that were named, and those that were found
// on this host or listed by the server, of which it is no failure if they end meanwhile.
type group struct {
	pids    []int
	known   map[int]bool               // those in pids
	found   map[int]*localhost.Process // on this host
	listed  map[int]bool               // by the server
	server  map[int32]string           // see lineage
	leftOut map[int]bool               // found, and never moved
}

func newGroup() *group {
	return &group{known: make(map[int]bool), found: make(map[int]*localhost.Process), listed: make(map[int]bool), leftOut: make(map[int]bool)}
}

// name adds a process, and reports whether it is new.
func (g *group) name(pid int) bool {
	if g.known[pid] {
		return false
	}
	g.known[pid] = true
	g.pids = append(g.pids, pid)
	return true
}

func (g *group) add(found []localhost.Process) {
	for _, p := range found {
		if g.known[p.PID] {
			continue
		}
		if why, err := neverMoved(int32(p.PID), g.server); err == nil && why != "" {
			g.leftOut[p.PID] = true
			continue
		}
		g.name(p.PID)
		g.found[p.PID] = &p
	}
}

// list adds what is in containers and below, as a file there has it, but for what is where the
// others are to be.
func (g *group) list(a *attacher, from []string) error {
	for _, top := range from {
		err := a.s.containers(top, func(path string, depth int, _ []string) error {
			if slices.ContainsFunc(a.dirs, func(dir string) bool { return clean(dir) == clean(path) }) {
				return nil
			}
			ids, err := a.s.numbers(join(path, a.file))
			if err != nil && (depth == 0 || !isGone(err)) {
				return &pathError{"list", path, err}
			}
			for _, id := range ids {
				if g.name(id) {
					g.listed[id] = true
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("attach: %w", err)
		}
	}
	return nil
}

// warn says that processes were left out.
func (g *group) warn(stderr io.Writer) {
	switch n := len(g.leftOut); {
	case n == 1:
		fmt.Fprintln(stderr, "containerfs: warning: 1 process is left out: "+onlyNamed)
	case n > 1:
		fmt.Fprintf(stderr, "containerfs: warning: %d processes are left out: %s\n", n, onlyNamed)
	}
}

const onlyNamed = "pid 1, kernel threads, the server and its ancestors are moved only where they are named"

// attach moves one of the processes. It is true if there was one to be moved.
func (g *group) attach(a *attacher, pid int) (bool, error) {
	p := g.found[pid]
	if p != nil && !p.Same() {
		return false, nil
	}
	switch err := a.attach(pid); {
	case errors.Is(err, linux.ESRCH) && (p != nil || g.listed[pid]):
		return false, nil
	case err != nil:
		return true, err
	case p != nil && !p.Same() && localhost.CommandLine(pid) != "":
		// It has ended, and its number is another's, since before the move or after.
		return true, fmt.Errorf("attach %d: another process has the number by now, and may have been moved: see containerfs ps %[1]d", pid)
	}
	return true, nil
}

// maxRounds bounds how often is looked for who was forked before his parent was moved. Later
// ones are where it is.
const maxRounds = 8

func attachAll(c *cli.Context, s *session, dirs []string, pids []int) error {
	a, err := newAttacher(s, dirs, c.Bool("t"))
	if err != nil {
		return err
	}
	g := newGroup()
	defer g.warn(c.App.ErrWriter)
	for _, pid := range pids {
		g.name(pid)
	}
	local := c.Bool("r") || c.IsSet("unit") || c.IsSet("cgroup")
	switch {
	case local:
		if err := s.needHere(); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		server, _ := serverProcess(c.Context, c.String("server"))
		g.server = lineage(server)
	case len(pids) > 0 && !c.Bool("server-pids"):
		if err := s.checkPIDs(c); err != nil {
			return fmt.Errorf("attach: %w", err)
		}
	}
	if err := g.collect(c); err != nil {
		return err
	}
	from := c.StringSlice("from")
	for _, path := range from {
		if s.isRoot(path) {
			return usagef("attach: --from %s: %v", path, localhost.ErrEveryProcess)
		}
	}
	if err := g.list(a, from); err != nil {
		return err
	}

	var moved, rounds int
	f := failures{stderr: c.App.ErrWriter}
	p := newProgress(c.App.ErrWriter, "attach")
	defer p.end()
	for i := 0; i < len(g.pids); i++ {
		pid := g.pids[i]
		p.step(i, len(g.pids))
		there, err := g.attach(a, pid)
		switch {
		case err != nil:
			p.end()
			if f.add(err) {
				if rest := g.pids[i+1:]; len(rest) > 0 {
					report(c.App.ErrWriter, fmt.Errorf("attach %s: not tried any more", strings.Trim(fmt.Sprint(rest), "[]")))
				}
				return f.after(moved)
			}
		case there:
			moved++
		}
		if i < len(g.pids)-1 {
			continue
		}
		rounds++
		if c.Bool("r") && rounds <= maxRounds {
			below, err := localhost.Descendants(g.pids)
			if err != nil {
				return fmt.Errorf("attach: %w", err)
			}
			g.add(below)
		}
		before := len(g.pids)
		if err := g.list(a, from); err != nil && !isGone(err) {
			return err
		}
		if left := len(g.pids) - before; left > 0 && rounds > maxRounds {
			f.add(fmt.Errorf("attach: more is forked in %s than can be moved: %d are left", strings.Join(from, " "), left))
			return f.after(moved)
		}
	}
	return f.after(moved)
}

// checkPIDs refuses PIDs that are other processes' to the server than to us, where one would
// not expect it, and warns of them over the network.
func (s *session) checkPIDs(c *cli.Context) error {
	w, err := s.world()
	addr, _ := p9srv.ParseAddr(c.String("server")) // to which we are connected
	switch {
	case err == nil && w.here():
	case err == nil && addr.Network == "unix":
		return fmt.Errorf("%w; --server-pids has PIDs taken as the server has them", errNotLocal)
	default:
		fmt.Fprintln(c.App.ErrWriter, "containerfs: warning: PIDs are taken as the server's host has them, which is not known to be this one")
	}
	return nil
}

// after is what a command comes to that has done so many things.
func (f *failures) after(done int) error {
	if f.first == nil || done == 0 {
		return f.first
	}
	return &reported{&exitError{exitPartly, f.first}}
}

// collect adds the processes of units and cgroups.
func (g *group) collect(c *cli.Context) error {
	for _, from := range []struct {
		flag string
		find func(string) (string, error)
	}{{"unit", localhost.UnitDir}, {"cgroup", localhost.CgroupDir}} {
		for _, name := range c.StringSlice(from.flag) {
			dir, err := from.find(name)
			if err != nil {
				return attachError(err)
			}
			pids, err := localhost.CgroupProcesses(dir)
			if err != nil {
				return attachError(err)
			}
			g.add(pids)
		}
	}
	return nil
}

// attachError is an error of this host's kernel, with the code of its errno.
func attachError(err error) error {
	code := exitFailed
	switch {
	case errors.Is(err, localhost.ErrEveryProcess), errors.Is(err, syscall.EINVAL):
		code = exitUsage
	case errors.Is(err, os.ErrNotExist):
		code = exitNotFound
	case errors.Is(err, os.ErrPermission):
		code = exitPermission
	}
	return &exitError{code, fmt.Errorf("attach: %w", err)}
}

// attacher moves tasks into containers of several hierarchies, each task into all
// of them at once or into none.
type attacher struct {
	s    *session
	dirs []string
	file string // that an id is written to
}

// newAttacher looks whether the containers are there, and whether we may write there,
// before anybody is moved.
func newAttacher(s *session, dirs []string, threads bool) (*attacher, error) {
	a := &attacher{s: s, dirs: dirs, file: "procs"}
	if threads {
		a.file = "tasks"
	}
	seen := make(map[string]bool)
	for _, dir := range dirs {
		names := split(dir)
		if len(dirs) == 1 || len(names) == 0 {
			continue // the root can be a container: where the server says so
		}
		if seen[names[0]] {
			return nil, usagef("two containers of the hierarchy %s: a process is in one of them", names[0])
		}
		seen[names[0]] = true
	}
	for _, dir := range dirs {
		if err := mayWriteTo(s, join(dir, a.file)); err != nil {
			return nil, &pathError{"attach", dir, err}
		}
	}
	return a, nil
}

func mayWriteTo(s *session, path string) error {
	f, err := s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = f.Open(p9.WriteOnly)
	return err
}

// attach moves one process, or thread.
func (a *attacher) attach(pid int) error {
	id := strconv.Itoa(pid)
	file, text := "/ctl", "attach "+a.file+" "+id+"\n"+strings.Join(a.dirs, "\n")
	if len(a.dirs) == 1 {
		file, text = join(a.dirs[0], a.file), id
	}
	if err := a.s.writeFile(file, text); err != nil {
		return fmt.Errorf("attach %d: %w", pid, &pathError{"move to", strings.Join(a.dirs, " "), err})
	}
	return nil
}
