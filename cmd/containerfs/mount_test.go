package main

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountOptions(t *testing.T) {
	own := fmt.Sprintf("access=%d", os.Geteuid())
	for _, tt := range []struct {
		in, network string
		flags       uintptr
		data        []string
	}{
		{"", "unix", 0, []string{"version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"", "tls", 0, []string{"version=9p2000.L", "cache=none", own, "msize=65536"}},
		{"ro,nosuid,aname=cpu", "tcp", unix.MS_RDONLY | unix.MS_NOSUID, []string{"aname=cpu", "version=9p2000.L", "cache=none", "access=user", "msize=65536"}},
		{"rw,_netdev,x-systemd.automount,access=any,version=9p2000", "tls", 0, []string{"access=any", "version=9p2000", "cache=none", "msize=65536"}},
	} {
		got := parseMountOptions(tt.in, tt.network)
		if got.flags != tt.flags || !slices.Equal(got.data, tt.data) {
			t.Errorf("%q over %s: flags %#x, %q; want %#x, %q", tt.in, tt.network, got.flags, got.data, tt.flags, tt.data)
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
