package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/localhost"
)

// eventKinds are the kinds of SPEC §18.
var eventKinds = []string{
	"fork", "exec", "exit", "uid", "attach", "mkdir", "rmdir", "rename", "mount", "remount", "umount", "release", "limit", "lost",
}

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "show events as they happen",
		ArgsUsage: "[PATH]",
		Description: `Lines of the server's event log, from now on. With PATH only those about containers of that
path or below: moves into them and out of them, and that they are made, renamed and
removed, which is not the end, since another can be made there; forks, execs and exits
name no container. With --json an event has the whole path of its container, and of the one
that a task came from, or that it was before a rename. Only root and the server's user may
read logs, unless they have been opened to others.

An event has the nanoseconds of its host's monotonic clock; --time shows what the wall clock
said then, as RFC 3339 has it. Where the server is on another host, or shows one hierarchy only,
it is the time at which the event was received, which is said: there is none of past ones
(--all). What the clock was set by since, or the host was suspended for, is not known.

Kinds are ` + strings.Join(eventKinds, " ") + `.

  containerfs watch --kind attach --kind mkdir /all/Charlie
  containerfs watch --pid 4711 --json
  containerfs watch --time /all/Charlie
  containerfs watch --all -n 10`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "kind", Usage: "show events of `KIND`, or of several with commas between them; may be repeated"},
			&cli.StringSliceFlag{Name: "pid", Usage: "show events about the process or thread `PID`, or its children; may be repeated"},
			&cli.BoolFlag{Name: "all", Usage: "begin with the oldest that the server has"},
			&cli.IntFlag{Name: "n", Usage: "end after `N` events"},
			&cli.BoolFlag{Name: "no-follow", Usage: "end when all there are were shown, from the oldest on"},
			&cli.BoolFlag{Name: "time", Usage: "show the time of day; with --json as time, or received, as well"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 0, 1)
			if err != nil {
				return err
			}
			w, err := newWatcher(c, append(args, "/")[0])
			if err != nil {
				return err
			}
			return withServer(c, func(s *session) error {
				ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
				defer stop()
				defer s.closeWith(ctx)()
				if err := w.follow(ctx, s, c.App.ErrWriter); err != nil && ctx.Err() == nil {
					return &pathError{"watch", w.path, err}
				}
				return nil
			})
		},
	}
}

// event is a line of an event log.
type event struct {
	Time   int64             `json:"monotonic_ns"`
	Kind   string            `json:"kind"`
	Fields map[string]string `json:"fields"`

	// Paths for other commands: of the container that it is about, and of the one that a
	// task came from, or that it was before.
	Container     string `json:"container,omitempty"`
	FromContainer string `json:"from_container,omitempty"`

	Wall     string `json:"time,omitempty"`
	Received string `json:"received,omitempty"` // where that is not known
}

// parseEvent takes a line apart.
func parseEvent(line string) (event, error) {
	bad := func() (event, error) { return event{}, fmt.Errorf("no event: %q", line) }
	first, rest, _ := strings.Cut(line, " ")
	at, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return bad()
	}
	e := event{Time: at, Fields: make(map[string]string)}
	e.Kind, rest, _ = strings.Cut(rest, " ")
	if e.Kind == "" {
		return bad()
	}
	for rest != "" {
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			return bad()
		}
		if strings.HasPrefix(value, `"`) {
			quoted, err := strconv.QuotedPrefix(value)
			if err != nil {
				return bad()
			}
			rest = strings.TrimPrefix(value[len(quoted):], " ")
			if value, err = strconv.Unquote(quoted); err != nil {
				return bad()
			}
		} else {
			value, rest, _ = strings.Cut(value, " ")
		}
		e.Fields[key] = value
	}
	return e, nil
}

// from is the path in the hierarchy of where a task came from, or of what was renamed.
func (e *event) from() string {
	from := e.Fields["from"]
	if e.Kind == "rename" {
		from = path.Join(path.Dir(e.Fields["path"]), from) // it is the old name alone
	}
	return from
}

// join sets the paths for other commands. To a client that is confined to the hierarchy
// they are what the event has.
func (e *event) join(confined bool) {
	dir := func(at string) string {
		if at == "" || confined {
			return at
		}
		return place{Hierarchy: e.Fields["hierarchy"], Path: at}.dir()
	}
	e.Container = dir(cmp.Or(e.Fields["path"], e.Fields["to"]))
	e.FromContainer = dir(e.from())
}

// watcher is what is to be shown of a log.
type watcher struct {
	path      string // that was asked for
	log       string // its path
	confined  bool   // the server shows us one hierarchy only
	container string // within its hierarchy; empty: all
	kinds     []string
	pids      []string

	fromStart, once, json bool
	left                  int // events to be shown; negative: no end
	out                   *bufio.Writer

	timed     bool      // show the time of day
	here      bool      // the server's clocks are ours
	wall      time.Time // when the log was read last
	monotonic int64     // the same, as events have it
}

