package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSSH has Debian's ssh and its server carry the protocol, in a guest: whoever is logged in
// is who a client is, with commands, a proxy and a mount that outlives the server.
func TestSSH(t *testing.T) {
	if !inside {
		root := debian(t, "openssh")
		dir, err := static()
		if err != nil {
			t.Fatal(err)
		}
		g := startGuest(t, map[string]string{"/root/bin": dir}, `
			export PATH=/root/bin:$PATH CONTAINERFS_TEST_INSIDE=1
			chmod 755 /root
			mkdir /root/tests
			cd /root/tests
			exec tests -test.v -test.run '^TestSSH$' 2>&1
		`, filesOf(root)...)
		g.ranTests()
		return
	}
	startSSHD(t)
	const socket = "/run/containerfs/9p.sock"
	serve := func() *server {
		return startServer(t, "--state", "/tmp/state", "--hierarchy", "j=debug", "--listen", "unix://"+socket)
	}
	s := serve()
	s.run("mkdir", "/j/alice")
	s.run("chown", "-R", "1000:1000", "/j/alice")
	by := func(addr string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		c := exec.Command("containerfs", append([]string{"--server", addr}, args...)...)
		c.Stdout, c.Stderr = &out, &errs
		err := c.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return c.ProcessState.ExitCode(), out.String(), errs.String()
	}
	const alice = "ssh://alice@localhost"
	for _, tt := range []struct {
		addr string
		args []string
		code int
		want string // of standard output or error
	}{
		{alice, []string{"ls", "/"}, 0, "j\n"},
		{alice + socket, []string{"mkdir", "/j/alice/a"}, 0, ""},
		{alice + ":22", []string{"stat", "/j/alice/a"}, 0, "uid=1000 gid=1000"},
		{alice + "?command=/root/bin/containerfs", []string{"mkdir", "/j/hers"}, 4, "permission denied"},
		{"ssh://localhost", []string{"mkdir", "/j/roots"}, 0, ""},
		{"ssh://[::1]", []string{"ls", "/"}, 75, "Connection refused"},
		{"ssh://nobody@localhost", []string{"ls", "/"}, 75, "Permission denied"},
		{alice + "/run/none", []string{"ls", "/"}, 75, "unix:///run/none unavailable"},
		{alice + "?command=/no 'such'", []string{"ls", "/"}, 75, "/no 'such': not found"},
		{alice + "?command=true", []string{"ls", "/"}, 75, "without a word"},
	} {
		code, stdout, stderr := by(tt.addr, tt.args...)
		if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
			t.Errorf("%s %q: exit code %d, %s%s, want %d and %s", tt.addr, tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}

	p := startSpawner(t)
	if code, _, stderr := by("ssh://localhost", "attach", "/j/roots", fmt.Sprint(p.pid())); code != 0 {
		t.Errorf("attach: exit code %d, %s", code, stderr)
	}
	if got := s.run("read", "/j/roots/procs"); got != fmt.Sprintln(p.pid()) {
		t.Errorf("in the container are %q", got)
	}

	// A mount of alice's, which only root has access to, who mounts it.
	mnt := t.TempDir()
	if out, err := exec.Command("containerfs", "mount", "-o", "persist=60", alice, mnt).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", mnt).Run() })
	if err := os.Mkdir(mnt+"/j/alice/by-mount", 0o755); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(mnt+"/j/not-hers", 0o755); !errors.Is(err, os.ErrPermission) {
		t.Errorf("alice makes a container beside hers: %v", err)
	}
	s.kill9()
	serve()
	if _, err := os.Stat(mnt + "/j/alice/by-mount"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
		t.Errorf("umount: %v\n%s", err, out)
	}

	// What there was at the other end ends with its client.
	waitFor(t, "no process of a connection to be left", func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		return !slices.ContainsFunc(all, func(path string) bool {
			line, _ := os.ReadFile(path)
			return bytes.Contains(line, []byte("proxy\x00-"))
		})
	})
}

// startSSHD starts an ssh server on the loopback, where root may log in as root and alice.
func startSSHD(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run/sshd", "/etc/ssh", "/root/.ssh", "/home/alice"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"/etc/ssh/host", "/root/.ssh/id_ed25519"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	for path, text := range map[string]string{
		"/etc/passwd":       "root:*:0:0::/root:/bin/sh\nsshd:*:74:74::/run/sshd:/bin/false\nalice:*:1000:1000::/home/alice:/bin/sh\n",
		"/etc/group":        "root:x:0:\nsshd:x:74:\nalice:x:1000:\n",
		"/etc/hosts":        "127.0.0.1 localhost\n",
		"/root/.ssh/config": "StrictHostKeyChecking accept-new\nLogLevel ERROR\nBatchMode yes\n",
		"/etc/ssh/config": "ListenAddress 127.0.0.1\nHostKey /etc/ssh/host\nAuthorizedKeysFile /root/.ssh/id_ed25519.pub\n" +
			"UsePAM no\nStrictModes no\nPermitRootLogin yes\nAllowUsers root alice\nPidFile none\n",
	} {
		writeFile(t, path, text)
	}
	if err := os.Symlink("/root/bin/containerfs", "/usr/bin/containerfs"); err != nil {
		t.Fatal(err)
	}
	sshd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/config")
	var said bytes.Buffer
	sshd.Stderr = &said
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sshd.Process.Kill()
		sshd.Wait()
		if t.Failed() {
			t.Logf("sshd:\n%s", said.String())
		}
	})
	waitFor(t, "sshd to listen", func() bool {
		return exec.Command("ssh", "root@localhost", "true").Run() == nil
	})
}
