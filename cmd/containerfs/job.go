package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/gated"
)

// job is a command with the containers that it is run in.
type job struct {
	c        *cli.Context
	dirs     []string
	program  string
	args     []string  // of the command, its name first
	settings []setting // of the containers that have the files
	new, rm  bool      // whether the containers are to be made, and removed

	usage          bool     // whether it is to be printed
	usageFile      *os.File // that it is to be written to, or nil
	started, ended time.Time
	before         jobUsage // the counts of the containers when it was started
	exit           int      // the exit code that it has run end with
}

// newJob is what a command line says.
func newJob(c *cli.Context) (*job, error) {
	j := &job{c: c, dirs: c.StringSlice("c"), new: c.Bool("new"), rm: c.Bool("rm"), usage: c.Bool("usage")}
	var err error
	if j.args, err = paths(c, 1, -1); err != nil {
		return nil, err
	}
	name := j.args[0]
	j.program, err = exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	isPath := checkPath(name) == nil && err != nil
	switch {
	case len(j.dirs) == 0 && isPath:
		return nil, usagef("usage: containerfs run %s; did you mean -c %s?", c.Command.ArgsUsage, name)
	case len(j.dirs) == 0:
		return nil, usagef("usage: containerfs run %s", c.Command.ArgsUsage)
	case j.rm && !j.new:
		return nil, usagef("--rm is for what --new has made")
	}
	for _, dir := range j.dirs {
		if err := checkPath(dir); err != nil {
			return nil, err
		}
	}
	if isPath && len(j.args) > 1 && j.args[1] == "--" {
		return nil, fmt.Errorf("%w; did you mean -c %s?", cannotRun(name, err), name)
	}
	if err != nil {
		return nil, cannotRun(name, err)
	}
	if j.settings, err = parseSettings(c.StringSlice("set")); err != nil {
		return nil, err
	}
	if file := c.String("usage-file"); file != "" {
		j.usageFile, err = os.Create(file) // before anything is made
	}
	return j, err
}

// measures reports whether somebody wants to know the usage.
func (j *job) measures() bool { return j.usage || j.usageFile != nil }

// cannotRun is why a command is not run, with the shell's exit code.
func cannotRun(name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = exitNoCommand
	}
	var inner *exec.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	if at := (*os.PathError)(nil); errors.As(err, &at) {
		err = at.Err // its path is the name again
	}
	return &exitError{code, fmt.Errorf("run %s: %w", name, err)}
}

// run does all of it. The command's exit code is returned as an error.
func (j *job) run() error {
	s, err := j.connect()
	if err != nil {
		return notRun(err)
	}
	// Signals from here on are the child's, so that none leaves a container behind.
	child := newRunChild()
	defer child.stop()
	err = j.start(s, child)
	s.close() // it can be another server by then
	if err != nil {
		return notRun(err)
	}
	failed := child.wait()
	j.ended, j.exit = time.Now(), exitCode(failed)
	if err := j.finish(); err != nil && failed == nil {
		return notRun(err)
	}
	return failed
}

func (j *job) connect() (*session, error) {
	s, err := connect(j.c.Context, j.c.String("server"))
	if err != nil {
		return nil, err
	}
	if err := s.needHere(); err != nil {
		s.close()
		return nil, fmt.Errorf("run: %w", err)
	}
	return s, nil
}

// start has the command executed, or leaves nothing behind.
func (j *job) start(s *session, child *runChild) error {
	var undo undoList
	if err := j.prepare(s, &undo); err != nil {
		return undo.after(err)
	}
	if err := j.execute(s, child); err != nil {
		return undo.after(err)
	}
	return nil
}

// prepare makes the containers and sets their values.
func (j *job) prepare(s *session, undo *undoList) error {
	back := undo
	if j.new {
		back = new(undoList) // values go with the containers
		mode := 0o777 &^ p9.FileMode(umask())
		for _, dir := range j.dirs {
			if err := mkdir(s, dir, mode); err != nil {
				return &pathError{"mkdir", dir, err}
			}
			undo.add("rmdir "+dir, func() error { return rmdir(s, dir) })
		}
	} else {
		for _, dir := range j.dirs {
			if _, err := s.attr(dir); errors.Is(err, linux.ENOENT) {
				return fmt.Errorf("%w; --new makes it", &pathError{"run in", dir, err})
			}
		}
	}
	return j.set(s, back)
}

// set writes values to the containers that have the files.
func (j *job) set(s *session, undo *undoList) error {
	found := make(map[string]bool)
	has := make([][]setting, len(j.dirs))
	for i, dir := range j.dirs {
		for _, v := range j.settings {
			_, err := s.attr(join(dir, v.name))
			switch {
			case err == nil:
				has[i] = append(has[i], v)
				found[v.name] = true
			case !errors.Is(err, linux.ENOENT):
				return &pathError{"set", join(dir, v.name), err}
			}
		}
	}
	for _, v := range j.settings {
		if !found[v.name] {
			return fmt.Errorf("set %s: no container of -c has such a file", v.name)
		}
	}
	for i, dir := range j.dirs {
		if err := setEach(s, dir, has[i], undo); err != nil {
			return err
		}
	}
	return nil
}

// execute makes a process, moves it and lets it execute the program.
func (j *job) execute(s *session, child *runChild) error {
	a, err := newAttacher(s, j.dirs, false)
	if err != nil {
		return err
	}
	p, err := gated.Start(j.program, j.args)
	if err != nil {
		return fmt.Errorf("run: %w", err)
	}
	child.process = p.Process
	if err := a.attach(p.Pid); err != nil {
		p.End()
		return err
	}
	warnOfRules(j.c.App.ErrWriter, s, j.dirs, int32(p.Pid), j.args[0], j.program)
	if j.measures() {
		j.before = jobUsage{CPU: j.measured(s, jobCPU), OOMKills: j.measured(s, jobOOMKills)}
	}
	j.started = time.Now()
	if err := p.Go(); err != nil {
		p.Wait()
		return cannotRun(j.args[0], err)
	}
	return nil // if it has been ended meanwhile, wait says how
}

// finish does what is to be done when the command has ended. Failures are reported at once.
func (j *job) finish() error {
	if !j.rm && !j.measures() {
		return nil
	}
	f := failures{stderr: j.c.App.ErrWriter}
	s, err := connect(j.c.Context, j.c.String("server"))
	if err != nil {
		if j.rm { // what stays
			err = &pathError{"rmdir", strings.Join(j.dirs, " "), err}
		}
		f.add(err)
		return f.first
	}
	defer s.close()
	var ended []string // what there is to be removed
	for _, dir := range j.dirs {
		if !j.rm {
			break
		}
		if err := killIn(s, j.c.App.ErrWriter, dir); err == nil {
			ended = append(ended, dir)
		} else if !isGone(err) && f.add(&pathError{"kill", dir, err}) {
			return f.first
		}
	}
	var u jobUsage // is gone with the containers
	if j.measures() {
		u = j.used(s)
	}
	for _, dir := range ended {
		if err := rmdirTree(s, j.c.App.ErrWriter, dir, false); err != nil && !isGone(err) && f.add(&pathError{"rmdir", dir, err}) {
			break
		}
	}
	if j.measures() {
		if f.first != nil && u.ExitCode == exitOK {
			u.ExitCode = exitCode(notRun(f.first))
		}
		if err := j.tellUsage(u); err != nil {
			f.add(err)
		}
	}
	return f.first
}
