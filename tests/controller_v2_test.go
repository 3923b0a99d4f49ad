package tests

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// devices loads what the guest has for it: two disks of memory, and an RDMA device over
// its network.
func devices(t *testing.T) (disk string) {
	t.Helper()
	if _, err := os.Stat("/dev/ram0"); err == nil {
		return "/dev/ram0"
	}
	if out, err := exec.Command("sh", "-c", "set -e; while read m; do insmod /mod/$m.ko; done </mod/more").CombinedOutput(); err != nil {
		t.Fatalf("modules: %v: %s", err, out)
	}
	waitFor(t, "the disks", func() bool { _, err := os.Stat("/dev/ram1"); return err == nil })
	addRDMA(t, rdmaDevice, "eth0")
	return "/dev/ram0"
}

const rdmaDevice = "rxe0"

// addRDMA makes an RDMA device of a network interface, as `rdma link add` does: see
// include/uapi/rdma/rdma_netlink.h.
func addRDMA(t *testing.T, name, netdev string) {
	t.Helper()
	const (
		newLink  = 5<<10 | 3
		devName  = 2
		ndevName = 51
		linkType = 65
	)
	var attrs []byte
	for _, a := range []struct {
		kind  uint16
		value string
	}{{devName, name}, {linkType, "rxe"}, {ndevName, netdev}} {
		attrs = binary.NativeEndian.AppendUint16(attrs, uint16(4+len(a.value)+1))
		attrs = binary.NativeEndian.AppendUint16(attrs, a.kind)
		attrs = append(attrs, a.value...)
		attrs = append(attrs, make([]byte, 4-len(a.value)%4)...)
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(attrs)))
	m = binary.NativeEndian.AppendUint16(m, newLink)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = append(append(m, make([]byte, 8)...), attrs...)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_RDMA)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < unix.NLMSG_HDRLEN+4 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		t.Fatalf("no RDMA device %s: %v", name, unix.Errno(-errno))
	}
}

// reads: a limit of a disk holds for who reads from it in the container.
func (k controllers) reads(t *testing.T) {
	disk := devices(t)
	s := k.serve(t, "io")
	s.run("mkdir", "/h/a")
	const rate, size = 1 << 20, 3 << 20
	s.run("write", "/h/a/io.max", fmt.Sprintf("1:0 rbps=%d", rate))
	if got, want := s.run("read", "/h/a/io.max"), fmt.Sprintf("1:0 rbps=%d wbps=max riops=max wiops=max\n", rate); got != want {
		t.Errorf("io.max is %q, want %q", got, want)
	}
	reader := startWaiter(t, fmt.Sprintf("LD_LIBRARY_PATH=/lib/x86_64-linux-gnu exec /gnu/bin/dd if=%s of=/dev/null bs=64K count=%d iflag=direct", disk, size/(64<<10)))
	s.run("write", "/h/a/procs", reader.pid())
	began := time.Now()
	reader.run(t)
	if err := reader.Wait(); err != nil {
		t.Fatalf("%v: %s", err, reader.output.String())
	}
	if took := time.Since(began); took < 3*time.Second/2 {
		t.Errorf("%d bytes were read within %v, %d a second are allowed", size, took, rate)
	}
	if got := s.run("read", "/h/a/io.stat"); !strings.Contains(got, fmt.Sprintf("1:0 rbytes=%d ", size)) {
		t.Errorf("io.stat:\n%s", got)
	}
	s.run("rmdir", "/h/a")
}

