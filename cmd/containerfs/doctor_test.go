package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/ops/rules"
	"containerfs/ops/store"
	"containerfs/p9srv"
	"containerfs/subsys"
	"containerfs/tree"
)

// found are the findings of one look, a line each.
func found(look func(*examination)) string {
	var x examination
	look(&x)
	var b strings.Builder
	for _, f := range x.findings {
		fmt.Fprintf(&b, "%s %s: %s\n", f.Status, f.Check, f.Text)
	}
	return b.String()
}

// stateDir is a state directory with a state in it, as a server has left it.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s, err := store.Open(dir, func(store.Key, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	s.Put(store.Key{Bucket: store.Facts, Name: "x"}, []byte("y"), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDoctorListener: who can be root, or anybody, without having to be root of this host.
func TestDoctorListener(t *testing.T) {
	for _, tt := range []struct {
		export string
		want   []string // how findings begin
	}{
		{"unix:///x", []string{"ok listener: unix:///x"}},
		{"tcp://127.0.0.1:1", []string{"ok listener"}},
		{"tcp://localhost:1?trust=uname", []string{"ok listener"}},
		{"tcp://127.0.0.1:1?no_root_squash", []string{"warning root squash: tcp://127.0.0.1:1 lets root stay root"}},
		{"tcp://0.0.0.0:1?as=daemon", []string{"warning listener: tcp://0.0.0.0:1 is open to everybody who can reach it, as the user daemon"}},
		{"tcp://host:1?as=daemon", []string{"warning listener: tcp://host:1 is open to everybody"}},
		{"tcp://0.0.0.0:1?as=daemon&access=ro", []string{"ok listener"}},
		{"tcp://0.0.0.0:1?as=daemon&allow=10.0.0.0/8", []string{"ok listener"}},
		{"tcp://0.0.0.0:1?trust=uname&access=ro", []string{"wrong listener: tcp://0.0.0.0:1 is open to everybody who can reach it, and believes"}},
		{"tcp://0.0.0.0:1?trust=uname&allow=10.0.0.0/8&no_root_squash", []string{"wrong root squash: tcp://0.0.0.0:1 lets root of other hosts be root here"}},
		{"tcp://0.0.0.0:1?as=root&allow=10.0.0.0/8", []string{"wrong root squash: tcp://0.0.0.0:1 makes everybody from outside root"}},
		{"tcp://127.0.0.1:1?as=root", []string{"warning root squash: tcp://127.0.0.1:1 makes every user of this host root"}},
		{"unix:///x?as=root", []string{"warning root squash: unix:///x makes every user of this host root"}},
		{"vsock://:1?as=root&allow=3", []string{"warning root squash: vsock://*:1 lets CID 3 be root"}},
		{"tls://0.0.0.0:1?cert=/c&key=/k&ca=/a", []string{"ok listener"}},
		{"tls://0.0.0.0:1?cert=/c&key=/k&ca=/a&as=root", []string{"wrong root squash"}},
		{"vsock://:1?as=daemon&allow=3", []string{"ok listener"}},
		{"vsock://:1?cid.3.as=root&cid.4.as=daemon", []string{"warning root squash: vsock://*:1 lets CID 3 be root"}},
		{"vsock://:1?cid.3.trust=uname", []string{"ok listener"}},
		{"vsock://:1?cid.3.trust=uname&no_root_squash", []string{"warning root squash: vsock://*:1 lets root stay root", "warning root squash: vsock://*:1 lets CID 3 be root"}},
		{"vsock://:1?cid.3.as=daemon&no_root_squash", []string{"warning root squash: vsock://*:1 lets root stay root"}},
	} {
		e, err := p9srv.ParseExport(tt.export)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(found(func(x *examination) { x.listener(e) })), "\n")
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s:\n%s", tt.export, strings.Join(got, "\n"))
		}
	}
}

