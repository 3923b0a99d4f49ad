package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

// mountHelper is the name under which mount(8) runs us for an fstab line of type
// containerfs.
const mountHelper = "mount.containerfs"

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount a server's containers here",
		ArgsUsage: "ADDR DIR",
		Description: `Mounts with the kernel's 9p client, over any address that serve can listen on, and ssh.
What is read changes by itself, so nothing is cached, and each local user is
himself to the server: cache=none,access=user unless -o says otherwise. Over TLS all would
be the user of the certificate, over ssh whom that logs in, so only who mounts has access:
access=UID. Such a connection is relayed by a process that lives as long as the mount. What is
refused is said to be the mount point or the attach, in exit codes as well.

A mount ends with its connection: all in it is an input/output error then. With
-o persist it does not. A process relays it that makes another connection, and has
what is open be so there; until then all in it waits, for 30 seconds or as long as
persist=SECONDS says, and then is an input/output error. So is a change that was
on its way when the connection was lost: it may have been made. What was opened
before is read from the beginning, or else is stale; so is a container that was
removed or renamed meanwhile.

  containerfs mount unix:///run/containerfs/9p.sock /mnt
  containerfs mount -o aname=cpu,ro tcp://host:5640 /mnt
  containerfs mount -o persist tcp://host:5640 /mnt
  containerfs mount -o persist ssh://alice@host /mnt

In fstab, where ` + mountHelper + ` is a link to containerfs:

  tcp://host:5640  /containers  containerfs  _netdev,persist,aname=cpu  0  0`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "o", Usage: "mount `OPTIONS`, separated by commas: those of mount(8) and of the kernel's 9p"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, 2)
			if err != nil {
				return err
			}
			addr, err := p9srv.ParseAddr(args[0])
			if err != nil {
				return usagef("%v", err)
			}
			o, err := parseMountOptions(c.String("o"), addr.Network)
			if err != nil {
				return usagef("%v", err)
			}
			if err := mount(c.Context, addr, args[1], o); err != nil {
				return &pathError{"mount", args[1], err}
			}
			return nil
		},
	}
}

// helperArgs turns the command line of a mount helper, as mount(8) gives it, into
// ours: SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
func helperArgs(args []string) []string {
	out := []string{args[0], "mount"}
	var rest []string
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case (a == "-o" || a == "-N" || a == "-t") && i+1 < len(args):
			i++
			if a == "-o" {
				out = append(out, "-o", args[i])
			}
		case strings.HasPrefix(a, "-"):
		default:
			rest = append(rest, a)
		}
	}
	return append(append(out, "--"), rest...)
}

// mountOptions are the options of a mount: flags of mount(2), and the rest, which
// is the file system's.
type mountOptions struct {
	flags uintptr
	data  []string

	// patience is how long what is in the mount waits for another connection when one is
	// lost, 0 for a mount that ends with it: our own.
	patience time.Duration
}

// defaultPatience is that of the option persist.
const defaultPatience = 30 * time.Second

// parsePatience reads the value of the option persist: seconds, or with a unit.
func parsePatience(s string) (time.Duration, error) {
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("option persist=%s: it is a number of seconds, at least 1, or as 2m", s)
	}
	return d, nil
}

var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "sync": unix.MS_SYNCHRONOUS,
}

// fstabOptions are for those who read fstab, not for the kernel.
var fstabOptions = map[string]bool{
	"rw": true, "defaults": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true,
	"_netdev": true, "nofail": true, "suid": true, "dev": true, "exec": true, "async": true, "atime": true,
}

// isOneUsers reports whether a connection over a network is of one user to the server, whoever
// uses it here: that of a certificate, or of a login. The kernel cannot have such a one.
func isOneUsers(network string) bool { return network == "tls" || network == "ssh" }

// mountDefaults hold unless the option is given.
func mountDefaults(network string) []string {
	access := "access=user"
	if isOneUsers(network) {
		access = fmt.Sprintf("access=%d", os.Geteuid())
	}
	return []string{"version=9p2000.L", "cache=none", access, "msize=65536"}
}

func parseMountOptions(s, network string) (o mountOptions, err error) {
	given := make(map[string]bool)
	for opt := range strings.SplitSeq(s, ",") {
		if flag, ok := mountFlags[opt]; ok {
			o.flags |= flag
			continue
		}
		if opt == "" || fstabOptions[opt] || strings.HasPrefix(opt, "x-") || strings.HasPrefix(opt, "comment=") {
			continue
		}
		key, value, hasValue := strings.Cut(opt, "=")
		if key == "persist" {
			if o.patience = defaultPatience; hasValue {
				if o.patience, err = parsePatience(value); err != nil {
					return o, err
				}
			}
			continue
		}
		given[key] = true
		if opt == "aname=" {
			opt = "aname=/" // the same, and newer kernels (7.3) take no option that is empty
		}
		o.data = append(o.data, opt)
	}
	for _, opt := range mountDefaults(network) {
		if key, _, _ := strings.Cut(opt, "="); !given[key] {
			o.data = append(o.data, opt)
		}
	}
	return o, nil
}

// attachName is what of the server is mounted.
func (o *mountOptions) attachName() string {
	name := "/"
	for _, opt := range o.data {
		if value, ok := strings.CutPrefix(opt, "aname="); ok && value != "" {
			name = value
		}
	}
	return name
}

