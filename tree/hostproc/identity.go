package hostproc

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// An Identity is what a thread is at one instant: as whom it acts, and what it
// executes.
type Identity struct {
	UID, GID uint32 // effective
	Groups   []uint32
	Comm     string // its own name, as it likes
	Exe      string // "" where there is none or it cannot be seen
}

// Identity looks at a thread; ESRCH when it is gone. That it is still the one that
// was meant is the caller's to ask, before and after.
func (h *Host) Identity(tid int32) (Identity, error) { return h.proc.identity(tid) }

// IdentityOf is Host.Identity for who has no Host.
func IdentityOf(tid int32) (Identity, error) {
	p, err := openProc()
	if err != nil {
		return Identity{}, err
	}
	defer p.close()
	return p.identity(tid)
}

// TaskOf is Host.Task for who has no Host.
func TaskOf(tid int32) (tree.TaskInfo, error) {
	p, err := openProc()
	if err != nil {
		return tree.TaskInfo{}, err
	}
	defer p.close()
	info, err := p.task(tid)
	if err != nil {
		return info, failTask("look up", tid, err)
	}
	return info, nil
}

func (p *procFS) identity(tid int32) (Identity, error) {
	b := p.buf()
	defer p.bufs.Put(b)
	if tid <= 0 {
		return Identity{}, failTask("identity of", tid, unix.ESRCH)
	}
	text, err := p.read(b, b.name(tid, 0, "status"))
	if err != nil {
		return Identity{}, failTask("identity of", tid, err)
	}
	id, live, ok := parseIdentity(text)
	switch {
	case !ok:
		return Identity{}, failTask("identity of", tid, unix.EIO)
	case !live:
		return Identity{}, failTask("identity of", tid, unix.ESRCH)
	}
	id.Exe = p.exe(tid)
	return id, nil
}

// exe is the file that a thread executes, "" where there is none or it cannot be
// seen.
func (p *procFS) exe(tid int32) string {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(p.fd, strconv.Itoa(int(tid))+"/exe", buf[:])
	if err != nil {
		return ""
	}
	// The kernel says so of a program that was replaced while it runs.
	return string(bytes.TrimSuffix(buf[:n], []byte(" (deleted)")))
}

// parseIdentity reads the text of a status file.
func parseIdentity(data []byte) (id Identity, live, ok bool) {
	const name, state, uid, gid, groups = 1, 2, 4, 8, 16
	found := 0
	for line := range bytes.Lines(data) {
		line, _ = bytes.CutSuffix(line, []byte("\n"))
		key, value, _ := bytes.Cut(line, []byte(":\t"))
		switch string(key) {
		case "Name":
			id.Comm = unescaped.Replace(string(value))
			found |= name
		case "State":
			live = len(value) > 0 && !bytes.ContainsRune([]byte("ZXx"), rune(value[0]))
			found |= state
		case "Uid", "Gid":
			_, rest, ok := number(value) // the real one
			n, _, ok2 := number(rest)
			if !ok || !ok2 || n > 1<<32-1 {
				return id, false, false
			}
			if key[0] == 'U' {
				id.UID = uint32(n)
				found |= uid
			} else {
				id.GID = uint32(n)
				found |= gid
			}
		case "Groups":
			for _, f := range bytes.Fields(value) {
				n, _, ok := number(f)
				if !ok || n > 1<<32-1 {
					return id, false, false
				}
				id.Groups = append(id.Groups, uint32(n))
			}
			found |= groups
		}
	}
	return id, live, found == name|state|uid|gid|groups
}

// unescaped undoes what the kernel does to a name in a status file.
var unescaped = strings.NewReplacer(`\n`, "\n", `\\`, `\`)
