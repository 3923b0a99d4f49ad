package tests

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// TestScenario plays the scenarios over the wire: each rule of SPEC §1 to §9 and
// §18, each refusal with its errno, and that it changed nothing.
func TestScenario(t *testing.T) {
	needHost(t)
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			s.play(t, newWireSide(t, startServer(t, s.flags...)), "wire")
		})
	}
}

// wireSide executes steps as 9P requests.
type wireSide struct {
	s       *server
	clients map[string]*client // by user and view
	views   map[string]string  // attach names
	held    map[string]*heldFile
}

// heldFile is a file that stays open, and where its reader stands.
type heldFile struct {
	p9.File
	offset int64
}

func newWireSide(t testing.TB, s *server) *wireSide {
	// Other users come in too.
	if err := os.Chmod(filepath.Dir(s.sock), 0o711); err != nil {
		t.Fatal(err)
	}
	return &wireSide{s, map[string]*client{}, map[string]string{"": ""}, map[string]*heldFile{}}
}

// dialAs connects as another user: what the kernel says of a peer is what the
// thread was that connected.
func (s *server) dialAs(uid int) (conn net.Conn, err error) {
	if uid == 0 {
		return s.dial(), nil
	}
	onOwnThread(func() {
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0},
			{unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				err = errno
				return
			}
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.sock}); err == nil {
			conn, err = net.FileConn(f)
		}
	})
	return conn, err
}

func (w *wireSide) attach(t testing.TB, uid int, aname string) (*client, error) {
	conn, err := w.s.dialAs(uid)
	if err != nil {
		t.Fatal(err)
	}
	root, err := attach(conn, aname)
	if err != nil {
		conn.Close()
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, root}, nil
}

// at is the client of a user for a path, and the path in its view.
func (w *wireSide) at(t testing.TB, uid int, path string) (*client, string, error) {
	view := ""
	if v, rest, ok := strings.Cut(path, ":/"); ok {
		view, path = v, "/"+rest
	}
	key := fmt.Sprintf("%d:%s", uid, view)
	if c := w.clients[key]; c != nil {
		return c, path, nil
	}
	aname, ok := w.views[view]
	if !ok {
		t.Fatalf("no view %s", view)
	}
	c, err := w.attach(t, uid, aname)
	if err == nil {
		w.clients[key] = c
	}
	return c, path, err
}