// mount connects to a server and gives the connection to the kernel.
func mount(ctx context.Context, addr p9srv.Addr, dir string, o mountOptions) error {
	if err := checkMountPoint(dir); err != nil {
		return err
	}
	f, err := kernelEnd(ctx, addr, o.patience)
	if err != nil {
		return err
	}
	defer f.Close() // the kernel has its own reference
	data := fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%[1]d,%s", f.Fd(), strings.Join(o.data, ","))
	within := max(greetingTime(addr), o.patience)
	err, late := shutAfter(f, within, func() error { return unix.Mount(addr.String(), dir, "9p", o.flags, data) })
	switch {
	case late:
		if err == nil { // it has ended as its socket was shut down
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		return &unavailableError{addr.String(), fmt.Errorf("no answer within %v", within)}
	case err != nil:
		return explainMount(ctx, addr, o.attachName(), err)
	}
	return nil
}

// shutAfter does what waits for the other end of a socket, for no longer than within: then the
// socket is shut down, which is reported, and what waits fails.
func shutAfter(socket *os.File, within time.Duration, do func() error) (err error, late bool) {
	done := make(chan struct{})
	shut := time.AfterFunc(within, func() {
		unix.Shutdown(int(socket.Fd()), unix.SHUT_RDWR)
		close(done)
	})
	err = do()
	if late = !shut.Stop(); late {
		<-done // or it could be another's descriptor by then
	}
	return err, late
}

// checkMountPoint refuses what the kernel would, in words that say that it is not the server
// who does: mount(2) has one number for both.
func checkMountPoint(dir string) error {
	info, err := os.Stat(dir)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return mountFailed(errno, "the mount point")
	case err == nil && !info.IsDir():
		return mountFailed(unix.ENOTDIR, "the mount point")
	}
	return err
}

// mountFailed is an error of the kernel's, with what it is about and the exit code that it
// has as one of the server's.
func mountFailed(errno syscall.Errno, what string) error {
	return &exitError{exitCode(linux.Errno(errno)), fmt.Errorf("%s: %w", what, errno)}
}

// kernelEnd is a connected socket for the kernel: the connection itself, or one
// end of a pair whose other end is relayed.
func kernelEnd(ctx context.Context, addr p9srv.Addr, patience time.Duration) (*os.File, error) {
	if isOneUsers(addr.Network) || patience > 0 {
		return startRelay(addr, patience)
	}
	conn, err := dialServer(ctx, addr)
	if err != nil {
		return nil, &unavailableError{addr.String(), err}
	}
	defer conn.Close()
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("no socket under a connection over %s", addr.Network)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err := cmp.Or(err, dupErr); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), addr.String()), nil
}

// explainMount says what is missing when the kernel's refusal does not. The mount point has
// been looked at: what is not there then, or not permitted to root, is what was attached to.
func explainMount(ctx context.Context, addr p9srv.Addr, name string, err error) error {
	switch errno, _ := err.(syscall.Errno); errno {
	case unix.ENODEV:
		return fmt.Errorf("%w: this kernel has no 9p file system (module 9p, CONFIG_9P_FS)", err)
	case unix.EINVAL:
		if known, readErr := has9P(); readErr == nil && known {
			return fmt.Errorf("%w: an option is wrong, or this kernel's 9p lacks trans=fd (module 9pnet_fd); dmesg says which", err)
		}
	case unix.EREMOTEIO:
		return fmt.Errorf("%w: the server does not speak the version asked for", err)
	case unix.EPERM, unix.EACCES, unix.ENOENT, unix.EROFS:
		if errno == unix.EPERM && os.Geteuid() != 0 {
			return &exitError{exitPermission, fmt.Errorf("%w: only root may mount", err)}
		}
		what := "attach " + name + " at " + addr.Plain().String()
		if addr.Network == "tls" {
			what += " as the user of " + addr.TLS.Cert
		}
		return mountFailed(errno, what)
	default:
		if addr.Network != "tls" {
			break
		}
		// A server judges a certificate when its client takes the connection for made.
		s, errAgain := connect(ctx, addr.String())
		if exitCode(errAgain) == exitUnavailable {
			return errAgain
		}
		if errAgain == nil {
			s.close()
		}
	}
	return err
}

// helperCode is mount(8)'s exit code of what is one of ours: its helpers have these, and it
// ends with theirs.
func helperCode(code int) int {
	const incorrectInvocation, failed = 1, 32
	switch code {
	case exitOK:
		return exitOK
	case exitUsage:
		return incorrectInvocation
	}
	return failed
}

// has9P reports whether the kernel has the 9p file system.
func has9P() (bool, error) {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "9p" {
			return true, nil
		}
	}
	return false, nil
}

// relay copies between two connections, in both directions, until both are done.
// An end of one is passed on to the other as far as it can be.
func relay(a, b net.Conn) {
	done := make(chan struct{})
	pass := func(to, from net.Conn) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		} else {
			to.Close()
		}
	}
	go func() {
		defer close(done)
		pass(a, b)
	}()
	pass(b, a)
	<-done
	a.Close()
	b.Close()
}
