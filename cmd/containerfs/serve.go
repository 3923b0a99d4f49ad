package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"containerfs/ops/rules"
	"containerfs/p9srv"
	"containerfs/subsys"
)

// config is what a server is asked to be.
type config struct {
	Listen      []p9srv.Export
	Hierarchies []hierarchy
	Enable      []string // subsystems that there are only when asked for
	Mirror      string   // anchor membership in the kernel where that is possible: one of mirrors
	State       string   // directory of what outlives the server; "" for none

	MaxContainers        int // of all hierarchies; 0: no bound
	MaxContainersPerUser int // that an unprivileged user owns; 0: no bound
	AllowReleaseAgent    bool

	Rules         string // a file; "": none
	RulesExisting bool   // they are for the tasks that there are at start, too
	Templates     []*rules.Template

	serviceOptions

	// Stderr takes one line `listening on ADDR` for each listener, then
	// `ready`, and the log. As JSON, these lines are the log's, too.
	Stderr io.Writer
}

// hierarchy is one to be mounted at start.
type hierarchy struct{ Name, Options string }

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve this host's containers",
		Description: `For each listener one line "listening on ADDR" comes on standard error, with
the real port where 0 was asked for, then "ready". SIGTERM and SIGINT end it:
requests in hand are answered, sockets removed. It ends with exit code 2 when flags or
files have to be mended before it can start, with 1 when trying again can help.

SIGHUP has it read the config file, the rules and the files of TLS anew. In force
afterwards are the rules and templates, the listeners and their options, hierarchies that are new,
both limits on containers and the log level. Connections of a listener that is gone end, as do those of a peer
that would not be let in on the same terms again; others go on. What needs a restart
is said in the log, and with a fault in a file, or an address that is in use,
everything stays as it was.

A client on the unix socket is the user that the kernel says it is. A TCP
client on this host is the owner of its socket, but root counts as nobody
unless the address ends in ?no_root_squash. From elsewhere nobody has an identity:
the address must give one by as=USER, or trust=uname, or ask for certificates.

ADDR is tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or vsock://CID:PORT, then ?
and options, joined by &; or systemd:NAME, the sockets of that FileDescriptorName= that
the service manager has passed, on which it listens when there is no --listen at all.
0.0.0.0 is all of this host's IPv4 addresses; [::], or no HOST, those of IPv6 as well.
The options:

  as=USER            everyone is that user
  trust=uname        everyone is whom they say they are
  access=ro|rw       ro: nothing can be changed
  attach=NAME        only this hierarchy or container, and what is below: it is / there
  allow=CIDR,...     who may connect; on vsock CIDs, of which there must be some
  no_root_squash     root stays root
  cert= key= ca=     TLS: PEM files of the server and the CA of the clients, whose
                     certificates name their user in the URI containerfs:user:NAME
  users=NAME,...     TLS: who may come in; only so can root be among them
  cid.N.OPTION=...   vsock: as, trust, access or attach of CID N

The config file has the flags as keys, lists for those that may be repeated, and a
table [[listen]] for each listener, with its address in addr and the options as
keys. Flags take the place of the file's values; listeners, hierarchies and
subsystems of flags come in addition. A table [[template]] says what containers have
that rules make (option create) at a path of theirs:

  path      /HIERARCHY/DESTINATION, as in the rules
  set       control files and what is written to them, each line by itself
  delegate  true: the user's and the group's of the process that it is made for, but
            for the files in set and those of cpuset

  containerfs serve --hierarchy cpu=cpuset --listen unix:///run/cfs.sock
  containerfs serve --listen 'tcp://127.0.0.1:5640?no_root_squash'
  containerfs serve --listen 'tcp://0.0.0.0:5640?as=batch&allow=10.0.0.0/8&attach=/cpu/vm42'`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read `FILE` (TOML), too"},
			&cli.StringSliceFlag{Name: "listen", Usage: "listen on `ADDR`; may be repeated", DefaultText: "the unix socket /run/containerfs/9p.sock, or $XDG_RUNTIME_DIR/containerfs/9p.sock of others than root"},
			&cli.StringSliceFlag{Name: "hierarchy", Usage: "mount the hierarchy `NAME=OPTIONS`; may be repeated", DefaultText: "all=all"},
			&cli.StringSliceFlag{Name: "enable", Usage: "have the subsystem `NAME`, which there is only when asked for: " + strings.Join(subsys.Optional, " ") +
				"; or have the kernel's controller do what " + strings.Join(subsys.Enforced, " or ") + " does; may be repeated"},
			&cli.IntFlag{Name: "max-containers", Usage: "allow `N` containers in all; 0 is no limit", Value: 1_000_000},
			&cli.IntFlag{Name: "max-containers-per-user", Usage: "allow an unprivileged user to own `N` containers; 0 is no limit", Value: 10_000},
			&cli.BoolFlag{Name: "allow-release-agent", Usage: "let root on this host name a program that the server runs when a container is released"},
			&cli.StringFlag{Name: "rules", Usage: "put tasks where the rules in `FILE` say; see containerfs rules --help"},
			&cli.BoolFlag{Name: "rules-existing", Usage: "put the tasks that there are at start where the rules say, too"},
			&cli.StringFlag{Name: "state", Usage: "keep hierarchies, containers and settings in `DIR`, or none", EnvVars: []string{"CONTAINERFS_STATE"}, DefaultText: "/var/lib/containerfs, or $XDG_STATE_HOME/containerfs"},
			&cli.StringFlag{Name: "mirror", Usage: "anchor membership in a cgroup hierarchy of the kernel as `HOW` says: auto, off, or with a cgroup v1 controller that nothing else uses, for thousands of css groups: hugetlb, misc or rdma", Value: "auto"},
		}, serviceFlags()...),
		Action: func(c *cli.Context) error {
			// So a crash ends it by SIGABRT. Go's exit code would be that of a command
			// line which makes no sense, and nobody would start the server again.
			debug.SetTraceback("crash")
			conf, err := serveConfig(c)
			if err != nil {
				return err
			}
			conf.Reread = func() (config, error) {
				next, err := serveConfig(c)
				next.Reread = conf.Reread
				return next, err
			}
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, conf)
		},
	}
}

