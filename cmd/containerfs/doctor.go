package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look for what is wrong with the server and this host",
		Description: `One line for each thing that was looked at, with what to do about it. Exit code 1
when something is wrong; a warning is not. Of a server on this host the process, its
flags, the sockets that a service manager has passed to it, its files and its state
directory are looked at, for which it takes root; with --config what a file for serve
says, before it is used, and which of its listeners and hierarchies serve would refuse,
these also beside what its state directory keeps: there need be no server for this. So
are rules and templates that can do nothing with these hierarchies. What a server that is
gone has left over on this host is told.
Nothing is changed.

  containerfs doctor
  containerfs doctor --json --config /etc/containerfs.toml`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "look at the config `FILE` in place of the server's flags"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := paths(c, 0, 0); err != nil {
				return err
			}
			var x examination
			x.server(c)
			if x.elsewhere && c.String("config") == "" {
				x.client9P() // by which it can be mounted here
			} else {
				x.kernel()
				x.leftovers()
			}
			return x.report(c)
		},
	}
}

// Statuses of findings.
const (
	statusOK      = "ok"
	statusWarning = "warning"
	statusWrong   = "wrong"
)

// finding is one thing that was looked at.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// examination is what doctor has found.
type examination struct {
	findings []finding
	pid      int // the server's process; 0 when it is not known

	elsewhere bool     // the server is on another host, or may be
	states    []string // the state directories that were looked at
}

func (x *examination) ok(check, format string, args ...any) {
	x.findings = append(x.findings, finding{check, statusOK, fmt.Sprintf(format, args...), ""})
}

// add adds a finding that is not ok.
func (x *examination) add(status, check, text, advice string) {
	x.findings = append(x.findings, finding{check, status, text, advice})
}

var errSomethingWrong = errors.New("doctor: something is wrong")

func (x *examination) report(c *cli.Context) error {
	wrong := false
	for _, f := range x.findings {
		wrong = wrong || f.Status == statusWrong
		var err error
		if c.Bool("json") {
			err = writeJSON(c.App.Writer, f)
		} else {
			line := fmt.Sprintf("%-8s %s: %s", f.Status, f.Check, f.Text)
			if f.Advice != "" {
				line += "; " + f.Advice
			}
			_, err = fmt.Fprintln(c.App.Writer, printable(line))
		}
		if err != nil {
			return err
		}
	}
	if wrong {
		return &reported{&exitError{exitFailed, errSomethingWrong}}
	}
	return nil
}

// server looks at the server: what it says, and on this host its process.
func (x *examination) server(c *cli.Context) {
	addr, file := c.String("server"), c.String("config")
	s, err := connect(c.Context, addr)
	if err != nil {
		status := statusWrong
		if file != "" && isNoListener(err) {
			status = statusWarning // there need not be one before its config file is right
		}
		x.add(status, "server", strings.TrimSuffix(err.Error(), "; "+noListener), noListener)
		x.planned(file)
		return
	}
	defer s.close()
	defer func() {
		if file != "" {
			x.planned(file)
		}
	}()
	w, err := s.world()
	if err != nil {
		x.elsewhere = true
		x.add(statusWarning, "server", "it is at "+addr+" and does not say how it runs: "+err.Error(), "ask over a listener that is not confined by attach=")
		return
	}
	x.ok("server", "at %s, with %s", addr, counted(len(w.hierarchies), "hierarchy", "hierarchies"))
	x.facts(w)
	x.rules(s)
	if !w.here() {
		x.elsewhere = true
		x.add(statusWarning, "process", "the server is on another host, or in another pid namespace", "run doctor there to have its process and files looked at")
		return
	}
	pid, args := serverProcess(c.Context, addr)
	if pid == 0 {
		x.add(statusWarning, "process", "the server's process was not found", "ask as root, over the server's unix socket")
		return
	}
	x.ok("process", "%d", pid)
	x.pid = pid
	x.capabilities(pid)
	x.namespaces(pid)
	if file == "" {
		x.running(args)
	}
}