// TestDoctorState: each thing that can be wrong with a state directory is told, and
// not where it is not.
func TestDoctorState(t *testing.T) {
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	path := func(dir string) string { return filepath.Join(dir, store.FileName) }
	for _, tt := range []struct {
		name string
		make func(dir string) // of a good one
		want string           // a line that begins so, DIR being the directory
	}{
		{"good", func(string) {}, "ok state directory: DIR has the mode 0700"},
		{"good file", func(string) {}, "ok state: DIR/state.db is whole, with 1 row"},
		{"gone", func(dir string) { do("rm", os.RemoveAll(dir)) }, "ok state directory: DIR is not there, and will be made"},
		{"empty", func(dir string) { do("rm", os.Remove(path(dir))) }, "ok state: DIR has none yet"},
		{"link to nothing", func(dir string) { do("rm", os.Remove(path(dir))); do("link", os.Symlink(dir+"/x/y", path(dir))) }, "wrong state: DIR/state.db is a link to what is not there: a server does not start with it"},
		{"file", func(dir string) { do("rm", os.RemoveAll(dir)); do("write", os.WriteFile(dir, nil, 0o600)) }, "wrong state directory: DIR is no directory"},
		{"readable", func(dir string) { do("chmod", os.Chmod(dir, 0o750)) }, "warning state directory: DIR has the mode 0750: others can look into it"},
		{"writable", func(dir string) { do("chmod", os.Chmod(dir, 0o720)) }, "wrong state directory: DIR has the mode 0720: others can put another"},
		{"parent writable", func(dir string) { do("chmod", os.Chmod(filepath.Dir(dir), 0o777)) }, "wrong state directory: DIR is in PARENT, which has the mode 0777"},
		{"parent sticky", func(dir string) { do("chmod", os.Chmod(filepath.Dir(dir), 0o777|os.ModeSticky)) }, "ok state directory: "},
		{"file readable", func(dir string) { do("chmod", os.Chmod(path(dir), 0o644)) }, "wrong state: DIR/state.db has the mode 0644"},
		{"cut", func(dir string) { do("cut", os.Truncate(path(dir), 5000)) }, "wrong state: DIR/state.db is damaged: truncated to 1 of 5 pages: a server does not start with it"},
		{"not a database", func(dir string) { do("write", os.WriteFile(path(dir), []byte("x"), 0o600)) }, "wrong state: DIR/state.db is damaged: "},
		{"newer", func(dir string) {
			s, err := store.Open(dir, func(store.Key, []byte) error { return nil })
			do("open", err)
			s.Put(store.Key{Bucket: store.Facts, Name: "format"}, []byte{0, 0, 0, 0, 0, 0, 0, store.Format + 1}, nil)
			do("close", s.Close())
		}, "wrong state: DIR/state.db is of a newer format than this server knows: 2, this one knows 1"},
		{"in use", func(dir string) {
			s, err := store.Open(dir, func(store.Key, []byte) error { return nil })
			do("open", err)
			t.Cleanup(func() { s.Close() })
		}, fmt.Sprintf("warning state: DIR is in use by process %d, another server", os.Getpid())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := stateDir(t)
			tt.make(dir)
			got := found(func(x *examination) { x.state(dir, false) })
			want := strings.NewReplacer("DIR", dir, "PARENT", filepath.Dir(dir)).Replace(tt.want)
			if !strings.HasPrefix(got, want) && !strings.Contains(got, "\n"+want) {
				t.Errorf("got\n%swant %q", got, want)
			}
			bad := strings.Count(got, "warning ") + strings.Count(got, "wrong ")
			if wantBad := strings.HasPrefix(want, "w"); bad > 1 || (bad == 1) != wantBad {
				t.Errorf("%d that are not ok:\n%s", bad, got)
			}
		})
	}

	// The server's own is in use by the server.
	dir := stateDir(t)
	s, err := store.Open(dir, func(store.Key, []byte) error { return nil })
	do("open", err)
	defer s.Close()
	if got := found(func(x *examination) { x.pid = os.Getpid(); x.state(dir, true) }); strings.Contains(got, "warning") || strings.Contains(got, "wrong") {
		t.Errorf("of the server:\n%s", got)
	}
	do("rm", os.Remove(path(dir)))
	if got := found(func(x *examination) { x.pid = os.Getpid(); x.state(dir, true) }); !strings.Contains(got, "wrong state: "+path(dir)+" was removed") {
		t.Errorf("without its file:\n%s", got)
	}
	do("rm", os.RemoveAll(dir))
	if got := found(func(x *examination) { x.pid = os.Getpid(); x.state(dir, true) }); !strings.Contains(got, "wrong state directory: "+dir+" was removed") {
		t.Errorf("without its directory:\n%s", got)
	}
}

