package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/ops/store"
)

// stateRoom is how much room a state directory should have: a commit of many changes
// writes its pages twice.
const stateRoom = 64 << 20

// state looks at a state directory, of the running server or of one that is to be.
func (x *examination) state(dir string, running bool) {
	const check = "state directory"
	x.states = append(x.states, dir)
	before := len(x.findings)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && running:
		x.add(statusWrong, check, dir+" was removed: what is changed now does not outlive the server", "save what it has by `containerfs save`, and start it again")
		return
	case errors.Is(err, fs.ErrNotExist):
		x.ok(check, "%s is not there, and will be made", dir)
		return
	case err != nil:
		x.add(statusWrong, check, err.Error(), "the server does not start without it")
		return
	case !info.IsDir():
		x.add(statusWrong, check, dir+" is no directory", "name another by --state")
		return
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; !x.trusts(owner) {
		x.add(statusWrong, check, fmt.Sprintf("%s belongs to the user %d, who can put another state there", dir, owner), "chown it to root")
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		x.add(statusWrong, check, fmt.Sprintf("%s has the mode %04o: others can put another state there", dir, mode), "chmod 700 it")
	} else if mode&0o055 != 0 {
		x.add(statusWarning, check, fmt.Sprintf("%s has the mode %04o: others can look into it", dir, mode), "chmod 700 it")
	}
	if path, why := x.replaceable(dir); path != "" {
		x.add(statusWrong, check, fmt.Sprintf("%s is in %s, %s: others can put another in its place", dir, path, why), "keep it where only root writes")
	}
	x.stateFileSystem(dir)
	if len(x.findings) == before {
		x.ok(check, "%s has the mode %04o", dir, info.Mode().Perm())
	}
	x.stateFile(dir, running)
}

// replaceable finds a directory above a path where others can give its place to
// something else, and says why they can.
func (x *examination) replaceable(path string) (dir, why string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for dir = filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil {
			owner := info.Sys().(*syscall.Stat_t).Uid
			switch {
			case !x.trusts(owner):
				return dir, fmt.Sprintf("which belongs to the user %d", owner)
			case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
				return dir, fmt.Sprintf("which has the mode %04o", info.Mode().Perm())
			}
		}
		if dir == "/" {
			return "", ""
		}
	}
}

// unfitFileSystems are those that do not keep a state as it should be kept.
var unfitFileSystems = map[int64]struct{ name, why string }{
	unix.TMPFS_MAGIC:      {"tmpfs", "it is gone with the next boot"},
	unix.RAMFS_MAGIC:      {"ramfs", "it is gone with the next boot"},
	unix.NFS_SUPER_MAGIC:  {"NFS", otherHosts},
	unix.CIFS_SUPER_MAGIC: {"CIFS", otherHosts},
	unix.SMB_SUPER_MAGIC:  {"SMB", otherHosts},
	unix.SMB2_SUPER_MAGIC: {"SMB", otherHosts},
	unix.AFS_SUPER_MAGIC:  {"AFS", otherHosts},
	unix.CODA_SUPER_MAGIC: {"Coda", otherHosts},
	unix.CEPH_SUPER_MAGIC: {"Ceph", otherHosts},
	unix.V9FS_MAGIC:       {"9p", otherHosts},
	unix.FUSE_SUPER_MAGIC: {"FUSE", "whether it is on disk when it should be is for a program to say"},
}

const otherHosts = "another host decides what is on disk, and the server waits for it with each change"

func (x *examination) stateFileSystem(dir string) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		x.add(statusWarning, "state directory", (&os.PathError{Op: "statfs", Path: dir, Err: err}).Error(), "ask as root")
		return
	}
	if unfit, ok := unfitFileSystems[int64(st.Type)]; ok {
		x.add(statusWarning, "state directory", fmt.Sprintf("%s is on %s: %s", dir, unfit.name, unfit.why), "keep it on a disk of this host, by --state")
	}
	room := st.Bavail * uint64(st.Bsize)
	switch err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); {
	case st.Flags&unix.ST_RDONLY != 0 || err == unix.EROFS:
		x.add(statusWrong, "state directory", dir+" is on a file system that is read-only", "mount it for writing, or name another directory by --state")
	case err != nil:
		x.add(statusWrong, "state directory", dir+" cannot be written to: "+err.Error(), "ask as the server's user, or as root; else chown it")
	case room == 0:
		x.add(statusWrong, "state directory", dir+" has no room left: changes are refused", "make room")
	case room < stateRoom:
		x.add(statusWarning, "state directory", fmt.Sprintf("%s has only %d KiB left: when it is full, changes are refused", dir, room>>10), "make room")
	}
}

// stateFile looks at what is kept, as the server does at start.
func (x *examination) stateFile(dir string, running bool) {
	const check = "state"
	path := filepath.Join(dir, store.FileName)
	seen, err := store.Look(dir)
	if seen.Holder != 0 && seen.Holder != x.pid {
		x.add(statusWarning, check, fmt.Sprintf("%s is in use by process %d, another server", dir, seen.Holder), "a server does not start with it: name another directory by --state")
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && running:
		x.add(statusWrong, check, path+" was removed: what is changed now does not outlive the server", "save what it has by `containerfs save`, and start it again")
		return
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			x.add(statusWrong, check, path+" is a link to what is not there: a server does not start with it", "mount what it is on, or remove the link to begin anew")
			return
		}
		x.ok(check, "%s has none yet", dir)
		return
	case errors.Is(err, store.ErrDamaged):
		x.add(statusWrong, check, path+" is "+err.Error()+": a server does not start with it", "put a copy in its place, or move it away to begin anew")
	case errors.Is(err, store.ErrNewer):
		x.add(statusWrong, check, path+" is "+err.Error()+": a server does not start with it", "start the newer version that has written it, or move it away to begin anew")
	case errors.Is(err, fs.ErrPermission):
		x.add(statusWarning, check, err.Error(), "ask as root")
		return
	case err != nil:
		x.add(statusWarning, check, path+": "+err.Error(), "look again")
	default:
		x.ok(check, "%s is whole, with %s", path, counted(seen.Rows, "row", "rows"))
	}
	x.private("state", path, 0o077, "chmod 600 it: it has the names of all containers, and who owns them")
}

// certificate looks at how long the server's certificate is good.
func (x *examination) certificate(path string) {
	const check, soon = "tls certificate", 14 * 24 * time.Hour
	text, err := os.ReadFile(path)
	if err != nil {
		x.add(statusWrong, check, err.Error(), "without it the server does not start")
		return
	}
	block, _ := pem.Decode(text)
	if block == nil {
		x.add(statusWrong, check, path+" has no certificate in PEM", "the server does not start so")
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		x.add(statusWrong, check, path+": "+err.Error(), "the server does not start so")
		return
	}
	until, now := cert.NotAfter.Format(time.DateOnly), time.Now()
	switch {
	case now.After(cert.NotAfter):
		x.add(statusWrong, check, path+" was good until "+until+": clients refuse it", "renew it, and have the server reload")
	case now.Before(cert.NotBefore):
		x.add(statusWrong, check, path+" is not good before "+cert.NotBefore.Format(time.DateOnly)+": clients refuse it", "look at the clock")
	case now.Add(soon).After(cert.NotAfter):
		x.add(statusWarning, check, path+" is good until "+until, "renew it, and have the server reload")
	default:
		x.ok(check, "%s is good until %s", path, until)
	}
}
