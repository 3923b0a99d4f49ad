package kernfs

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenControllers opens the root directory of the version 1 hierarchy that has
// exactly these controllers, which is made if they are in none. Like a named
// one's, it is a detached mount: the kernel keeps the hierarchy for as long as
// somebody has it open or it has directories.
func OpenControllers(names ...string) (*Dir, error) {
	return openDetached("cgroup", strings.Join(names, ","), names)
}

// OpenUnified opens the root directory of version 2, wherever it is mounted.
func OpenUnified() (*Dir, error) {
	// A mount sets the options of the whole host.
	return openDetached("cgroup2", "cgroup2", unifiedOptions())
}

// unifiedOptions are those that version 2 has where the host has mounted it.
func unifiedOptions() (options []string) {
	text, err := os.ReadFile("/proc/1/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		_, after, _ := strings.Cut(line, " - ")
		if m := strings.Fields(after); len(m) >= 3 && m[0] == "cgroup2" {
			options = slices.DeleteFunc(strings.Split(m[2], ","), func(o string) bool { return o == "rw" || o == "ro" })
		}
	}
	return options
}

func openDetached(fs, called string, options []string) (*Dir, error) {
	cfg, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		err = refusal("fsopen", err)
		return mountApart(fs, called, options, &OpError{"fsopen", fs, err})
	}
	defer unix.Close(cfg)
	for _, o := range options {
		if err := unix.FsconfigSetFlag(cfg, o); err != nil {
			return nil, &OpError{"configure hierarchy", called, err}
		}
	}
	if err := unix.FsconfigCreate(cfg); err != nil {
		return nil, &OpError{"make hierarchy", called, err}
	}
	return mountDetached(cfg, called)
}

// mountDetached gives the root directory of a file system that was made.
func mountDetached(cfg int, called string) (*Dir, error) {
	fd, err := unix.Fsmount(cfg, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, &OpError{"fsmount", called, err}
	}
	// fsmount's descriptor is O_PATH: good for openat2, not for the rest.
	root := &Dir{fd: fd, path: called}
	defer root.Close()
	dir, err := root.openat(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, root.fail("open", ".", err)
	}
	return &Dir{fd: dir, path: called}, nil
}

// A File is a control file of a directory.
type File struct {
	Name          string
	Reads, Writes bool // for root
}

// Files lists the control files that are directly in d.
func (d *Dir) Files() ([]File, error) {
	var files []File
	err := d.entries(unix.DT_REG, func(name string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		files = append(files, File{Name: name, Reads: st.Mode&0o444 != 0, Writes: st.Mode&0o222 != 0})
		return nil
	})
	return files, err
}

// Command writes a control file as Write does, but for an EAGAIN, which is the
// kernel's answer to the command and comes back.
func (d *Dir) Command(name string, value []byte) error {
	fd, err := d.openat(name, unix.O_WRONLY)
	if err != nil {
		return d.fail("open", name, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Write(fd, value)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n != len(value):
			err = unix.EIO
		}
		return d.fail("write", name, err)
	}
}

// entries yields the names of one type that are directly in d.
func (d *Dir) entries(kind uint8, yield func(name string) error) error {
	// The descriptor's offset would be shared by concurrent calls.
	fd, err := d.openat(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return d.fail("open", ".", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return d.fail("readdir", ".", err)
		}
		if n == 0 {
			return nil
		}
		for b := buf[:n]; len(b) > 0; {
			var of uint8
			var name []byte
			of, name, b = NextDirent(b)
			if of != kind || string(name) == "." || string(name) == ".." {
				continue
			}
			if err := yield(string(name)); err != nil {
				return d.fail("stat", string(name), err)
			}
		}
	}
}

// Xattr reads an extended attribute of the directory.
func (d *Dir) Xattr(name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(d.fd, name, buf)
	if err != nil {
		return "", d.fail("getxattr", name, err)
	}
	return string(buf[:n]), nil
}

// MayWrite reports whether this process may write a control file, "." for the
// directory itself.
func (d *Dir) MayWrite(name string) bool {
	return unix.Faccessat(d.fd, name, unix.W_OK, unix.AT_EACCESS) == nil
}