// TestDoctorStateOwner: a directory is root's, ours or the server's.
func TestDoctorStateOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	const other = 64017
	dir := stateDir(t)
	if err := os.Chown(dir, other, -1); err != nil {
		t.Fatal(err)
	}
	if got := found(func(x *examination) { x.state(dir, false) }); !strings.Contains(got, fmt.Sprintf("wrong state directory: %s belongs to the user %d", dir, other)) {
		t.Errorf("of another user:\n%s", got)
	}
	if err := os.Chown(dir, 0, -1); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Dir(dir), other, -1); err != nil {
		t.Fatal(err)
	}
	if got := found(func(x *examination) { x.state(dir, false) }); !strings.Contains(got, fmt.Sprintf("is in %s, which belongs to the user %d", filepath.Dir(dir), other)) {
		t.Errorf("in another user's:\n%s", got)
	}
}

// TestDoctorStateFileSystem: on tmpfs it is told, and where it is read-only.
func TestDoctorStateFileSystem(t *testing.T) {
	for _, magic := range []int64{unix.TMPFS_MAGIC, unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC} {
		if _, ok := unfitFileSystems[magic]; !ok {
			t.Errorf("%#x is fit for a state", magic)
		}
	}
	for _, magic := range []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC} {
		if unfit, ok := unfitFileSystems[magic]; ok {
			t.Errorf("%#x is taken for %v", magic, unfit)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := found(func(x *examination) { x.stateFileSystem(dir) }); strings.Contains(got, "read-only") || strings.Contains(got, "tmpfs") {
		t.Errorf("on a disk:\n%s", got)
	}
	// In a mount namespace of this thread's own, which ends with it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("containerfs-test", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	got := found(func(x *examination) { x.stateFileSystem(dir) })
	for _, want := range []string{"warning state directory: " + dir + " is on tmpfs: it is gone with the next boot\n", "warning state directory: " + dir + " has only 1024 KiB left"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%swant %q", got, want)
		}
	}
	if err := os.WriteFile(dir+"/full", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := found(func(x *examination) { x.stateFileSystem(dir) }); !strings.Contains(got, "wrong state directory: "+dir+" has no room left") {
		t.Errorf("when it is full:\n%s", got)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if got := found(func(x *examination) { x.stateFileSystem(dir) }); !strings.Contains(got, "wrong state directory: "+dir+" is on a file system that is read-only") {
		t.Errorf("read-only:\n%s", got)
	}
}

// TestDoctorCertificate: one that clients refuse, or will soon, is told.
func TestDoctorCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	write := func(from, until time.Time) string {
		cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
		der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const day = 24 * time.Hour
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write(now.Add(-day), now.Add(100*day)): "ok tls certificate: PATH is good until " + now.Add(100*day).UTC().Format(time.DateOnly) + "\n",
		write(now.Add(-day), now.Add(7*day)):   "warning tls certificate: PATH is good until ",
		write(now.Add(-2*day), now.Add(-day)):  "wrong tls certificate: PATH was good until ",
		write(now.Add(day), now.Add(100*day)):  "wrong tls certificate: PATH is not good before ",
		text:                                   "wrong tls certificate: PATH has no certificate in PEM",
		text + "-missing":                      "wrong tls certificate: open PATH: no such file",
	} {
		if got, want := found(func(x *examination) { x.certificate(path) }), strings.ReplaceAll(want, "PATH", path); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("got\n%swant %q", got, want)
		}
	}
}

