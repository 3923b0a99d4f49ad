package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"containerfs/p9srv"
	"containerfs/subsys"
)

// config is what a server is asked to be.
type config struct {
	Listen      []p9srv.Addr
	Hierarchies []hierarchy
	Enable      []string // subsystems that there are only when asked for
	Mirror      bool     // anchor membership in the kernel where that is possible

	MaxContainers        int // of all hierarchies; 0: no bound
	MaxContainersPerUser int // that an unprivileged user owns; 0: no bound
	AllowReleaseAgent    bool

	// Stderr takes one line `listening on ADDR` for each listener, then
	// `ready`.
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
requests in hand are answered, sockets removed.

A client on the unix socket is the user that the kernel says it is. A TCP
client on this host is the owner of its socket, but root counts as nobody
unless the address ends in ?no_root_squash.

  containerfs serve --hierarchy cpu=cpuset --listen unix:///run/cfs.sock
  containerfs serve --listen tcp://127.0.0.1:5640?no_root_squash`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "listen", Usage: "listen on `ADDR`; may be repeated", DefaultText: "the unix socket " + defaultAddr().Address},
			&cli.StringSliceFlag{Name: "hierarchy", Usage: "mount the hierarchy `NAME=OPTIONS`; may be repeated", DefaultText: "all=all"},
			&cli.StringSliceFlag{Name: "enable", Usage: "have the subsystem `NAME`, which there is only when asked for: " + strings.Join(subsys.Optional, " ") + "; may be repeated"},
			&cli.IntFlag{Name: "max-containers", Usage: "allow `N` containers in all; 0 is no limit", Value: 1_000_000},
			&cli.IntFlag{Name: "max-containers-per-user", Usage: "allow an unprivileged user to own `N` containers; 0 is no limit", Value: 10_000},
			&cli.BoolFlag{Name: "allow-release-agent", Usage: "let root on this host name a program that the server runs when a container is released"},
			&cli.StringFlag{Name: "mirror", Usage: "anchor membership in a cgroup hierarchy of the kernel: `auto` or off", Value: "auto"},
		},
		Action: func(c *cli.Context) error {
			conf, err := serveConfig(c)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, conf)
		},
	}
}

func serveConfig(c *cli.Context) (config, error) {
	conf := config{Stderr: c.App.ErrWriter}
	if c.NArg() > 0 {
		return conf, usagef("serve takes no argument, got %q", c.Args().First())
	}
	for _, addr := range c.StringSlice("listen") {
		a, err := p9srv.ParseAddr(addr)
		if err != nil {
			return conf, usagef("listen: %v", err)
		}
		conf.Listen = append(conf.Listen, a)
	}
	if len(conf.Listen) == 0 {
		conf.Listen = []p9srv.Addr{defaultAddr()}
	}
	seen := map[string]bool{}
	for _, h := range c.StringSlice("hierarchy") {
		name, options, ok := strings.Cut(h, "=")
		if !ok || name == "" || options == "" {
			return conf, usagef("hierarchy %q: want NAME=OPTIONS", h)
		}
		if seen[name] {
			return conf, usagef("hierarchy %q is given twice", name)
		}
		seen[name] = true
		conf.Hierarchies = append(conf.Hierarchies, hierarchy{name, options})
	}
	if len(conf.Hierarchies) == 0 {
		conf.Hierarchies = []hierarchy{{"all", "all"}}
	}
	for _, name := range c.StringSlice("enable") {
		if !slices.Contains(subsys.Optional, name) {
			return conf, usagef("enable %q: want one of %s", name, strings.Join(subsys.Optional, " "))
		}
		conf.Enable = append(conf.Enable, name)
	}
	conf.MaxContainers = c.Int("max-containers")
	conf.MaxContainersPerUser = c.Int("max-containers-per-user")
	conf.AllowReleaseAgent = c.Bool("allow-release-agent")
	if conf.MaxContainers < 0 || conf.MaxContainersPerUser < 0 {
		return conf, usagef("a limit cannot be negative")
	}
	switch mirror := c.String("mirror"); mirror {
	case "auto":
		conf.Mirror = true
	case "off":
	default:
		return conf, usagef("mirror %q: want auto or off", mirror)
	}
	return conf, nil
}

// shutdownWithin bounds how long the requests in hand are waited for.
const shutdownWithin = 10 * time.Second

// run serves until ctx is done, then answers what is in hand and removes its
// sockets.
func run(ctx context.Context, conf config) (err error) {
	log := slog.New(slog.NewTextHandler(conf.Stderr, nil))
	// Listeners come first: an address that is in use or refused ends it
	// before anything on the host is touched.
	var listeners []*p9srv.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, addr := range conf.Listen {
		l, err := p9srv.Listen(addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		listeners = append(listeners, l)
	}
	e, err := newEngine(conf, log)
	if err != nil {
		return err
	}
	defer e.close()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := p9srv.New(p9srv.Config{Attacher: e.fs, Logger: log})
	var tasks errgroup.Group
	tasks.Go(func() error { e.maintain(ctx); return nil })
	for _, l := range listeners {
		fmt.Fprintf(conf.Stderr, "listening on %s\n", l.Addr())
		tasks.Go(func() error { defer stop(); return srv.Serve(l) })
	}
	fmt.Fprintln(conf.Stderr, "ready")

	<-ctx.Done()
	late, cancel := context.WithTimeout(context.Background(), shutdownWithin)
	defer cancel()
	err = srv.Shutdown(late)
	return errors.Join(err, tasks.Wait())
}
