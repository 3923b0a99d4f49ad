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

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

// relayCommand is what a mount over TLS leaves behind: a process that has the
// connection, and its end of a socket pair of which the kernel has the other. It
// ends with the mount, or with the connection.
const relayCommand = "mount-relay"

// Descriptors of the relay's process.
const (
	relaySocket = 3
	relayStatus = 4 // closed when the relay runs, after the reason why it does not
)

// startRelay starts a relay and returns the kernel's end.
func startRelay(addr p9srv.Addr) (*os.File, error) {
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

	cmd := exec.Command("/proc/self/exe", relayCommand, addr.String())
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
			a, b, err := relayEnds(c)
			if err != nil {
				fmt.Fprint(report, err)
				return err
			}
			report.Close()
			relay(a, b)
			return nil
		},
	}
}

// relayEnds are the socket that the relay's process was given and the connection
// to the server.
func relayEnds(c *cli.Context) (kernel, server net.Conn, err error) {
	addr, err := p9srv.ParseAddr(c.Args().First())
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(relaySocket, "kernel")
	if kernel, err = net.FileConn(f); err != nil {
		return nil, nil, err
	}
	f.Close()
	ctx, cancel := context.WithTimeout(c.Context, greetingTime)
	defer cancel()
	if server, err = addr.Dial(ctx); err != nil {
		kernel.Close()
		return nil, nil, err
	}
	return kernel, server, nil
}