// TestDoctorCapabilities: what the unit leaves the server is what doctor looks for, and each
// that is missing is told.
func TestDoctorCapabilities(t *testing.T) {
	text, err := os.ReadFile("systemd/containerfs.service")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			names = append(names, strings.Fields(set)...)
		}
	}
	var all uint64
	for _, c := range neededCaps {
		all |= 1 << c.bit
		if !slices.Contains(names, c.name) {
			t.Errorf("the unit lacks %s", c.name)
		}
	}
	for _, name := range names {
		if name == "CAP_NET_BIND_SERVICE" {
			continue // a server that runs has its port
		}
		i := slices.IndexFunc(neededCaps, func(c neededCap) bool { return c.name == name })
		if i < 0 {
			t.Errorf("doctor does not look for %s", name)
			continue
		}
		without := all &^ (1 << neededCaps[i].bit)
		if neededCaps[i].admin {
			without &^= 1 << unix.CAP_SYS_ADMIN
		}
		if got := found(func(x *examination) { x.judgeCapabilities(without) }); !strings.Contains(got, "the server lacks "+name+", for ") {
			t.Errorf("without %s:\n%s", name, got)
		}
	}
	want := "ok capabilities: the server has what it uses\n"
	for _, has := range []uint64{all, all &^ (1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON)} {
		if got := found(func(x *examination) { x.judgeCapabilities(has) }); got != want {
			t.Errorf("%#x: %s", has, got)
		}
	}
	// bc then tells and does not limit, which is no reason not to serve.
	if got, want := found(func(x *examination) { x.judgeCapabilities(all &^ (1 << unix.CAP_SYS_RESOURCE)) }), "warning capabilities: the server lacks CAP_SYS_RESOURCE, for the limits of bc, which only tells when one is crossed\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// TestOverlaps: what listens at one address is in the way at another if a connection could be
// to either.
func TestOverlaps(t *testing.T) {
	const port = 5640
	addrs := map[string]string{ // as /proc/net has them, in words of the host
		"0.0.0.0": "00000000", "127.0.0.1": "0100007F", "127.0.0.2": "0200007F",
		"::": strings.Repeat("0", 32), "::1": strings.Repeat("0", 24) + "01000000", "::ffff:127.0.0.1": strings.Repeat("0", 16) + "FFFF00000100007F",
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the addresses are of a little-endian machine")
	}
	for _, tt := range []struct {
		ours, theirs string
		want         bool
	}{
		{"0.0.0.0", "0.0.0.0", true}, {"0.0.0.0", "127.0.0.1", true}, {"0.0.0.0", "::", true}, {"0.0.0.0", "::ffff:127.0.0.1", true},
		{"0.0.0.0", "::1", false}, {"::1", "0.0.0.0", false}, {"::1", "127.0.0.1", false}, {"127.0.0.1", "127.0.0.2", false},
		{"127.0.0.1", "127.0.0.1", true}, {"127.0.0.1", "::ffff:127.0.0.1", true}, {"127.0.0.1", "::", true}, {"127.0.0.1", "0.0.0.0", true},
		{"::", "127.0.0.1", true}, {"::", "::1", true}, {"::1", "::1", true}, {"", "127.0.0.1", true}, {"", "::1", true},
	} {
		if got := overlaps(addrs[tt.theirs]+":1608", &net.TCPAddr{IP: net.ParseIP(tt.ours), Port: port}); got != tt.want {
			t.Errorf("%q beside %q: %v", tt.ours, tt.theirs, got)
		}
		if overlaps(addrs[tt.theirs]+":1609", &net.TCPAddr{IP: net.ParseIP(tt.ours), Port: port}) {
			t.Errorf("%q beside another port of %q", tt.ours, tt.theirs)
		}
	}
}