func newWatcher(c *cli.Context, path string) (*watcher, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	w := &watcher{
		path: path, log: "/events",
		fromStart: c.Bool("all") || c.Bool("no-follow"), once: c.Bool("no-follow"), json: c.Bool("json"), timed: c.Bool("time"),
		left: -1, out: bufio.NewWriter(c.App.Writer),
	}
	if c.IsSet("n") {
		if w.left = c.Int("n"); w.left < 1 {
			return nil, usagef("n: want 1 or more")
		}
	}
	if names := split(path); len(names) > 0 {
		w.log = "/" + names[0] + "/events"
		if len(names) > 1 {
			w.container = "/" + strings.Join(names[1:], "/")
		}
	}
	for _, kinds := range c.StringSlice("kind") {
		w.kinds = append(w.kinds, strings.Split(kinds, ",")...)
	}
	for _, kind := range w.kinds {
		if !slices.Contains(eventKinds, kind) {
			return nil, usagef("no events of kind %q; there are %s", kind, strings.Join(eventKinds, " "))
		}
	}
	for _, arg := range c.StringSlice("pid") {
		pid, err := onlyPID(arg)
		if err != nil {
			return nil, err
		}
		w.pids = append(w.pids, strconv.Itoa(pid))
	}
	return w, nil
}

// wants reports whether an event is to be shown.
func (w *watcher) wants(e event) bool {
	if len(w.kinds) > 0 && !slices.Contains(w.kinds, e.Kind) {
		return false
	}
	about := func(keys []string, is func(string) bool) bool {
		return slices.ContainsFunc(keys, func(k string) bool {
			v, ok := e.Fields[k]
			return ok && is(v)
		})
	}
	if len(w.pids) > 0 && !about([]string{"pid", "tgid", "parent"}, func(v string) bool { return slices.Contains(w.pids, v) }) {
		return false
	}
	in := func(v string) bool { return v == w.container || strings.HasPrefix(v, w.container+"/") }
	return w.container == "" || in(e.from()) || about([]string{"path", "to"}, in)
}

// How often the log is looked at: a read at its end does not wait.
const (
	watchShortest = 20 * time.Millisecond
	watchLongest  = 250 * time.Millisecond
)

// follow shows events until ctx is done, or there were enough.
func (w *watcher) follow(ctx context.Context, s *session, stderr io.Writer) error {
	f, err := s.walk(w.log)
	if err != nil {
		return noLog(s, w.path, err)
	}
	defer f.Close()
	if w.container != "" && !w.fromStart {
		// A name that is mistyped would be waited for without end.
		dir, err := s.walk(w.path)
		if err != nil {
			return err
		}
		dir.Close()
	}
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return err
	}
	if err := w.look(s, stderr); err != nil {
		return err
	}
	_, _, attr, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return err
	}
	end, offset := int64(attr.Size), int64(0)
	if !w.fromStart {
		offset = end
	}
	var line []byte
	buf := make([]byte, messageSize/2)
	for pause := watchShortest; ; {
		n, err := f.ReadAt(buf, offset)
		w.wall, w.monotonic = time.Now(), localhost.Monotonic()
		offset += int64(n)
		line = append(line, buf[:n]...)
		for i := bytes.IndexByte(line, '\n'); i >= 0; i = bytes.IndexByte(line, '\n') {
			if err := w.show(string(line[:i])); err != nil || w.left == 0 {
				return errors.Join(err, w.out.Flush())
			}
			line = line[i+1:]
		}
		// A lost connection is a wrapped io.EOF: see read.
		if err != nil && err != io.EOF {
			return err
		}
		// A log that is written to all the time has no end to be flushed at.
		if err := w.out.Flush(); err != nil {
			return err
		}
		if ctx.Err() != nil || w.once && (n == 0 || offset >= end) {
			return nil
		}
		if n > 0 {
			pause = watchShortest
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(pause*2, watchLongest)
	}
}

// noLog is why a log is not there: its path is not, or the listener shows no log of it.
func noLog(s *session, path string, err error) error {
	dir, notThere := s.walk(path)
	if notThere != nil {
		return err
	}
	dir.Close()
	if _, confined := s.world(); isGone(confined) {
		return fmt.Errorf("its listener shows one hierarchy or container only (attach=), which has no log here: %w", err)
	}
	return err
}

// look finds out what the server shows us, and where it is.
func (w *watcher) look(s *session, stderr io.Writer) error {
	if !w.json && !w.timed {
		return nil
	}
	world, err := s.world()
	w.confined = isGone(err)
	if err != nil && !w.confined {
		return err
	}
	w.here = err == nil && world.here()
	switch {
	case !w.timed || w.here:
	case w.fromStart:
		return fmt.Errorf("times of past events: %w", errNotLocal)
	default:
		fmt.Fprintln(stderr, "containerfs: warning: times are those of receipt: the server is not known to be on this host, and events have its clock")
	}
	return nil
}

// timeOfDay is as RFC 3339 has it.
const timeOfDay = "2006-01-02T15:04:05.000Z07:00"

// date sets the time of an event, and returns it.
func (w *watcher) date(e *event) string {
	if !w.here {
		e.Received = w.wall.Format(timeOfDay)
		return e.Received
	}
	e.Wall = w.wall.Add(time.Duration(e.Time - w.monotonic)).Format(timeOfDay)
	return e.Wall
}

// show shows a line if it is wanted.
func (w *watcher) show(line string) error {
	e, err := parseEvent(line)
	if err != nil || !w.wants(e) {
		// What was dropped from the log before it was read can leave half a line.
		return nil
	}
	if w.left > 0 {
		w.left--
	}
	if w.timed {
		_, rest, _ := strings.Cut(line, " ")
		line = w.date(&e) + " " + rest
	}
	if w.json {
		e.join(w.confined)
		return writeJSON(w.out, e)
	}
	_, err = fmt.Fprintln(w.out, printable(line))
	return err
}