// rows: files with a line for each device pass through line by line, with the kernel's
// errors, and are as they were in a directory that somebody has removed.
func (k controllers) rows(t *testing.T) {
	devices(t)
	names := []string{"io", "rdma"}
	if known, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Fatal(err)
	} else if strings.Contains(string(known), "misc") { // since Linux 5.13
		names = append(names, "misc")
	}
	s := k.serve(t, names...)
	s.run("mkdir", "/h/a", "/h/a/b")
	lines := map[string][]string{
		"io.max": {
			"1:0 rbps=1048576 wbps=max riops=max wiops=max\n",
			"1:1 rbps=max wbps=2097152 riops=max wiops=100\n",
		},
		"rdma.max": {rdmaDevice + " hca_handle=2 hca_object=2000"},
	}
	want := func(when string) {
		t.Helper()
		for file, rows := range lines {
			got := s.run("read", "/h/a/"+file)
			for _, row := range rows {
				if !strings.Contains(got, row) {
					t.Errorf("%s: %s is\n%swant\n%s", when, file, got, row)
				}
			}
		}
	}
	for file, rows := range lines {
		for _, row := range rows {
			s.run("write", "/h/a/"+file, strings.TrimSpace(row))
		}
	}
	want("written")
	c := s.client("h")
	for _, w := range []struct{ file, value string }{
		{"io.max", "99:0 rbps=5"}, {"io.max", "1:0 rbps=x"}, {"io.max", "1:0"}, {"io.weight", "0"},
		{"rdma.max", "nothing hca_handle=2"}, {"rdma.max", rdmaDevice + " hca_handle=-1"},
		{"misc.max", "nothing 3"},
	} {
		if !strings.Contains(strings.Join(names, " "), strings.Split(w.file, ".")[0]) {
			continue
		}
		dir, err := filepath.Glob("/sys/fs/cgroup" + s.base() + "/[0-9]*")
		if err != nil || len(dir) != 1 {
			t.Fatal(dir, err)
		}
		if got, want := c.write("/a/"+w.file, w.value), kernelWrite(dir[0]+"/"+w.file, w.value); want != 0 && errnoIn(got) != want || want == 0 && got != nil {
			t.Errorf("%q to %s: %v, the kernel says %v", w.value, w.file, got, want)
		}
	}
	want("after what was refused")
	for _, name := range names { // in inner containers and in those with tasks
		for _, path := range []string{"/h/a", "/h/a/b"} {
			if got := s.run("ls", path); !strings.Contains(got, name+".") {
				t.Errorf("%s has no file of %s:\n%s", path, name, got)
			}
		}
	}
	p := startSpawner(t)
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.run("rmdir", "/h/a/b")

	dir, err := filepath.Glob("/sys/fs/cgroup" + s.base() + "/[0-9]*")
	if err != nil || len(dir) != 1 {
		t.Fatal(dir, err)
	}
	for _, d := range []string{dir[0] + "/leaf", dir[0]} {
		if err := os.Remove(d); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the directory to be made again", func() bool { return strings.Contains(s.log.String(), "made again") })
	waitFor(t, "what was set", func() bool { code, _, _ := s.command("read", "/h/a/io.max"); return code == 0 })
	want("made again")

	// A file of settings has all lines, and they can be applied.
	saved := filepath.Join(t.TempDir(), "saved.toml")
	writeFile(t, saved, s.run("save", "/h/a"))
	s.run("rmdir", "/h/a")
	if code, out, why := s.command("apply", saved); code != 0 {
		text, _ := os.ReadFile(saved)
		t.Fatalf("apply: exit code %d\n%s%s\n%s", code, out, why, text)
	}
	want("applied")
	s.run("write", "/h/a/rdma.max", rdmaDevice+" hca_handle=3")
	s.run("write", "/h/a/io.max", "1:0 rbps=max")
	writeFile(t, saved, strings.ReplaceAll(s.run("save", "/h/a"), "hca_handle=3", "hca_handle=2"))
	s.run("write", "/h/a/io.max", "1:0 rbps=5242880")
	s.run("apply", saved) // there is a line too many
	lines["io.max"] = lines["io.max"][1:]
	want("applied again")
	if got := s.run("read", "/h/a/io.max"); strings.Contains(got, "1:0") {
		t.Errorf("applied again: io.max is\n%s", got)
	}
}

