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
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// TestMounted plays the scenarios on a mount in the guest, with the commands of
// busybox and with those of GNU: what plain mkdir, echo, cat, mv, rmdir, chmod, df,
// ls, tail and find print and return.
func TestMounted(t *testing.T) {
	if !inside {
		for _, some := range []string{"[a-c]", "[d-z]"} { // a guest has only so much time
			runInsideOn(t, machine{cpus: 2}, "^TestMounted$/./^"+some, "SOAK="+os.Getenv("SOAK"))
		}
		return
	}
	for _, userland := range []struct{ name, bin string }{{"busybox", "/bin"}, {"gnu", "/gnu/bin"}} {
		for _, s := range scenarios(t) {
			// What a shell writes is the same in both.
			if userland.name == "gnu" && !soaking && !slices.Contains([]string{"attributes", "container", "events"}, s.name) {
				continue
			}
			t.Run(userland.name+"/"+s.name, func(t *testing.T) {
				m := newMountSide(t, startServer(t, s.flags...), userland.bin)
				s.play(t, m, "mount", userland.name)
			})
		}
	}
}

// mountSide executes steps as commands on a v9fs mount.
type mountSide struct {
	s    *server
	bin  string // of the commands
	dir  string
	held map[string]*os.File
}

func newMountSide(t testing.TB, s *server, bin string) *mountSide {
	m := &mountSide{s, bin, t.TempDir(), map[string]*os.File{}}
	for dir := m.dir; dir != "/tmp"; dir = filepath.Dir(dir) { // the way there is for everybody
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.mount("", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range m.held {
			f.Close()
		}
		views, _ := filepath.Glob(m.dir + "/view-*")
		for _, v := range views {
			if _, err := m.run(0, "umount "+v); err != nil {
				t.Errorf("umount %s: %v", v, err)
			}
		}
	})
	return m
}

func (m *mountSide) view(name string) string { return m.dir + "/view-" + name }

// path is a path of a scenario below its view's mount point.
func (m *mountSide) path(path string) string {
	view, rest, ok := strings.Cut(path, ":/")
	if !ok {
		view, rest = "", path
	}
	return strings.TrimSuffix(m.view(view)+"/"+strings.TrimPrefix(rest, "/"), "/")
}

func (m *mountSide) mount(view, aname string) (string, error) {
	if err := os.Mkdir(m.view(view), 0o755); err != nil {
		return "", err
	}
	options := "trans=unix,version=9p2000.L,cache=none,access=user"
	if aname != "" { // newer kernels (7.3) take no option that is empty
		options += ",aname=" + aname
	}
	out, err := m.run(0, fmt.Sprintf("mount -t 9p -o %s %s %s", quote(options), m.s.sock, m.view(view)))
	if err != nil {
		os.Remove(m.view(view))
	}
	return out, err
}

// state cannot be told in a bearable time: TestScenario does it.
func (m *mountSide) state(testing.TB) string { return "" }

// run runs a command line as a user and returns what it printed. Its error is
// what it says on standard error.
func (m *mountSide) run(uid int, line string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/tmp")
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	err := cmd.Run()
	if err == nil && errs.Len() > 0 {
		err = fmt.Errorf("it succeeded and complained: %s", errs.String())
	} else if err != nil {
		err = errnoSaid(errs.String(), err)
	}
	return out.String(), err
}

