package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// Audit writes a line for each change and each denial (SPEC §17), up to so many for
// each peer and user: a burst, then a steady rate. Changes and denials are counted
// apart, so that nobody hides a change behind his own denials. How many lines were
// left out is said. The text of the lines is quoted by the slog.Handler. All methods may
// be called concurrently.
type Audit struct {
	log     *slog.Logger
	denials atomic.Uint64
	said    *allowances[auditKey]
}

type auditKey struct {
	origin string
	uid    uint32
	denial bool
}

// NewAudit makes an Audit that writes to log.
func NewAudit(log *slog.Logger) *Audit {
	return &Audit{log: log, said: newAllowances[auditKey]()}
}

// take reports whether a line may be written, and how many of its kind were not.
func (a *Audit) take(key auditKey) (suppressed int, ok bool) {
	if key.denial {
		a.denials.Add(1)
	}
	return a.said.take(key, auditKey{denial: key.denial})
}

// Denials is the number of denials so far, with those that no line was written of.
func (a *Audit) Denials() uint64 { return a.denials.Load() }

// Flush says what was left out and not said yet, and forgets who has been quiet. It
// is to be called every second or so.
func (a *Audit) Flush() {
	for _, left := range a.said.flush() {
		a.log.Warn("audit lines left out", "lines", left.lines, "denials", left.key.denial, "origin", left.key.origin, "uid", left.key.uid)
	}
}

// Denied writes what a peer was denied before it was anybody. origin is what the peer
// cannot change by connecting again.
func (a *Audit) Denied(origin, what string, args ...any) {
	a.write(slog.LevelWarn, auditKey{origin, unknownUID, true}, what, args)
}

// Ended writes why a connection did not end as it should.
func (a *Audit) Ended(origin string, args ...any) {
	a.write(slog.LevelInfo, auditKey{origin, unknownUID, false}, "connection ended", args)
}

const unknownUID = ^uint32(0)

func (a *Audit) write(level slog.Level, key auditKey, what string, args []any) {
	suppressed, ok := a.take(key)
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "left_out", suppressed)
	}
	a.line(context.Background(), level, what, args)
}

// longest bounds each value of a line: no path is longer, but the names that a peer
// asks for can be.
const longest = 4 << 10

// line writes a line, of which a peer has chosen some values.
func (a *Audit) line(ctx context.Context, level slog.Level, what string, args []any) {
	for i, arg := range args {
		if err, ok := arg.(error); ok {
			arg = err.Error()
		}
		if s, ok := arg.(string); ok {
			args[i] = clip(s, longest)
		}
	}
	a.log.Log(ctx, level, what, args...)
}

// deed is what a caller did, or wanted to.
type deed struct {
	op   string
	node node   // that it was done to, or in
	name string // in the node, if it is a directory
	to   string // new name
	data []byte // what was written
	set  string // attributes
	// changed is what was, if that is not the node.
	changed node
	// resolved is FS.resolved of before it, for a deed that can change something.
	resolved uint64
	// number is that of the change, where more is done before it is told; 0: the last of what
	// was changed.
	number uint64
}

// stamp notes which change a deed has made, before more is changed of the same.
func (fs *FS) stamp(d *deed) {
	if d.changed == nil {
		d.changed = d.node
	}
	d.number = fs.lastOf(d.changed)
}

// changes are the deeds that change something when they succeed.
var changes = map[string]bool{
	"attach": true, "mkdir": true, "rmdir": true, "rename": true, "setattr": true, "write": true,
	"move": true, // by a rule
}

// told ends a deed that came to err. It waits until a change is kept, and if it cannot be
// that is the error; notes the outcome for the status file; writes the audit line, if the
// deed is worth one; and returns the error as one for the wire.
//
// It must not be called in View, or inside a change.
func (at *attachment) told(d deed, err error) error {
	if err == nil && changes[d.op] {
		if d.number == 0 {
			at.fs.stamp(&d)
		}
		err = at.fs.keep(d.number, d.resolved)
	}
	at.note(d, err)
	at.account(d, err)
	return wire(err)
}

// account writes the line of a deed that came to err: of a change and of a denial as many
// as the Audit allows, of any other refusal at debug level.
func (at *attachment) account(d deed, err error) {
	audit := at.fs.audit
	level, what := slog.LevelInfo, "change"
	switch e := errnoOf(err); {
	case e == syscall.EACCES || e == syscall.EPERM || e == syscall.EROFS:
		level, what = slog.LevelWarn, "denied"
	case err != nil:
		if at.fs.log.Enabled(at.fs.ctx, slog.LevelDebug) {
			audit.line(at.fs.ctx, slog.LevelDebug, "refused", append(at.about(d), "errno", unix.ErrnoName(e), "err", err))
		}
		return
	case !changes[d.op]:
		return
	}
	suppressed, ok := audit.take(auditKey{at.caller.Origin, at.caller.UID, err != nil})
	if !ok {
		return
	}
	args := at.about(d)
	limit := 64
	if _, ok := d.node.(ctlFile); ok {
		limit = 512 // the containers are there
	}
	for _, a := range []struct{ key, value string }{{"to", d.to}, {"data", clip(d.data, limit)}, {"set", d.set}} {
		if a.value != "" {
			args = append(args, a.key, a.value)
		}
	}
	if err != nil {
		args = append(args, "errno", unix.ErrnoName(errnoOf(err)), "err", err)
	}
	if suppressed > 0 {
		args = append(args, "left_out", suppressed)
	}
	audit.line(at.fs.ctx, level, what, args)
}

// about is what each line of a deed begins with.
func (at *attachment) about(d deed) []any {
	return []any{"op", d.op, "path", at.fs.path(d.node, d.name), "uid", at.caller.UID, "peer", at.caller.Peer}
}

// describeAttr is what a setattr sets.
func describeAttr(valid p9.SetAttrMask, attr p9.SetAttr) string {
	var parts []string
	if valid.Permissions {
		parts = append(parts, fmt.Sprintf("mode=%04o", uint32(attr.Permissions)&0o7777))
	}
	if valid.UID {
		parts = append(parts, fmt.Sprintf("uid=%d", attr.UID))
	}
	if valid.GID {
		parts = append(parts, fmt.Sprintf("gid=%d", attr.GID))
	}
	if valid.ATime || valid.MTime {
		parts = append(parts, "times")
	}
	return strings.Join(parts, " ")
}

// clip is what a line shows of a text.
func clip[T string | []byte](s T, most int) string {
	if len(s) > most {
		return string(s[:most]) + "..."
	}
	return string(s)
}

// path names a node in lines of the audit, or an entry of it. That of what was removed
// is the one that it had.
func (fs *FS) path(n node, name string) (path string) {
	fs.tree.View(func() {
		if c := containerOf(n); c != nil {
			path = c.ServedPath()
		}
		switch n := n.(type) {
		case containerDir:
		case controlFile:
			path += "/" + n.r.name
		case statusFile:
			path += "/" + StatusName
		case taskDir, taskFile, procDir:
			path = "/proc"
		case topDir:
		default:
			for _, f := range topFiles {
				if f.node == n {
					path = "/" + f.name
				}
			}
		}
	})
	if name != "" || path == "" {
		path += "/" + name
	}
	return path
}

// errnoOf is the number of an error, or 0.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0 // before anything is allocated
	}
	var e syscall.Errno
	var l linux.Errno
	if !errors.As(err, &e) && errors.As(err, &l) {
		e = syscall.Errno(l)
	}
	return e
}