// shutdownWithin bounds how long the requests in hand are waited for.
const shutdownWithin = 10 * time.Second

// run serves until ctx is done, then answers what is in hand and removes its
// sockets. SIGHUP reloads.
func run(ctx context.Context, conf config) (err error) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	// Whose log is not read any more goes on without: Go's default is to end.
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	defer signal.Stop(unread)
	conf.Stderr = newLogOutput(conf.Stderr, conf.LogJSON)
	log, level := newLogger(conf.Stderr, conf.serviceOptions)
	s := &service{conf: conf, log: log, level: level, notify: notifier{log}}
	tuneThreads(log)
	if err := checkHierarchies(conf); err != nil {
		return err
	}
	// Listeners come first: an address that is in use or refused ends it
	// before anything on the host is touched.
	defer func() {
		for _, l := range s.listeners {
			l.Close()
		}
	}()
	for _, e := range conf.Listen {
		l, err := listen(e)
		if errors.Is(err, os.ErrPermission) && e.Addr == defaultAddr() && os.Geteuid() != 0 {
			err = fmt.Errorf("%w; say where by --listen, or set XDG_RUNTIME_DIR", err)
		}
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	metrics, err := listenMetrics(conf)
	if err != nil {
		return err
	}
	if metrics != nil {
		defer metrics.Close()
	}
	if s.engine, err = newEngine(conf, log); err != nil {
		return err
	}
	alive := s.engine.liveness()
	defer alive.wait()
	defer s.engine.close()

	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	s.srv = p9srv.New(p9srv.Config{Attacher: s.engine.fs, Logger: s.engine.log, Audit: s.engine.audit, Descriptors: descriptors()})
	s.serveMetrics(ctx, metrics, alive)
	s.tasks.Go(func() error { s.engine.maintain(ctx); return nil })
	for _, l := range s.listeners {
		l.Announce(log)
		s.serve(l)
	}
	warnUnused(log, sockets(), conf.Listen)
	s.warnConfined(conf.Listen)
	s.say("ready", "ready")
	s.notify.ready()
	s.tasks.Go(func() error { s.notify.watchdog(ctx, alive.check); return nil })

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-hangup:
			s.reload()
		}
	}
	s.notify.stopping()
	late, cancel := context.WithTimeout(context.Background(), shutdownWithin)
	defer cancel()
	err = s.srv.Shutdown(late)
	return errors.Join(err, s.tasks.Wait())
}

// descriptors are how many the server may have open, 0 if that is not known.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// serve serves a listener, and ends the server when it fails.
func (s *service) serve(l *listening) {
	s.say("listening on "+l.Addr().String(), "listening", "on", l.Addr().String())
	s.tasks.Go(func() error {
		err := s.srv.Serve(l.Listener)
		if err != nil {
			s.stop()
		}
		return err
	})
}

// warnConfined tells of listeners that are confined to what there is not: it can be made
// later, or be a mistake.
func (s *service) warnConfined(listen []p9srv.Export) {
	for _, e := range listen {
		confined := map[string]bool{e.Attach: true}
		for _, terms := range e.CIDs {
			confined[terms.Attach] = true
		}
		for name := range confined {
			if name != "" && !s.engine.fs.HasContainer(name) {
				s.log.Warn("listener: attach="+name, "at", e.Addr.Plain().String(), "why", "there is no such container: nobody can attach before it is made")
			}
		}
	}
}

// say writes a line that programs wait for, whatever the level of the log is.
func (s *service) say(line, message string, args ...any) {
	if !s.conf.LogJSON {
		fmt.Fprintln(s.conf.Stderr, line)
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	r.Add(args...)
	_ = s.log.Handler().Handle(context.Background(), r)
}