// TestPlannedHierarchies: what serve refuses of hierarchies is found without a server.
func TestPlannedHierarchies(t *testing.T) {
	there, err := subsys.All(subsys.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range there {
		for _, file := range ownFiles[s.Name()] {
			if !slices.ContainsFunc(s.Files(), func(f tree.File) bool { return f.Name == file }) {
				t.Errorf("%s has no file %s", s.Name(), file)
			}
		}
		if s, ok := s.(io.Closer); ok {
			s.Close()
		}
	}
	conf := config{
		Enable: []string{"cpuset", "pids"},
		Hierarchies: []hierarchy{
			{"cpu", "cpuset,cpuacct"}, {"p", "pids,numtasks"}, {"x", "no"}, {"y", "debug,cpuset"}, {"ctl", "debug"},
			{"a", "debug,release_agent=/x"},
		},
	}
	want := `ok hierarchy: cpu=cpuset,cpuacct
ok hierarchy: p=pids,numtasks
wrong hierarchy: x=no: option "no" is no subsystem: no such file or directory; refused
wrong hierarchy: y=debug,cpuset: cpuset is in the hierarchy cpu already: device or resource busy; refused
wrong hierarchy: ctl=debug: "ctl" cannot be its name: invalid argument; refused
wrong hierarchy: a=debug,release_agent=/x: naming a release agent takes --allow-release-agent of the server and a privileged local caller: operation not permitted; refused
`
	// What the kernel's controllers have of files is seen where the host shows it.
	if slices.Contains(subsys.KernelFiles([]string{"memory"})["memory"], "stat") {
		conf.Enable = append(conf.Enable, "memory")
		conf.Hierarchies = append(conf.Hierarchies, hierarchy{"n", "cpuacct,memory,noprefix"})
		want += "wrong hierarchy: n=cpuacct,memory,noprefix: two files would be stat without prefixes: invalid argument; refused\n"
	} else {
		t.Log("the host shows no files of memory")
	}
	var x examination
	x.hierarchies(conf, "refused")
	var b strings.Builder
	for _, f := range x.findings {
		fmt.Fprintf(&b, "%s %s: %s", f.Status, f.Check, f.Text)
		if f.Advice != "" {
			b.WriteString("; " + f.Advice)
		}
		b.WriteByte('\n')
	}
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// TestPlannedRules: rules and templates that can do nothing, with the hierarchies that a server
// is to have, are told of without a server.
func TestPlannedRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.conf")
	look := func(text string, paths ...string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		conf := config{Rules: file, Hierarchies: []hierarchy{{"m", "debug"}, {"n", "bc"}}}
		for _, path := range paths {
			tmpl, err := rules.NewTemplate(path, map[string]string{"max.depth": "1"}, false)
			if err != nil {
				t.Fatal(err)
			}
			conf.Templates = append(conf.Templates, tmpl)
		}
		return strings.ReplaceAll(found(func(x *examination) { x.hierarchies(conf, "refused") }), file, "FILE")
	}
	const mounted = "ok hierarchy: m=debug\nok hierarchy: n=bc\n"
	for _, tt := range []struct{ text, path, want string }{
		{"4000 m,n a/%u create\n", "/n/a/%u", "ok rules: what 1 rule and 1 template name is there\n"},
		{"4000 * a/%u create\n", "/m/a", "ok rules: what 1 rule and 1 template name is there\n"},
		{"4000 * a/%u create\n", "/o/a", "warning rules: a template names a hierarchy that is not mounted path=/o/a hierarchy=o\n"},
		{"4000 * a/%u create\n", "/m/a/%U", "warning rules: a template that no rule makes containers by path=/m/a/%U file=FILE\n"},
		{"4000 m,o a create\n", "/m/a", "warning rules: a rule names a hierarchy that is not mounted file=FILE line=1 hierarchy=o\n"},
		{"* m a create\n@nobody-of-that-name n a\n", "/m/a", "warning rules: a rule is for somebody who is not known file=FILE line=2 user=@nobody-of-that-name\n"},
	} {
		if got := look(tt.text, tt.path); got != mounted+tt.want {
			t.Errorf("%s%s: got\n%swant\n%s", tt.text, tt.path, got, mounted+tt.want)
		}
	}
}

// TestDoctorOfBrokenServer: a server that is there and does not answer is wrong, whatever file
// is looked at.
func TestDoctorOfBrokenServer(t *testing.T) {
	addr := serveEach(t, "unix", filepath.Join(t.TempDir(), "sock"), func(c net.Conn) { c.Close() })
	file := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(file, []byte("state = \"none\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := command(nil, "--server", "unix://"+addr, "doctor", "--config", file)
	if want := "wrong    server: "; got.code != exitFailed || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("got %+v", got)
	}
}