// errnoSaid is the errno that a program's message tells of.
func errnoSaid(message string, err error) error {
	said := linux.Errno(0)
	for e := syscall.Errno(1); e < 134; e++ {
		if text := e.Error(); strings.Contains(strings.ToLower(message), text) &&
			(said == 0 || len(text) > len(syscall.Errno(said).Error())) {
			said = linux.Errno(e)
		}
	}
	if said == 0 {
		return fmt.Errorf("%v: %s", err, message)
	}
	return said
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// commands are the verbs that are one command each: %[n]s is the nth argument,
// quoted, and a path where it has a slash.
var commands = map[string]string{
	"rmdir":    "rmdir %[1]s",
	"mv":       "mv -T %[1]s %[2]s",
	"unlink":   "rm %[1]s",
	"create":   "touch %[1]s",
	"symlink":  "ln -s target %[1]s",
	"link":     "ln %[1]s %[2]s",
	"mknod":    "mknod %[1]s p",
	"read":     "cat %[1]s",
	"ls":       "ls -1 %[1]s",
	"stat":     "stat -c '%%A %%u %%g %%h' %[1]s",
	"mtime":    "stat -c '%%Y' %[1]s",
	"statfs":   "stat -f -c '%%t %%l' %[1]s",
	"chmod":    "chmod %[1]s %[2]s",
	"chown":    "chown %[1]s %[2]s",
	"touch":    "touch -c -d @%[1]s %[2]s",
	"truncate": "truncate -s %[1]s %[2]s",
}

func (m *mountSide) do(t testing.TB, uid int, verb string, args []word) (string, error) {
	words := make([]string, len(args))
	quoted := make([]any, len(args))
	for i, a := range args {
		words[i] = a.text
		if strings.Contains(a.text, "/") {
			words[i] = m.path(a.text)
		}
		quoted[i] = quote(words[i])
	}
	if line := commands[verb]; line != "" {
		out, err := m.run(uid, m.bin+"/"+fmt.Sprintf(line, quoted...))
		if verb == "ls" && err == nil {
			out = m.inOrder(t, uid, words[0], out)
		}
		return out, err
	}
	switch verb {
	case "log":
		return m.s.log.String(), nil
	case "mkdir":
		if len(words) == 2 {
			return m.run(uid, m.bin+"/mkdir -m "+words[0]+" "+quote(words[1]))
		}
		return m.run(uid, m.bin+"/mkdir "+quote(words[0]))
	case "write":
		return m.write(t, uid, words[0], args[1])
	case "attach":
		aname := ""
		if len(args) > 1 {
			aname = args[1].text
		}
		return m.mount(words[0], aname)
	case "detach":
		return m.run(0, "umount "+m.view(words[0])+" && rmdir "+m.view(words[0]))
	case "sh":
		line := strings.ReplaceAll(args[0].text, "/mnt", m.view(""))
		out, err := m.run(uid, "PATH="+m.bin+":$PATH; BIN="+m.bin+"; "+line)
		return strings.ReplaceAll(out, m.view(""), "/mnt"), err
	case "open", "next", "from", "put", "close":
		return m.hold(t, verb, append(words, ""))
	}
	t.Fatalf("no verb %s on a mount; see scenario", verb)
	return "", nil
}

// inOrder puts the names that ls printed into the order of the directory, which
// ls does not keep.
func (m *mountSide) inOrder(t testing.TB, uid int, dir, printed string) string {
	if uid != 0 {
		return printed
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	inOrder := lines(names)
	slices.Sort(names)
	shown := strings.Split(strings.TrimSuffix(printed, "\n"), "\n")
	if slices.Sort(shown); !slices.Equal(names, shown) {
		return printed
	}
	return inOrder
}

// write writes as echo does, or, what was quoted, as it is and in one write.
func (m *mountSide) write(t testing.TB, uid int, path string, value word) (string, error) {
	if !value.quoted {
		return m.run(uid, m.bin+"/echo "+quote(value.text)+" > "+quote(path))
	}
	f := filepath.Join(m.dir, "value")
	if err := os.WriteFile(f, []byte(value.text), 0o644); err != nil {
		t.Fatal(err)
	}
	return m.run(uid, m.bin+"/dd bs=64k conv=notrunc status=none if="+f+" of="+quote(path))
}

func (m *mountSide) hold(t testing.TB, verb string, words []string) (string, error) {
	flags := map[string]int{"": os.O_RDONLY, "r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
	errnoOf := func(err error) error {
		var e syscall.Errno
		if errors.As(err, &e) {
			return linux.Errno(e)
		}
		return err
	}
	if verb == "open" {
		f, err := os.OpenFile(words[1], flags[words[2]], 0)
		m.held[words[0]] = f
		return "", errnoOf(err)
	}
	f := m.held[words[0]]
	if f == nil {
		t.Fatalf("no open file %s", words[0])
	}
	switch verb {
	case "close":
		delete(m.held, words[0])
		return "", errnoOf(f.Close())
	case "put":
		_, err := f.WriteString(words[1] + "\n")
		return "", errnoOf(err)
	case "from":
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	count := 1 << 20
	if words[1] != "" {
		count = number(t, words[1])
	}
	var all []byte
	for len(all) < count {
		buf := make([]byte, min(4096, count-len(all)))
		n, err := syscall.Read(int(f.Fd()), buf)
		if err != nil {
			return "", errnoOf(err)
		}
		if n == 0 {
			break
		}
		all = append(all, buf[:n]...)
	}
	return string(all), nil
}
