package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/p9srv"
)

func TestMountOptions(t *testing.T) {
	own := fmt.Sprintf("access=%d", os.Geteuid())
	for _, tt := range []struct {
		in, network string
		flags       uintptr
		data        []string
	}{
		{"persist", "unix", 0, []string{"version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"", "unix", 0, []string{"version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"", "tls", 0, []string{"version=9p2000.L", "cache=none", own, "msize=65536"}},
		{"ro,nosuid,aname=cpu", "tcp", unix.MS_RDONLY | unix.MS_NOSUID, []string{"aname=cpu", "version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"aname=", "unix", 0, []string{"aname=/", "version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"rw,_netdev,x-systemd.automount,access=any,version=9p2000", "tls", 0, []string{"access=any", "version=9p2000", "cache=none", "msize=65536"}},
	} {
		got, err := parseMountOptions(tt.in, tt.network)
		if err != nil {
			t.Error(err)
		}
		if got.flags != tt.flags || !slices.Equal(got.data, tt.data) {
			t.Errorf("%q over %s: flags %#x, %q; want %#x, %q", tt.in, tt.network, got.flags, got.data, tt.flags, tt.data)
		}
	}
}

func TestPatience(t *testing.T) {
	for options, want := range map[string]time.Duration{
		"": 0, "ro": 0, "persist": defaultPatience, "ro,persist=5": 5 * time.Second, "persist=2m": 2 * time.Minute, "persist=1.5s": 1500 * time.Millisecond,
		"persist=": -1, "persist=0": -1, "persist=-1": -1, "persist=-1s": -1, "persist=soon": -1, "persist=99999999999": -1,
	} {
		o, err := parseMountOptions(options, "tcp")
		if want < 0 != (err != nil) || err == nil && o.patience != want {
			t.Errorf("%q: %v, %v", options, o.patience, err)
		}
	}
}

// mount(8) puts SPEC and DIR first and its own flags among the options.
func TestMountHelperArguments(t *testing.T) {
	for _, tt := range []struct{ in, want []string }{
		{[]string{"m", "unix!/s", "/mnt"}, []string{"m", "mount", "--", "unix!/s", "/mnt"}},
		{[]string{"m", "unix!/s", "/mnt", "-n", "-o", "ro,aname=a"}, []string{"m", "mount", "-o", "ro,aname=a", "--", "unix!/s", "/mnt"}},
		{[]string{"m", "-sv", "-t", "containerfs", "-N", "ns", "unix!/s", "/mnt"}, []string{"m", "mount", "--", "unix!/s", "/mnt"}},
	} {
		if got := helperArgs(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestMountRefusals: who reads it knows whether the mount point is wrong, or what was asked
// of the server, and a script has the exit codes of the other commands.
func TestMountRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unixAddr, tlsAddr := p9srv.Addr{Network: "unix", Address: "/s"}, p9srv.Addr{Network: "tls", Address: "h:1", TLS: p9srv.TLS{Cert: "/me.pem"}}
	explain := func(a p9srv.Addr, options string, errno syscall.Errno) error {
		o, err := parseMountOptions(options, a.Network)
		if err != nil {
			t.Error(err)
		}
		return explainMount(t.Context(), a, o.attachName(), errno)
	}
	for _, tt := range []struct {
		err  error
		code int
		text string
	}{
		{checkMountPoint(dir + "/none"), exitNotFound, "the mount point: no such file or directory"},
		{checkMountPoint(file), exitFailed, "the mount point: not a directory"},
		{explain(unixAddr, "aname=nothing,ro", unix.ENOENT), exitNotFound, "attach nothing at unix:///s: no such file or directory"},
		{explain(unixAddr, "", unix.EACCES), exitPermission, "attach / at unix:///s: permission denied"},
		{explain(tlsAddr, "aname=all", unix.EACCES), exitPermission, "attach all at tls://h:1 as the user of /me.pem: permission denied"},
		{explain(unixAddr, "", unix.EREMOTEIO), exitFailed, "remote I/O error: the server does not speak the version asked for"},
	} {
		if tt.err == nil || tt.err.Error() != tt.text || exitCode(&pathError{"mount", "/t", tt.err}) != tt.code {
			t.Errorf("%v with exit code %d, want %s with %d", tt.err, exitCode(tt.err), tt.text, tt.code)
		}
	}
	if err := checkMountPoint(dir); err != nil {
		t.Error(err)
	}
	for code, want := range map[int]int{exitOK: 0, exitUsage: 1, exitFailed: 32, exitNotFound: 32, exitUnavailable: 32} {
		if got := helperCode(code); got != want {
			t.Errorf("of %d the helper makes %d, want %d", code, got, want)
		}
	}
}

// TestShutAfter: what waits for a server that accepts and says nothing ends, and has the time
// that there is for it.
func TestShutAfter(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "sock")
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := kernelEnd(t.Context(), p9srv.Addr{Network: network, Address: l.Addr().String()}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		hear := func() error { // as the kernel, without end
			for {
				if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, -1); err != unix.EINTR {
					return err
				}
			}
		}
		began := time.Now()
		if _, late := shutAfter(f, 50*time.Millisecond, hear); !late || time.Since(began) < 50*time.Millisecond {
			t.Errorf("%s: after %v, late: %v", network, time.Since(began), late)
		}
		if err, late := shutAfter(f, time.Hour, func() error { return unix.EIO }); err != unix.EIO || late {
			t.Errorf("%s: %v, late: %v", network, err, late)
		}
	}
}
