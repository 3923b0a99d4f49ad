package kernfs

import (
	"errors"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// mountApart opens the root directory of a file system as openDetached does where fsopen was
// refused: before Linux 5.2, or by a filter of system calls. Whom mount(2) refuses as well
// gets the error of before.
func mountApart(fs, called string, options []string, before error) (dir *Dir, err error) {
	if !errors.Is(before, unix.ENOSYS) && !errors.Is(before, unix.EPERM) {
		return nil, before
	}
	onThreadOfItsOwn(func() { dir, err = mountHere(fs, called, options) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		err = before
	}
	return dir, err
}

// mountHere takes its thread to a mount namespace of its own, which ends with the thread.
// What is mounted there stays for as long as it is open.
func mountHere(fs, called string, options []string) (*Dir, error) {
	const place = "/proc" // whatever there is
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		return nil, &OpError{"unshare", called, err}
	}
	err = unix.Mount(called, place, fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, strings.Join(options, ","))
	if err != nil {
		return nil, &OpError{"make hierarchy", called, err}
	}
	dir, err := OpenDir(place)
	if err != nil {
		return nil, err
	}
	dir.path = called
	return dir, nil
}

// onThreadOfItsOwn runs f on a thread that ends then. It is not the first one, by which
// others know the process.
func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onThreadOfItsOwn(f)
			return
		}
		f()
	}()
	<-done
}
