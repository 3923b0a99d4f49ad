package kernfs

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// An OpError says which operation on which kernel directory or file failed.
// The path is for people: it begins with the name the Dir was opened by.
type OpError struct {
	Op   string
	Path string
	Err  error
}

func (e *OpError) Error() string { return e.Op + " " + e.Path + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// A Dir is a directory of a cgroup file system.
type Dir struct {
	fd    int
	path  string
	moves Held[moveKey, moveFile]
}

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// OpenDir opens the directory of a mounted cgroup file system. It is the only
// function that follows a path of the host's, which must come from the
// administrator or from /proc/self/mountinfo.
func OpenDir(path string) (*Dir, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &OpError{"open", path, err}
	}
	return &Dir{fd: fd, path: path}, nil
}

// Close gives the descriptor back.
func (d *Dir) Close() error {
	d.moves.Close()
	if err := unix.Close(d.fd); err != nil {
		return &OpError{"close", d.path, err}
	}
	return nil
}

// Path is what error messages call the directory.
func (d *Dir) Path() string { return d.path }

// Open opens a directory below d.
func (d *Dir) Open(name string) (*Dir, error) {
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &Dir{fd: fd, path: d.pathOf(name)}, nil
}

// dirMode lets others than the owner look up names in a directory, as of the limits that
// they are under, and not read it. Who can read a directory can keep it locked for as long
// as he likes, by reading it into memory that a file server of his fills: then nothing can
// be made or removed in it, nor looked at.
const dirMode = 0o711

// Make makes a directory directly in d. EEXIST comes back as it is; one that is there has
// the mode of those that are made from then on.
func (d *Dir) Make(name string) error {
	if !component(name) {
		return d.fail("mkdir", name, unix.EINVAL)
	}
	_, err := retry(func() (int, error) { return 0, unix.Mkdirat(d.fd, name, dirMode) })
	if err == unix.EEXIST {
		_ = unix.Fchmodat(d.fd, name, dirMode, 0)
	}
	return d.fail("mkdir", name, err)
}

