package ops

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// StatusName is the file that says what became of the caller's last command, in words,
// where 9P has a number only. It has the name and the sense of resctrl's. Every directory
// but those of proc has it, so that it is beside what has just been refused, and none lists
// it: it is not of the container, but of the attach.
const StatusName = "last_cmd_status"

// statusFile is that file, in the directory that it was found in.
type statusFile struct{ dir directory }

// qidRowStatus is its row in a container: no control file has it.
const qidRowStatus = 1<<8 - 1

func (f statusFile) qid() p9.QID {
	if c := containerOf(f); c != nil {
		return fileQID(c.ID()<<qidRowBits | qidRowStatus)
	}
	return fileQID(qidStatus)
}

func (f statusFile) attr(fs *FS) (perm, p9.Attr, error) {
	if _, _, err := f.dir.attr(fs); err != nil {
		return perm{}, p9.Attr{}, err
	}
	return fs.fixedFile(0o444)
}

func (statusFile) drains() bool                    { return false }
func (statusFile) write(*attachment, []byte) error { return errReadOnly }

// read is `ok`, or a line of what was refused and a line of why.
func (statusFile) read(at *attachment, b []byte) ([]byte, error) {
	if s := at.status.Load(); s != nil {
		return append(b, *s...), nil
	}
	return append(b, "ok\n"...), nil
}

// longestStatus bounds each of the lines that an attach holds.
const longestStatus = 512

// note keeps what became of a deed for the status file: the last error, until a change
// succeeds.
func (at *attachment) note(d deed, err error) {
	if err == nil {
		if changes[d.op] && at.status.Load() != nil {
			at.status.Store(nil)
		}
		return
	}
	what := d.op + " " + at.fs.path(d.node, d.name)
	if d.to != "" {
		what += " to " + d.to
	}
	// The deed says it already.
	if op, ok := err.(*tree.OpError); ok && (op.Op == d.op || op.Op == "attach") {
		err = op.Err
	}
	s := oneLine(at.shown(what)) + "\n" + oneLine(at.shown(err.Error())) + "\n"
	at.status.Store(&s)
}

// shown is a text with paths as the caller has them. Of what is above his root, or of the
// host, the name at the end is all that he is told, unless he is privileged here.
func (at *attachment) shown(s string) string {
	root, trusted := "", at.privileged() && at.caller.Local
	if _, ok := at.root.(containerDir); ok {
		root = at.fs.path(at.root, "")
	} else if trusted {
		return s
	}
	words := strings.Split(s, " ")
	for i, w := range words {
		path := strings.TrimRight(w, ":,;")
		if !strings.HasPrefix(path, "/") {
			continue
		}
		behind := w[len(path):]
		switch below, ok := strings.CutPrefix(path+"/", root+"/"); {
		case ok && root != "":
			path = "/" + strings.TrimSuffix(below, "/")
		case !trusted && (root != "" || !at.fs.serves(path)):
			path = ".../" + path[strings.LastIndexByte(path, '/')+1:]
		}
		words[i] = path + behind
	}
	return strings.Join(words, " ")
}

// serves reports whether a path is of the name space, as far as its first name says.
func (fs *FS) serves(path string) (serves bool) {
	name, _, _ := strings.Cut(path[1:], "/")
	fs.tree.View(func() {
		serves = name == "" || slices.ContainsFunc(topFiles, func(f topFile) bool { return f.name == name }) || fs.tree.Published(name) != nil
	})
	return serves
}

// oneLine is a text on a line. Lines of a joined error are the reason, and the number.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, clip(strings.ReplaceAll(s, "\n", ": "), longestStatus))
}

// errReadOnly is for what has no writer.
var errReadOnly = fmt.Errorf("it cannot be written: %w", syscall.EINVAL)
