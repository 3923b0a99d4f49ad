package tests

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestMountCommand: `containerfs mount` over every transport that a guest has, and
// as the helper that mount(8) runs for a line of fstab.
func TestMountCommand(t *testing.T) {
	if !inside {
		runInside(t, "^TestMountCommand$")
		return
	}
	ca := p9test.NewAuthority(t)
	server, client := ca.Server(), ca.Client("containerfs:user:user")
	files := func(f p9srv.TLS) string { return "?cert=" + f.Cert + "&key=" + f.Key + "&ca=" + f.CA }
	s := startServer(t, "--listen", "vsock://:5640?cid.1.as=root", "--listen", "tcp://127.0.0.2:5642",
		"--listen", "tls://127.0.0.1:5641"+files(server))
	tls := "tls://127.0.0.1:5641" + files(client)
	s.run("mkdir", "-m", "777", "/all/Charlie")
	path, err := exec.LookPath("containerfs")
	if err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(t.TempDir(), "mount.containerfs")
	if err := os.Symlink(path, helper); err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]error{"aname=all/Charlie": syscall.EPERM, "aname=all/Charlie,access=any": nil} {
		t.Run("root as nobody, "+options, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := exec.Command(path, "mount", "-o", options, "tcp://127.0.0.2:5642", dir).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			defer syscall.Unmount(dir, 0)
			made := filepath.Join(dir, "nobodys")
			if err := os.Mkdir(made, 0o755); !errors.Is(err, want) {
				t.Errorf("mkdir: %v, want %v", err, want)
			}
			if want != nil {
				return
			}
			var st syscall.Stat_t
			if err := syscall.Stat(made, &st); err != nil || st.Uid != 65534 {
				t.Errorf("it is uid %d's, %v", st.Uid, err)
			}
			if err := os.Remove(made); err != nil {
				t.Error(err)
			}
		})
	}
	for name, command := range map[string][]string{
		"unix":   {path, "mount", "-o", "aname=all", "unix://" + s.sock},
		"tcp":    {path, "mount", "-o", "aname=all,ro,nosuid", "tcp://localhost:" + s.port},
		"vsock":  {path, "mount", "-o", "aname=all", "vsock://1:5640"},
		"tls":    {path, "mount", "-o", "aname=all/Charlie", tls},
		"helper": {helper, "unix!" + s.sock},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name == "helper" { // mount(8) puts its options behind
				command = append(command, dir, "-n", "-o", "rw,_netdev,aname=all")
			} else {
				command = append(command, dir)
			}
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
			defer func() {
				if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
					t.Errorf("umount: %v\n%s", err, out)
				}
			}()
			made := os.Mkdir(filepath.Join(dir, name), 0o755)
			if readOnly := name == "tcp"; (made != nil) != readOnly {
				t.Errorf("mkdir: %v", made)
			}
			file := "Charlie/notify_on_release"
			if name == "tls" {
				file = "notify_on_release"
			}
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || string(b) != "0\n" {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
	waitFor(t, "the end of the relay", func() bool {
		out, _ := exec.Command("pgrep", "-f", "mount-relay").Output()
		return len(out) == 0
	})

	stranger := p9test.NewAuthority(t).Client("containerfs:user:user")
	stranger.CA = client.CA // it takes the server for the right one, which does not take it
	mute, err := net.Listen("unix", filepath.Join(t.TempDir(), "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close() // it accepts in the kernel and never answers
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"unix://" + mute.Addr().String(), t.TempDir()}, 75, "unavailable: no answer within 10s"},
		{[]string{"-o", "persist=1", "unix://" + mute.Addr().String(), t.TempDir()}, 75, "unavailable: no answer within 10s"},
		{[]string{"unix:///nowhere", t.TempDir()}, 75, "unavailable"},
		{[]string{"unix://" + s.sock, "/nowhere"}, notFound, "mount /nowhere: the mount point: no such file or directory"},
		{[]string{"unix://" + s.sock, "/proc/version"}, 1, "mount /proc/version: the mount point: not a directory"},
		{[]string{"-o", "aname=nothing", "unix://" + s.sock, t.TempDir()}, notFound, ": attach nothing at unix://" + s.sock + ": no such file or directory"},
		{[]string{"-o", "aname=all", "tls://127.0.0.1:5641" + files(ca.Client("containerfs:user:root")), t.TempDir()}, notPermitted, ": attach all at tls://127.0.0.1:5641 as the user of "},
		{[]string{"tls://127.0.0.1:5641" + files(stranger), t.TempDir()}, 75, "unavailable: "},
		{[]string{"tls://127.0.0.1:5641" + files(p9test.NewAuthority(t).Client("containerfs:user:user")), t.TempDir()}, 75, "unavailable"},
		{[]string{"unix://" + s.sock}, usage, "usage"},
		{[]string{"http://x", t.TempDir()}, usage, "address"},
	} {
		out, err := exec.Command(path, append([]string{"mount"}, tt.args...)...).CombinedOutput()
		code := 0
		if exit, ok := err.(*exec.ExitError); ok {
			code = exit.ExitCode()
		}
		if code != tt.code || !strings.Contains(string(out), tt.says) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("mount %v: exit code %d, want %d; it says %q", tt.args, code, tt.code, out)
		}
	}
	// mount(8) has codes of its own.
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"unix://" + s.sock}, 1},
		{[]string{"unix://" + s.sock, "/nowhere"}, 32},
		{[]string{"unix:///nowhere", t.TempDir(), "-o", "rw"}, 32},
	} {
		c := exec.Command(helper, tt.args...)
		if out, _ := c.CombinedOutput(); c.ProcessState.ExitCode() != tt.code {
			t.Errorf("%s %v: %v, want exit code %d\n%s", helper, tt.args, c.ProcessState, tt.code, out)
		}
	}
}