func (w *wireSide) do(t testing.TB, uid int, verb string, args []word) (string, error) {
	words := make([]string, 5) // enough for every verb
	for i, a := range args {
		words[i] = a.text
	}
	switch verb {
	case "log":
		return w.s.log.String(), nil
	case "attach":
		c, err := w.attach(t, uid, words[1])
		if err != nil {
			return "", err
		}
		w.views[words[0]] = words[1]
		w.clients[fmt.Sprintf("%d:%s", uid, words[0])] = c
		return "", nil
	case "detach":
		for key, c := range w.clients {
			if strings.HasSuffix(key, ":"+words[0]) {
				c.root.Close()
				delete(w.clients, key)
			}
		}
		delete(w.views, words[0])
		return "", nil
	case "next", "from", "put", "close", "reopen":
		return w.useHeld(t, verb, words)
	}
	i := slices.IndexFunc(words, func(s string) bool { return strings.Contains(s, "/") })
	if verb == "open" || verb == "walk" {
		i = 1
	}
	if i < 0 {
		t.Fatalf("%s: no path", verb)
	}
	c, path, err := w.at(t, uid, words[i])
	if err != nil {
		return "", err
	}
	words[i] = path
	switch verb {
	case "open", "walk":
		f, err := c.walk(path)
		if err == nil {
			w.held[words[0]] = &heldFile{File: f}
		}
		if err == nil && verb == "open" {
			err = w.open(words[0], words[2])
		}
		return "", err
	case "xattr":
		return "", w.xattr(t, path)
	case "write":
		value := args[1].text
		if !args[1].quoted {
			value += "\n"
		}
		return "", c.write(path, value)
	case "read":
		return c.read(path)
	case "ls":
		names, err := c.names(path)
		if len(names) >= 2 && names[0] == "." && names[1] == ".." {
			names = names[2:]
		} else if err == nil {
			t.Errorf("%s lists %q: no . and ..", path, names)
		}
		return lines(names), err
	case "mkdir":
		if i == 1 {
			return "", c.mkdirMode(path, p9.FileMode(octal(t, words[0])))
		}
		return "", c.mkdir(path)
	case "rmdir":
		return "", c.rmdir(path)
	case "mv", "unlink", "create", "symlink", "link", "mknod":
		return "", w.entry(t, uid, c, verb, words)
	}
	f, err := c.walk(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return w.attribute(t, f, verb, words)
}

func (c *client) mkdirMode(path string, mode p9.FileMode) error {
	dir, name, err := c.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = dir.Mkdir(name, mode, p9.NoUID, p9.NoGID)
	return err
}

// entry does what is done to an entry of a directory.
func (w *wireSide) entry(t testing.TB, uid int, c *client, verb string, words []string) error {
	dir, name, err := c.parent(words[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	switch verb {
	case "unlink":
		return dir.UnlinkAt(name, 0)
	case "create":
		_, _, _, err = dir.Create(name, p9.WriteOnly, 0o644, p9.NoUID, p9.NoGID)
	case "symlink":
		_, err = dir.Symlink("target", name, p9.NoUID, p9.NoGID)
	case "mknod":
		_, err = dir.Mknod(name, p9.ModeNamedPipe|0o644, 0, 0, p9.NoUID, p9.NoGID)
	case "mv":
		_, to, err := w.at(t, uid, words[1])
		if err != nil {
			return err
		}
		toDir, toName, err := c.parent(to)
		if err != nil {
			return err
		}
		defer toDir.Close()
		return dir.RenameAt(name, toDir, toName)
	case "link":
		target, err := c.walk(words[0])
		if err != nil {
			return err
		}
		defer target.Close()
		toDir, toName, err := c.parent(words[1])
		if err != nil {
			return err
		}
		defer toDir.Close()
		return toDir.Link(target, toName)
	}
	return err
}

// attribute reads and changes a file's attributes.
func (w *wireSide) attribute(t testing.TB, f p9.File, verb string, words []string) (string, error) {
	switch verb {
	case "stat":
		_, _, a, err := f.GetAttr(p9.AttrMaskAll)
		return fmt.Sprintf("%v %d %d %d\n", fs.FileMode(a.Mode.OSMode()), a.UID, a.GID, a.NLink), err
	case "mtime":
		_, _, a, err := f.GetAttr(p9.AttrMaskAll)
		return fmt.Sprintf("%d\n", a.MTimeSeconds), err
	case "statfs":
		s, err := f.StatFS()
		return fmt.Sprintf("%x %d\n", s.Type, s.NameLength), err
	case "chmod":
		return "", f.SetAttr(p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: p9.FileMode(octal(t, words[0]))})
	case "chown":
		u, g, _ := strings.Cut(words[0], ":")
		var valid p9.SetAttrMask
		var attr p9.SetAttr
		if u != "" {
			valid.UID, attr.UID = true, p9.UID(number(t, u))
		}
		if g != "" {
			valid.GID, attr.GID = true, p9.GID(number(t, g))
		}
		return "", f.SetAttr(valid, attr)
	case "touch":
		s := uint64(number(t, words[0]))
		return "", f.SetAttr(p9.SetAttrMask{ATime: true, MTime: true, ATimeNotSystemTime: true, MTimeNotSystemTime: true},
			p9.SetAttr{ATimeSeconds: s, MTimeSeconds: s})
	case "truncate":
		return "", f.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{Size: uint64(number(t, words[0]))})
	}
	t.Fatalf("no verb %s; see scenario", verb)
	return "", nil
}

// xattr asks for an attribute that is none of stat's, which the library never
// sends.
func (w *wireSide) xattr(t testing.TB, path string) error {
	conn := w.s.dial()
	defer conn.Close()
	names := strings.Split(strings.Trim(path, "/"), "/")
	walk := []any{uint32(0), uint32(1), uint16(len(names))}
	for _, name := range names {
		walk = append(walk, name)
	}
	for _, request := range [][]byte{versionFrame(), attachFrame(1, 0, ""), frame(twalk, 2, walk...)} {
		conn.Write(request)
		if kind, _, err := readFrame(t, conn); err != nil || kind == rlerror {
			t.Fatalf("no way to %s: %v", path, err)
		}
	}
	conn.Write(frame(txattrwalk, 3, uint32(1), uint32(2), "user.x"))
	kind, body, err := readFrame(t, conn)
	if err != nil || kind != rlerror {
		return err
	}
	return linux.Errno(binary.LittleEndian.Uint32(body))
}

const txattrwalk = 30

func octal(t testing.TB, text string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func (w *wireSide) open(name, mode string) error {
	flags := map[string]p9.OpenFlags{"": p9.ReadOnly, "r": p9.ReadOnly, "w": p9.WriteOnly, "rw": p9.ReadWrite}
	_, _, err := w.held[name].Open(flags[mode])
	return err
}

func (w *wireSide) useHeld(t testing.TB, verb string, words []string) (string, error) {
	f := w.held[words[0]]
	if f == nil {
		t.Fatalf("no open file %s", words[0])
	}
	switch verb {
	case "close":
		delete(w.held, words[0])
		return "", f.Close()
	case "reopen":
		return "", w.open(words[0], words[1])
	case "put":
		n, err := f.WriteAt([]byte(words[1]+"\n"), f.offset)
		f.offset += int64(n)
		return "", err
	case "from":
		f.offset = 0
	}
	count := 1 << 20
	if words[1] != "" {
		count = number(t, words[1])
	}
	var all []byte
	for len(all) < count {
		buf := make([]byte, min(4096, count-len(all)))
		n, err := f.ReadAt(buf, f.offset)
		f.offset += int64(n)
		all = append(all, buf[:n]...)
		if err == io.EOF {
			break
		} else if err != nil {
			return "", err
		}
	}
	return string(all), nil
}

func lines(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w + "\n")
	}
	return b.String()
}