// Remove removes a directory that is directly in d: EBUSY while it has tasks
// or directories. The kernel frees it later than it says so.
func (d *Dir) Remove(name string) error {
	if !component(name) {
		return d.fail("rmdir", name, unix.EINVAL)
	}
	_, err := retry(func() (int, error) { return 0, unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
	if err == nil {
		for _, process := range [...]bool{false, true} {
			d.moves.Drop(moveKey{name, process})
		}
	}
	return d.fail("rmdir", name, err)
}

// Write writes a control file with one write call, which is how the kernel
// takes a command.
func (d *Dir) Write(name string, value []byte) error {
	fd, err := d.openat(name, unix.O_WRONLY)
	if err != nil {
		return d.fail("open", name, err)
	}
	defer unix.Close(fd)
	return d.fail("write", name, write(fd, value))
}

func write(fd int, value []byte) error {
	n, err := retry(func() (int, error) { return unix.Write(fd, value) })
	if err == nil && n != len(value) {
		err = unix.EIO
	}
	return err
}

// Move moves a task to the directory dir ("." for d itself): one thread by
// its tid, or with process set all threads of the process. The kernel accepts
// a task that is exiting, and a zombie, without moving it.
func (d *Dir) Move(dir string, id int32, process bool) error {
	key := moveKey{dir, process}
	var b [12]byte
	value := strconv.AppendInt(b[:0], int64(id), 10)
	f, held, since := d.moves.Take(key)
	// The directory may have been renamed, or removed, and another have its name.
	if held && time.Since(f.seen) > renameTime {
		was := f.ino
		if f.see(d, dir); f.ino != was {
			f.Close()
			held = false
		}
	}
	if held {
		if err := write(int(f.FD), value); err != unix.ENODEV {
			d.moves.Keep(key, f, since)
			return d.fail("write", key.name(), err)
		}
		f.Close()
	}
	f.see(d, dir)
	fd, err := d.openat(key.name(), unix.O_WRONLY)
	if err != nil {
		return d.fail("open", key.name(), err)
	}
	f.FD = FD(fd)
	if err = write(fd, value); err == unix.ENODEV || d.ino(dir) != f.ino {
		f.Close()
	} else {
		d.moves.Keep(key, f, since)
	}
	return d.fail("write", key.name(), err)
}

// ino is the kernel's number of a directory directly in d, or of d; 0 when there is none.
func (d *Dir) ino(dir string) uint64 {
	var st unix.Stat_t
	if unix.Fstatat(d.fd, dir, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return st.Ino
}

// moveKey tells a file that tasks are moved by.
type moveKey struct {
	dir     string
	process bool
}

// moveFile is an open one.
type moveFile struct {
	FD
	ino  uint64    // of the directory that it is in
	seen time.Time // when that had its name
}

func (f *moveFile) see(d *Dir, dir string) { f.ino, f.seen = d.ino(dir), time.Now() }

// renameTime is how long a directory is taken to have the name under which it was seen.
// A move into one that was renamed meanwhile is as if the renaming had come after it;
// one that was removed is told by the kernel.
const renameTime = 50 * time.Millisecond

func (f moveKey) name() string {
	if f.process {
		return f.dir + "/cgroup.procs"
	}
	return f.dir + "/tasks"
}

// Read appends the content of a control file to buf.
func (d *Dir) Read(name string, buf []byte) ([]byte, error) {
	fd, err := d.openat(name, unix.O_RDONLY)
	if err != nil {
		return buf, d.fail("open", name, err)
	}
	defer unix.Close(fd)
	for {
		if cap(buf)-len(buf) < 2048 {
			buf = append(buf, make([]byte, 4096+len(buf))...)[:len(buf)]
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return buf, d.fail("read", name, err)
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// IDs reads a file of one number per line: tasks, cgroup.procs. Version 1 of
// the kernel makes the list anew at the first read after open and keeps it for
// the reads that follow, so that one call sees one list. What is not a number
// is an error; 0 is a task of a pid namespace that cannot be seen from here
// and is left out.
func (d *Dir) IDs(name string) ([]int32, error) {
	data, err := d.Read(name, nil)
	if err != nil {
		return nil, err
	}
	ids, ok := parseIDs(data)
	if !ok {
		return nil, d.fail("parse", name, unix.EIO)
	}
	return ids, nil
}

func parseIDs(data []byte) (ids []int32, ok bool) {
	var n int64
	digits := 0
	for _, c := range data {
		switch {
		case c >= '0' && c <= '9':
			digits++
			if n = n*10 + int64(c-'0'); n > 1<<31-1 {
				return nil, false
			}
		case c == '\n' && digits > 0:
			if n != 0 {
				ids = append(ids, int32(n))
			}
			n, digits = 0, 0
		default:
			return nil, false
		}
	}
	return ids, digits == 0
}

// Dirs lists the directories that are directly in d.
func (d *Dir) Dirs() ([]string, error) {
	var names []string
	err := d.entries(unix.DT_DIR, func(name string) error { names = append(names, name); return nil })
	return names, err
}

// Subdirs is the number of directories in one that is directly in d.
func (d *Dir) Subdirs(name string) (int, error) {
	if !component(name) {
		return 0, d.fail("stat", name, unix.EINVAL)
	}
	var st unix.Stat_t
	_, err := retry(func() (int, error) { return 0, unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	// The kernel counts a link from above, the one to itself and one from
	// each below.
	return max(int(st.Nlink)-2, 0), d.fail("stat", name, err)
}

// ID is the kernel's number for the directory, which it does not use again
// while it runs.
func (d *Dir) ID() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return 0, d.fail("stat", ".", err)
	}
	return st.Ino, nil
}

// Owner is the user that the directory belongs to.
func (d *Dir) Owner() (uid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return 0, d.fail("stat", ".", err)
	}
	return st.Uid, nil
}

func (d *Dir) openat(name string, flags int) (int, error) {
	if !hasOpenat2() {
		return d.walkat(name, flags)
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: beneath}
	return retry(func() (int, error) { return unix.Openat2(d.fd, name, &how) })
}

// hasOpenat2 reports whether the kernel has openat2: since Linux 5.6, if no filter of system
// calls refuses it.
var hasOpenat2 = sync.OnceValue(func() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
})

// walkat does what openat2 does, name by name: ELOOP or ENOTDIR for a link, and EXDEV for
// what is above d or on another file system.
func (d *Dir) walkat(name string, flags int) (fd int, err error) {
	var ours unix.Stat_t
	if err := unix.Fstat(d.fd, &ours); err != nil {
		return -1, err
	}
	at, last := d.fd, false
	for !last {
		how := unix.O_PATH | unix.O_DIRECTORY
		part, rest, more := strings.Cut(name, "/")
		if name, last = rest, !more; last {
			how = flags
		}
		fd, err = -1, unix.EXDEV
		if part != "" && part != ".." {
			fd, err = retry(func() (int, error) {
				return unix.Openat(at, part, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			})
		}
		if at != d.fd {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		var its unix.Stat_t
		if err = unix.Fstat(fd, &its); err == nil && its.Dev != ours.Dev {
			err = unix.EXDEV
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		at = fd
	}
	return fd, nil
}

func (d *Dir) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{op, d.pathOf(name), err}
}

func (d *Dir) pathOf(name string) string {
	if name == "." {
		return d.path
	}
	return d.path + "/" + name
}

// retry repeats a call that a signal interrupted, and a few times one that the
// kernel asks to try again: openat2 while the tree is being renamed. A control
// file's own EAGAIN is an answer too, hence the bound.
func retry(call func() (int, error)) (int, error) {
	for again := 0; ; {
		n, err := call()
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < 8:
			again++
		default:
			return n, err
		}
	}
}

func component(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > unix.NAME_MAX {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

// IsGone tells the errors of a directory that is not there (any more): it was
// removed before or after its file was opened.
func IsGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