// facts judges what the server says of the host.
func (x *examination) facts(w *world) {
	switch events, _ := w.fact("events: "); {
	case strings.HasPrefix(events, "proc connector"):
		x.ok("events", "%s", events)
	default:
		x.add(statusWrong, "events", events, "processes are followed by polling /proc: start the server as root in the host's own namespaces, on a kernel with CONFIG_PROC_EVENTS")
	}
	if state, ok := w.fact("state: "); ok {
		x.ok("state", "%s", state)
	}
	switch mirror, _ := w.fact("mirror: "); {
	case strings.HasPrefix(mirror, "on"):
		x.ok("mirror", "%s", mirror)
	default:
		x.add(statusWarning, "mirror", mirror, "start the server as root with --mirror auto, on a kernel with CONFIG_CGROUPS and without cgroup_no_v1=named")
	}
}

// rules looks at the rules in force for those that could not be followed.
func (x *examination) rules(s *session) {
	const check = "rules"
	text, err := s.readFile("/rules")
	if err != nil {
		x.add(statusWarning, check, (&pathError{"read", "/rules", err}).Error(), "ask as root")
		return
	}
	rules, failed := 0, false
	for line := range strings.Lines(text) {
		_, comment, _ := strings.Cut(line, "\t# ")
		var number, matches, failures int
		if n, _ := fmt.Sscanf(comment, "line=%d matches=%d failures=%d", &number, &matches, &failures); n < 3 {
			continue
		}
		rules++
		if failures > 0 {
			failed = true
			x.add(statusWarning, check, fmt.Sprintf("line %d could not be followed, %s", number, counted(failures, "time", "times")), "the log has the reasons")
		}
	}
	if rules > 0 && !failed {
		x.ok(check, "%s", counted(rules, "rule", "rules"))
	}
}

// neededCap is a capability that a server uses.
type neededCap struct {
	bit    uint
	name   string
	what   string
	status string // of a server without it
	admin  bool   // CAP_SYS_ADMIN does as well
}

// neededCaps are those of the unit, but for the one to listen on low ports, which a server
// that runs has done.
var neededCaps = []neededCap{
	{unix.CAP_KILL, "CAP_KILL", "ending the processes of a container", statusWrong, false},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "following processes by the proc connector", statusWrong, false},
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "seeing what processes of other users hold", statusWrong, false},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "the mirror", statusWrong, false},
	{unix.CAP_SYS_NICE, "CAP_SYS_NICE", "CPUs and memory of processes of other users", statusWrong, false},
	{unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", "the limits of bc, which only tells when one is crossed", statusWarning, false},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "processes in cgroups of other users", statusWarning, false},
	{unix.CAP_PERFMON, "CAP_PERFMON", "exact CPU times of processes that end", statusWarning, true},
	{unix.CAP_BPF, "CAP_BPF", "exact CPU times of processes that end", statusWarning, true},
}

func (x *examination) capabilities(pid int) {
	fields, err := statusOf(pid, "CapEff")
	if err != nil {
		x.add(statusWarning, "capabilities", err.Error(), "ask as root")
		return
	}
	effective, _ := strconv.ParseUint(strings.Join(fields, ""), 16, 64)
	x.judgeCapabilities(effective)
}

func (x *examination) judgeCapabilities(effective uint64) {
	missing := false
	for _, c := range neededCaps {
		if effective&(1<<c.bit) != 0 || c.admin && effective&(1<<unix.CAP_SYS_ADMIN) != 0 {
			continue
		}
		missing = true
		x.add(c.status, "capabilities", "the server lacks "+c.name+", for "+c.what, "start it as root, or with the capability")
	}
	if !missing {
		x.ok("capabilities", "the server has what it uses")
	}
}

// initialNamespaces are inodes that the kernel gives the first of their kind.
var initialNamespaces = []struct {
	kind string
	ino  uint64
}{{"user", 0xEFFFFFFD}, {"pid", 0xEFFFFFFC}}

func (x *examination) namespaces(pid int) {
	outside := false
	see := func(kind string, ino uint64) {
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st)
		switch {
		case err != nil:
			x.add(statusWarning, "namespaces", kind+": "+err.Error(), "ask as root")
			outside = true
		case st.Ino != ino:
			x.add(statusWrong, "namespaces", "the server is in a "+kind+" namespace of its own", "start it in the host's: the proc connector tells it nothing there")
			outside = true
		}
	}
	for _, ns := range initialNamespaces {
		see(ns.kind, ns.ino)
	}
	var first unix.Stat_t
	if unix.Stat("/proc/1/ns/net", &first) == nil {
		see("net", first.Ino)
	}
	if !outside {
		x.ok("namespaces", "the server is in the host's")
	}
}