// inUsersSession: a directory that is delegated to a user is not for root's server that he
// has started in it.
func (k controllers) inUsersSession(t *testing.T) {
	const session = "/containerfs-test-user.slice"
	dir := k.root["pids"] + session
	for _, d := range []string{dir, dir + "/app"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(dir, "trusted.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, dir + "/cgroup.procs", dir + "/cgroup.subtree_control", dir + "/app"} {
		if err := os.Chown(d, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, "/sys/fs/cgroup/cgroup.subtree_control", "+pids")
	s := startServerAs(t, func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", "echo $$ >" + dir + `/app/cgroup.procs; exec "$@"`, "sh", c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
	}, "--enable", "pids", "--hierarchy", "h=pids")
	t.Cleanup(func() {
		s.stop()
		for _, d := range []string{dir + "/app", dir} {
			waitFor(t, d+" to be empty", func() bool { return os.Remove(d) == nil })
		}
	})
	if got := k.dir(t, "pids", s.cmd.Process.Pid); got != session+"/app" {
		t.Fatalf("the server is in %s", got)
	}
	if got := s.base(); strings.HasPrefix(got, session) {
		t.Errorf("root's containers are in %s, which is a user's", got)
	}
}

// unmounted: a server that does not see where version 2 is mounted leaves the host's
// options of it as they are.
func (k controllers) unmounted(t *testing.T) {
	if err := unix.Mount("", "/sys/fs/cgroup", "", unix.MS_REMOUNT, "nsdelegate"); err != nil {
		t.Fatal(err)
	}
	options := func() string {
		text, err := os.ReadFile("/proc/mounts")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), " /sys/fs/cgroup cgroup2 ")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	was := options()
	if !strings.Contains(was, "nsdelegate") {
		t.Fatalf("version 2 has the options %s", was)
	}
	s := startServerAs(t, func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", `umount /sys/fs/cgroup && exec "$@"`, "sh", c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}, "--enable", "pids", "--hierarchy", "h=pids")
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/pids.max", "9")
	if got := options(); got != was {
		t.Errorf("version 2 has the options %s, had %s", got, was)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + s.base()); err != nil {
		t.Error(err)
	}
	s.stop()
	if err := unix.Mount("", "/sys/fs/cgroup", "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
}

// everyV2 has all controllers of version 2 take part in one hierarchy: a process enters
// the directory that is for all, and goes back to where it was.
func (k controllers) everyV2(t *testing.T) {
	text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--enable", "cgroup"}
	names := []string{"cgroup"}
	for _, name := range strings.Fields(string(text)) {
		switch name {
		case "cpuset", "cpu", "memory", "io", "pids", "hugetlb", "rdma", "misc": // SPEC §16
			args = append(args, "--enable", name)
			names = append(names, name)
		}
	}
	p := startSpawner(t)
	was := k.dir(t, "pids", p.pid())
	s := startServer(t, append(args, "--hierarchy", "every="+strings.Join(names, ","))...)
	s.run("mkdir", "/every/a", "/every/a/b")
	for _, path := range []string{"/every/a", "/every/a/b"} {
		s.run("write", path+"/cpuset.cpus", "0")
		s.run("write", path+"/cpuset.mems", "0")
		s.run("write", path+"/procs", fmt.Sprint(p.pid()))
		if got := k.dir(t, "pids", p.pid()); !strings.HasPrefix(got, s.base()+"/") || filepath.Base(got) != "leaf" {
			t.Errorf("in %s it is in %s", path, got)
		}
		files := s.run("ls", path)
		for _, name := range names {
			if !strings.Contains("\n"+files, "\n"+name+".") {
				t.Errorf("%s has no file of %s:\n%s", path, name, files)
			}
		}
	}
	child := p.fork()
	for _, pid := range []int{p.pid(), child} {
		s.run("write", "/every/procs", fmt.Sprint(pid))
		if got := k.dir(t, "pids", pid); got != was {
			t.Errorf("%d went back to %s, was in %s", pid, got, was)
		}
	}
	s.run("rmdir", "/every/a/b", "/every/a")
	s.stop()
	if log := s.log.String(); strings.Contains(log, "left over") {
		t.Errorf("something is left over:\n%s", log)
	}
}