// state lists every directory below the root with attributes and contents. What
// the host's processes change by themselves is left out.
func (w *wireSide) state(t testing.TB) string {
	t.Helper()
	c, _, err := w.at(t, 0, "/")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	// A hierarchy can go at any time, when its last client has gone.
	for range 3 {
		b.Reset()
		if err = w.stateBelow(c, "", &b); err == nil {
			return b.String()
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
	return ""
}

// sampled are files of what processes hold, ofAll those of a root that are about
// all tasks of the host.
var (
	sampled = regexp.MustCompile(`^bc\.(resources|(numfile|physpages|lockedpages)\..*held)$`)
	ofAll   = regexp.MustCompile(`^(tasks|procs|numtasks\.stats|bc\.numproc\..*held)$`)
)

func (w *wireSide) stateBelow(c *client, path string, b *strings.Builder) error {
	names, err := c.names(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "%s/: %q\n", path, names)
	for _, name := range names {
		if name == "." || name == ".." || (path == "" && name == "proc") {
			continue
		}
		at := path + "/" + name
		f, err := c.walk(at)
		if err != nil {
			return err
		}
		_, _, a, err := f.GetAttr(p9.AttrMaskAll)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s: %v %d %d %d", at, a.Mode, a.UID, a.GID, a.NLink)
		if a.Mode.IsDir() {
			b.WriteString("\n")
			if err := w.stateBelow(c, at, b); err != nil {
				return err
			}
			continue
		}
		text, err := c.read(at)
		switch {
		case name == "events", strings.HasPrefix(name, "debug."), sampled.MatchString(name):
		case strings.Count(at, "/") == 2 && ofAll.MatchString(name):
		case err == nil || err == linux.EINVAL:
			fmt.Fprintf(b, " %q %v", text, err)
		default:
			return err
		}
		b.WriteString("\n")
	}
	return nil
}
