package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/p9srv"
	"containerfs/p9srv/persist"
)

// relayCommand is what a mount leaves behind that the kernel cannot have the connection of,
// or that is to outlive it: a process that has the connection, and its end of a socket pair
// of which the kernel has the other. It ends with the mount, or with the connection.
const relayCommand = "mount-relay"

// Descriptors of the relay's process.
const (
	relaySocket = 3
	relayStatus = 4 // closed when the relay runs, after the reason why it does not
)

// startRelay starts a relay and returns the kernel's end. With a patience it outlives the
// connection.
func startRelay(addr p9srv.Addr, patience time.Duration) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	kernel, theirs := os.NewFile(uintptr(pair[0]), "kernel"), os.NewFile(uintptr(pair[1]), "relay")
	defer theirs.Close()
	status, report, err := os.Pipe()
	if err != nil {
		kernel.Close()
		return nil, err
	}
	defer status.Close()

	cmd := exec.Command("/proc/self/exe", relayCommand, addr.String(), patience.String())
	cmd.ExtraFiles = []*os.File{theirs, report}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	err = cmd.Start()
	report.Close()
	if err == nil {
		var why []byte
		if why, err = io.ReadAll(status); err == nil && len(why) > 0 {
			err = &unavailableError{addr.String(), errors.New(string(why))}
		}
	}
	if err != nil {
		kernel.Close()
		return nil, err
	}
	return kernel, nil
}

func mountRelayCommand() *cli.Command {
	return &cli.Command{
		Name:   relayCommand,
		Hidden: true,
		Action: func(c *cli.Context) error {
			report := os.NewFile(relayStatus, "status")
			addr, patience, err := relayArgs(c.Args().Slice())
			var kernel, server net.Conn
			if err == nil {
				kernel, server, err = relayEnds(c.Context, addr)
			}
			if err != nil {
				fmt.Fprint(report, err)
				return err
			}
			report.Close()
			if patience == 0 {
				server = whole{server}
			}
			return keepUp(c.Context, kernel, server, addr, patience, kernelLog(addr))
		},
	}
}

// whole is a connection that ends as a whole: a kernel that hangs up wants no more answers, and
// the server may have none.
type whole struct{ net.Conn }

func relayArgs(args []string) (addr p9srv.Addr, patience time.Duration, err error) {
	if len(args) != 2 {
		return addr, 0, errors.New("an address and a time are wanted")
	}
	if addr, err = p9srv.ParseAddr(args[0]); err != nil {
		return addr, 0, err
	}
	patience, err = time.ParseDuration(args[1])
	return addr, patience, err
}

// keepUp relays between a client and a server until one of them hangs up, or with a
// patience until the client does.
func keepUp(ctx context.Context, client, server net.Conn, addr p9srv.Addr, patience time.Duration, log func(string, ...any)) error {
	if patience == 0 {
		relay(client, server)
		return nil
	}
	return persist.Serve(ctx, client, server, persist.Config{
		Dial:     func(ctx context.Context) (net.Conn, error) { return dialServer(ctx, addr) },
		Patience: patience,
		Log:      log,
	})
}

// dialServer connects to a server, or not, in the time that there is for that.
func dialServer(ctx context.Context, addr p9srv.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTime(addr))
	defer cancel()
	return addr.Dial(ctx)
}

// kernelLog writes where the kernel's own clients say that a server does not respond. Who
// may not write there, or has none, is not told.
func kernelLog(addr p9srv.Addr) func(string, ...any) {
	return func(format string, args ...any) {
		f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		fmt.Fprintf(f, "<5>containerfs: %s: %s\n", addr.Plain(), fmt.Sprintf(format, args...))
	}
}

// relayEnds are the socket that the relay's process was given and the connection
// to the server.
func relayEnds(ctx context.Context, addr p9srv.Addr) (kernel, server net.Conn, err error) {
	f := os.NewFile(relaySocket, "kernel")
	if kernel, err = net.FileConn(f); err != nil {
		return nil, nil, err
	}
	f.Close()
	if server, err = dialServer(ctx, addr); err != nil {
		kernel.Close()
		return nil, nil, err
	}
	return kernel, server, nil
}
