package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/terminal"
	"containerfs/p9srv"
	"containerfs/p9srv/persist"
)

func proxyCommand() *cli.Command {
	return &cli.Command{
		Name:      "proxy",
		Usage:     "offer a remote server on a local unix socket",
		ArgsUsage: "SOCKET|- [ADDR]",
		Description: `For clients that can speak 9P and not TLS, vsock or ssh, as 9pfuse and 9p. Whoever may
open the socket is to the server who the proxy is: its directory decides.

With - in place of a socket it serves one client, on standard input and output, and
says ready on standard error when it has reached the server: this is what
ssh://HOST runs there.

With --persist a client's connection outlives the server's, as a mount with that
option does: see mount.

  containerfs proxy unix:///run/lab.sock 'tls://lab:5640?ca=ca.pem&cert=me.pem&key=me.key'
  9pfuse 'unix!/run/lab.sock' /mnt`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "persist", Usage: "outlive a connection to the server, and have requests wait for another for `TIME`"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 2)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			remote, patience, err := proxied(c, args[1:])
			if err != nil {
				return err
			}
			if args[0] == "-" {
				return proxyStdio(ctx, remote, patience, c.App.ErrWriter)
			}
			local, err := p9srv.ParseAddr(args[0])
			if err == nil && local.Network != "unix" {
				err = fmt.Errorf("address %q: a proxy listens on a unix socket", args[0])
			}
			if err != nil {
				return usagef("%v", err)
			}
			return proxy(ctx, local, remote, patience, c.App.ErrWriter)
		},
	}
}

// proxied is the server of a proxy, that of --server if the arguments have none, and how long
// requests wait for it.
func proxied(c *cli.Context, args []string) (remote p9srv.Addr, patience time.Duration, err error) {
	addr := c.String("server")
	if len(args) > 0 {
		addr = args[0]
	}
	if remote, err = p9srv.ParseAddr(addr); err != nil {
		return remote, 0, usagef("%v", err)
	}
	if patience = c.Duration("persist"); patience < 0 {
		return remote, 0, usagef("--persist %v: it is a time", patience)
	}
	return remote, patience, nil
}

// proxyStdio serves the client on standard input and output, until it or ctx ends.
func proxyStdio(ctx context.Context, remote p9srv.Addr, patience time.Duration, stderr io.Writer) error {
	for _, f := range []*os.File{os.Stdin, os.Stdout} {
		if _, is := terminal.Is(f); is {
			return usagef("a terminal is no client: %s is to be a pipe or a socket", f.Name())
		}
	}
	server, err := dialPatiently(ctx, remote, patience)
	if err != nil {
		return &unavailableError{remote.String(), err}
	}
	fmt.Fprintln(stderr, p9srv.SSHReady)
	return relayOne(ctx, openStdio(), server, remote, patience, stderr)
}

// proxy relays the connections of a unix socket, each over one of its own to the
// server, until ctx is done.
func proxy(ctx context.Context, local, remote p9srv.Addr, patience time.Duration, stderr io.Writer) error {
	// Only who runs the proxy may use it: to the server all are him.
	l, err := p9srv.ListenOwn(local.Address)
	if err != nil {
		return &pathError{"listen", local.Address, err}
	}
	var relays sync.WaitGroup
	defer relays.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	fmt.Fprintf(stderr, "listening on %s\nready\n", local)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Out of descriptors, most likely: it gets better when someone leaves.
			report(stderr, err)
			time.Sleep(time.Second)
			continue
		}
		relays.Go(func() {
			if err := proxyOne(ctx, conn, remote, patience, stderr); err != nil {
				report(stderr, &unavailableError{remote.String(), err})
			}
		})
	}
}

// proxyOne serves one connection. It ends with ctx.
func proxyOne(ctx context.Context, conn net.Conn, remote p9srv.Addr, patience time.Duration, stderr io.Writer) error {
	server, err := dialPatiently(ctx, remote, patience)
	if err != nil {
		conn.Close()
		return err
	}
	return relayOne(ctx, conn, server, remote, patience, stderr)
}

// relayOne relays between a client and a server. It ends with ctx.
func relayOne(ctx context.Context, conn, server net.Conn, remote p9srv.Addr, patience time.Duration, stderr io.Writer) error {
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		server.Close()
	})
	defer stop()
	return keepUp(ctx, conn, server, remote, patience, func(format string, args ...any) {
		report(stderr, fmt.Errorf("%s: %s", remote, fmt.Sprintf(format, args...)))
	})
}

// dialPatiently connects to a server, and tries again until its patience is over, ten times a
// second or so: not in the same moments as others.
func dialPatiently(ctx context.Context, addr p9srv.Addr, patience time.Duration) (net.Conn, error) {
	end := time.Now().Add(patience)
	for {
		conn, err := dialServer(ctx, addr)
		if err == nil || ctx.Err() != nil || !time.Now().Before(end) {
			return conn, err
		}
		time.Sleep(persist.Around(100 * time.Millisecond))
	}
}
