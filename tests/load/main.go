package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"containerfs/tree/kernfs"
)

// settings are the flags of a run.
type settings struct {
	program string        // containerfs
	time    time.Duration // of one measurement
	reps    int
	rows    *regexp.Regexp
	loads   *regexp.Regexp
	parts   *regexp.Regexp
	plot    string // where to write it
	table   string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// run is the program, or a part of it that is a process of its own.
func run(args []string) error {
	if len(args) > 0 {
		switch part, rest := args[0], args[1:]; {
		case part == "floor" && len(rest) == 1:
			return serveFloor(os.Stdout, rest[0], nil)
		case part == "mover" && len(rest) == 1:
			root, err := kernfs.OpenNamed(hierarchy(os.Getpid()))
			if err != nil {
				return err
			}
			return serveFloor(os.Stdout, rest[0], root)
		case part == "threads" && len(rest) == 1:
			n, err := strconv.Atoi(rest[0])
			return errors.Join(err, threads(n))
		case part == "diod" && len(rest) == 3:
			return execDiod(rest[0], rest[1], rest[2])
		case part == "reader" && len(rest) == 1:
			return runReader(rest[0])
		case part == "storm":
			return runStorm(rest)
		}
	}
	var s settings
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.StringVar(&s.program, "containerfs", "bin/containerfs", "the `program` to measure")
	fs.DurationVar(&s.time, "time", 200*time.Millisecond, "of one measurement")
	fs.IntVar(&s.reps, "reps", 5, "of each measurement")
	fs.StringVar(&s.plot, "plot", "", "write the plot (SVG) to `file`")
	fs.StringVar(&s.table, "table", "", "write the tables (Markdown) to `file`, too")
	rows := fs.String("rows", "", "measure only rows whose short names match `regexp`")
	loads := fs.String("loads", "", "measure only under loads that match `regexp`, as 1x32")
	parts := fs.String("parts", "", "of rows, moves, variants, hostile, tracking only those that match `regexp`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var err1, err2, err3 error
	s.rows, err1 = regexp.Compile("^(" + *rows + ")")
	s.parts, err2 = regexp.Compile("^(" + *parts + ")")
	s.loads, err3 = regexp.Compile("^(" + *loads + ")")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if fs.NArg() > 0 || s.reps < 1 || s.time <= 0 {
		return errors.New("unknown argument, or a number out of range")
	}
	return compare(&s)
}

// compare does all measurements and reports them.
func compare(s *settings) (err error) {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	// Children, hierarchies and sockets are not left behind.
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stopped
		w.close()
		os.Exit(1)
	}()

	stateless := []string(nil)
	help, err := exec.Command(s.program, "serve", "--help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w", s.program, err)
	}
	hasState := strings.Contains(string(help), "--state ")
	if hasState {
		stateless = []string{"--state", "none"}
	}
	b := &book{settings: s, began: time.Now()}
	if s.parts.MatchString("tracking") {
		if err := b.tracking(w, stateless); err != nil {
			return err
		}
	}
	cfs, err := w.addContainerfs("containerfs", s.program, stateless...)
	if err != nil {
		return err
	}
	floor, err := w.addFloor("floor")
	if err != nil {
		return err
	}
	diod, err := w.addDiod()
	if err != nil {
		return err
	}
	if s.parts.MatchString("rows") {
		for place := range cfs.places {
			if err := b.measureAll(peers, []*target{cfs, diod, floor}, place, loads); err != nil {
				return err
			}
		}
	}
	if s.parts.MatchString("moves") {
		moving, err := w.addFloor("mover")
		if err != nil {
			return err
		}
		for place := range cfs.places {
			if err := b.measureAll(moves, []*target{cfs, diod, moving}, place, loads[1:]); err != nil {
				return err
			}
		}
	}
	if s.parts.MatchString("hostile") {
		if err := b.hostile(cfs); err != nil {
			return err
		}
	}
	if s.parts.MatchString("variants") {
		plain, err := w.addContainerfs("without mirror", s.program, append(stateless, "--mirror", "off")...)
		if err != nil {
			return err
		}
		others := []*target{cfs, plain}
		if hasState {
			stateful, err := w.addContainerfs("with state", s.program, "--state", w.dir+"/state")
			if err != nil {
				return err
			}
			others = append(others, stateful)
		}
		if err := b.measureAll(variants, others, 0, loads[1:]); err != nil {
			return err
		}
	}
	return b.publish()
}
