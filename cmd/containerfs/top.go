package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/terminal"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "show what containers use, live",
		ArgsUsage: "[PATH]",
		Description: `A table of containers with the CPU time that they and what is below them use, in per
cent of one CPU, their tasks and their memory; - is shown for what the subsystems
of their hierarchy do not count, as the kernel's memory does not what is in a root, and
for what you may not read, as the tasks above a container that you may not list.
Keys: c t m p sort by CPU, tasks, memory and path, r turns the order round, space shows
it anew, q ends it.

In a pipe, or with -b, tables come one after the other, without keys. The CPU time
of the first one is not known yet.

  containerfs top /all
  containerfs top -b -n 2 -d 5s --sort memory
  containerfs top -b -n 2 --json`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "b", Usage: "do not use the terminal: print tables"},
			&cli.IntFlag{Name: "n", Usage: "end after `N` tables"},
			&cli.StringFlag{Name: "d", Usage: "`TIME` between two tables, in seconds or as 500ms", Value: "2s"},
			&cli.StringFlag{Name: "sort", Usage: "sort by `COLUMN`: cpu, tasks, memory or path", Value: "cpu"},
			&cli.BoolFlag{Name: "r", Usage: "turn the order round"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 0, 1)
			if err != nil {
				return err
			}
			path := append(args, "/")[0]
			if err := checkPath(path); err != nil {
				return err
			}
			interval, err := duration(c, "d")
			if err != nil {
				return err
			}
			order, ok := sortOrders[c.String("sort")]
			switch {
			case !ok:
				return usagef("sort: no column %q; want cpu, tasks, memory or path", c.String("sort"))
			case interval < minTopInterval:
				return usagef("d: want %v or more", minTopInterval)
			case c.IsSet("n") && c.Int("n") < 1:
				return usagef("n: want 1 or more")
			}
			return withServer(c, func(s *session) error {
				ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
				defer stop()
				defer s.closeWith(ctx)()
				t := &top{c: c, sampler: newSampler(s, path), order: order, reverse: c.Bool("r"), interval: interval, left: c.Int("n")}
				if err := t.run(ctx); err != nil && ctx.Err() == nil {
					return &pathError{"top", path, err}
				}
				return nil
			})
		},
	}
}

// minTopInterval keeps top from being what uses the CPU.
const minTopInterval = 100 * time.Millisecond

// top is a table that is shown again and again.
type top struct {
	c       *cli.Context
	sampler *sampler
	order   sortOrder
	reverse bool

	interval time.Duration
	left     int // tables to be shown; 0: no end

	rows []usage
}

func (t *top) run(ctx context.Context) error {
	out, isTerminal := terminal.Is(t.c.App.Writer)
	in, hasKeys := terminal.Is(t.c.App.Reader)
	if t.c.Bool("b") || t.c.Bool("json") || !isTerminal || !hasKeys {
		return t.batch(ctx)
	}
	keys, restore, err := terminal.Keys(in)
	if err != nil {
		return err
	}
	resized := terminal.Resizes()
	// Another screen, so that what was on this one comes back.
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")
	defer func() {
		fmt.Fprint(out, "\x1b[?25h\x1b[?1049l")
		restore()
	}()
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for fresh := true; ; {
		if fresh {
			if err := t.sample(); err != nil {
				return err
			}
		}
		columns, lines := terminal.Size(out)
		fmt.Fprint(out, t.screen(columns, lines))
		if fresh && t.left == 1 {
			return nil
		} else if fresh && t.left > 0 {
			t.left--
		}
		fresh = false
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-tick.C:
			fresh = true
		case key, ok := <-keys:
			if !ok || key == 'q' {
				return nil
			}
			fresh = t.key(key)
		}
	}
}

// key does what a key asks for; true wants new figures.
func (t *top) key(key byte) (fresh bool) {
	switch key {
	case 'c', 't', 'm', 'p':
		t.order = sortOrders[map[byte]string{'c': "cpu", 't': "tasks", 'm': "memory", 'p': "path"}[key]]
	case 'r':
		t.reverse = !t.reverse
	case ' ':
		return true
	}
	sortUsage(t.rows, t.order, t.reverse)
	return false
}

func (t *top) sample() error {
	rows, err := t.sampler.sample()
	if err != nil {
		return err
	}
	sortUsage(rows, t.order, t.reverse)
	t.rows = rows
	return nil
}

// heading has the columns of line.
var heading = fmt.Sprintf("%7s %7s %9s  %s", "CPU%", "TASKS", "MEMORY", "CONTAINER")

func (u *usage) line() string {
	cpu, tasks, memory := "-", "-", "-"
	if u.CPU != nil {
		cpu = fmt.Sprintf("%.1f", *u.CPU)
	}
	if u.Tasks != nil {
		tasks = fmt.Sprint(*u.Tasks)
	}
	if u.Memory != nil {
		memory = bytesShort(*u.Memory)
	}
	return fmt.Sprintf("%7s %7s %9s  %s", cpu, tasks, memory, printable(u.Path))
}

// bytesShort shows a number of bytes in four digits or less.
func bytesShort(n int64) string {
	if n < 1024 {
		return fmt.Sprint(n)
	}
	f := float64(n)
	for _, unit := range "KMGTPE" {
		if f /= 1024; f < 1023.95 {
			return fmt.Sprintf("%.1f%c", f, unit)
		}
	}
	return fmt.Sprintf("%.1fE", f)
}

// screen draws the table for a terminal of a size.
func (t *top) screen(columns, lines int) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	put := func(text string) {
		if r := []rune(text); len(r) > columns {
			text = string(r[:columns])
		}
		b.WriteString(text + "\x1b[K")
	}
	order := "sorted by " + t.order.name
	if t.reverse {
		order += ", reversed"
	}
	put(fmt.Sprintf("%s, %s - c t m p: sort, r: reverse, q: quit", counted(len(t.rows), "container", "containers"), order))
	if lines > 1 {
		b.WriteString("\r\n\x1b[7m")
		put(heading)
		b.WriteString("\x1b[0m")
	}
	for i := 0; i < len(t.rows) && i < lines-2; i++ {
		b.WriteString("\r\n")
		put(t.rows[i].line())
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// batch prints tables one after the other.
func (t *top) batch(ctx context.Context) error {
	out := bufio.NewWriter(t.c.App.Writer)
	for i := 0; ; i++ {
		if err := t.sample(); err != nil {
			return err
		}
		if err := t.table(out, i > 0); err != nil {
			return err
		}
		if t.left > 0 && i+1 >= t.left {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(t.interval):
		}
	}
}

func (t *top) table(out *bufio.Writer, again bool) (err error) {
	if t.c.Bool("json") {
		for _, u := range t.rows {
			err = errors.Join(err, writeJSON(out, u))
		}
		return errors.Join(err, out.Flush())
	}
	if again {
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, heading)
	for _, u := range t.rows {
		fmt.Fprintln(out, u.line())
	}
	return out.Flush()
}
