package hostproc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIdentity(t *testing.T) {
	dir, err := os.MkdirTemp("", "cfs-identity")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, `a\n b`)
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho; read x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(script)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	privileged := can(t, unix.CAP_SETUID) && can(t, unix.CAP_SETGID)
	if privileged {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64001, Gid: 64002, Groups: []uint32{64003, 64004}}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	id, err := IdentityOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if id.Comm != `a\n b` || id.Exe != shell {
		t.Errorf("%+v, want comm %q and exe %s", id, `a\n b`, shell)
	}
	if privileged && (id.UID != 64001 || id.GID != 64002 || !slices.Equal(id.Groups, []uint32{64003, 64004})) {
		t.Errorf("%+v", id)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range []int32{pid, 0, -1} {
		if _, err := IdentityOf(pid); !errors.Is(err, unix.ESRCH) {
			t.Errorf("of %d: %v", pid, err)
		}
	}
}

func TestParseIdentity(t *testing.T) {
	const text = "Name:\ta\\n\\\\b\nState:\tS (sleeping)\nTgid:\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nX:\ty\n"
	id, live, ok := parseIdentity([]byte(text))
	if !ok || !live || id.Comm != "a\n\\b" || id.UID != 2 || id.GID != 6 || !slices.Equal(id.Groups, []uint32{9, 10}) {
		t.Errorf("%+v, %v, %v", id, live, ok)
	}
	for _, bad := range []string{"", "Name:\tx\n", "Name:\tx\nState:\tS\nUid:\t1\nGid:\t1\t2\nGroups:\t\n", "Name:\tx\nState:\tS\nUid:\t1\t4294967296\t3\nGid:\t5\t6\t7\nGroups:\t\n"} {
		if id, _, ok := parseIdentity([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, id)
		}
	}
	zombie := "Name:\tx\nState:\tZ (zombie)\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t\n"
	if _, live, ok := parseIdentity([]byte(zombie)); !ok || live {
		t.Errorf("a zombie: %v, %v", live, ok)
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add([]byte("Name:\ta\nState:\tS\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n"))
	f.Fuzz(func(t *testing.T, data []byte) { parseIdentity(data) })
}
