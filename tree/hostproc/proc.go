package hostproc

import (
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

// An OpError says what could not be done with which thread, process or socket.
type OpError struct {
	Op   string
	What string
	Err  error
}

func (e *OpError) Error() string { return e.Op + " " + e.What + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

func failTask(op string, tid int32, err error) error {
	return &OpError{op, "task " + strconv.Itoa(int(tid)), err}
}

// A procFS reads /proc through a descriptor of its root.
type procFS struct {
	fd      int
	bufs    sync.Pool // of *procBuf
	threads kernfs.Held[int32, thread]

	// pidfds says that threads are looked at again by a pidfd. That shows some as
	// living that are exiting: who sets it drops those of which the exit was told.
	pidfds atomic.Bool
}

// thread is one that was looked at. What its file tells is of this very thread, or
// nothing.
type thread struct {
	kernfs.FD      // its stat file
	pidfd     bool // no, its pidfd
	tgid      int32
	start     uint64
	kernel    bool
}

// A procBuf has the memory of one look-up or scan, so that neither allocates.
type procBuf struct {
	path [64]byte // relative to the root, NUL-terminated
	text []byte
	dirs []byte
	tids []byte
	list []int32
}

func openProc() (*procFS, error) {
	fd, err := unix.FcntlInt(uintptr(kernfs.Proc()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &OpError{"open", "/proc", err}
	}
	p := &procFS{fd: fd}
	p.bufs.New = func() any { return &procBuf{text: make([]byte, 4096)} }
	return p, nil
}

func (p *procFS) close() {
	p.threads.Close()
	unix.Close(p.fd)
}

func (p *procFS) buf() *procBuf { return p.bufs.Get().(*procBuf) }

// task looks up one thread by its tid alone.
func (p *procFS) task(tid int32) (info tree.TaskInfo, err error) {
	if tid <= 0 {
		return info, unix.ESRCH
	}
	t, held, since := p.threads.Take(tid)
	if held {
		if info, err = p.again(t, tid); err == nil {
			p.threads.Keep(tid, t, since)
			return info, nil
		}
		t.Close() // that thread is gone, but there may be another
	}
	if t, info, err = p.find(tid); err == nil {
		p.threads.Keep(tid, t, since)
	}
	return info, err
}

// again looks at a thread that was found before.
func (p *procFS) again(t thread, tid int32) (tree.TaskInfo, error) {
	if !t.pidfd {
		return p.statTask(int(t.FD), tid)
	}
	i, err := readPidfd(int(t.FD))
	if err != nil {
		return tree.TaskInfo{}, err
	}
	return tree.TaskInfo{TID: tid, TGID: int32(i.tgid), PPID: int32(i.ppid), Start: t.start, Kernel: t.kernel}, nil
}

// owner tells the real and the saved user of a thread.
func (p *procFS) owner(tid int32) (ruid, suid uint32, err error) {
	t, held, since := p.threads.Take(tid)
	if held {
		defer p.threads.Keep(tid, t, since)
	}
	if t.pidfd {
		if i, err := readPidfd(int(t.FD)); err == nil {
			return i.ruid, i.suid, nil
		}
	}
	s, err := p.status(tid)
	return s.ruid, s.suid, err
}

// find looks for the thread that has a tid.
func (p *procFS) find(tid int32) (t thread, info tree.TaskInfo, err error) {
	b := p.buf()
	fd, err := p.open(b.name(tid, 0, "stat"), unix.O_RDONLY)
	p.bufs.Put(b)
	if err != nil {
		return t, info, err
	}
	t.FD = kernfs.FD(fd)
	if p.pidfds.Load() {
		// Between the stat file's being opened and read, so that it is of the same thread.
		defer unix.Close(fd)
		pidfd, err := unix.PidfdOpen(int(tid), pidfdThread)
		if err != nil {
			return t, info, err
		}
		t.FD, t.pidfd = kernfs.FD(pidfd), true
	}
	info, err = p.statTask(fd, tid)
	if err != nil {
		t.Close()
	}
	t.tgid, t.start, t.kernel = info.TGID, info.Start, info.Kernel
	return t, info, err
}

// statTask is what a stat file tells, which is open. While it is its reads are of one
// thread, or fail: what is asked before a read that succeeds is about the same.
func (p *procFS) statTask(fd int, tid int32) (info tree.TaskInfo, err error) {
	// Signal 0 asks whether tid is a process: EPERM says yes as well.
	tgid := tid
	if err := unix.Tgkill(int(tid), int(tid), 0); err == unix.ESRCH {
		s, err := p.status(tid)
		if err != nil {
			return info, err
		}
		tgid = s.tgid
	}
	b := p.buf()
	defer p.bufs.Put(b)
	s, err := statOf(b.readAll(fd))
	if err == nil && !s.live() {
		err = unix.ESRCH
	}
	if err != nil {
		return info, err
	}
	return s.info(tgid), nil
}

// stat reads a thread's stat file.
func (p *procFS) stat(b *procBuf, tid int32) (stat, error) {
	return statOf(p.read(b, b.name(tid, 0, "stat")))
}

func (s *stat) info(tgid int32) tree.TaskInfo {
	return tree.TaskInfo{TID: s.pid, TGID: tgid, PPID: s.ppid, Start: s.start, Kernel: s.flags&flagKernel != 0}
}

// hasRun is true when a thread is known to have run: its fork was finished
// before. One that is new is shown as running, like those that do.
func (p *procFS) hasRun(b *procBuf, s *stat) (bool, error) {
	if s.state != 'R' {
		return true, nil
	}
	text, err := p.read(b, b.name(s.pid, 0, "schedstat"))
	if err == unix.ESRCH {
		return false, nil // gone, or a kernel without the file
	}
	return ranAtAll(text), err
}

// status reads a live thread's status file.
func (p *procFS) status(tid int32) (status, error) {
	b := p.buf()
	defer p.bufs.Put(b)
	if tid <= 0 {
		return status{}, unix.ESRCH
	}
	text, err := p.read(b, b.name(tid, 0, "status"))
	if err != nil {
		return status{}, err
	}
	s, ok := parseStatus(text)
	if !ok {
		return status{}, unix.EIO
	}
	switch s.state {
	case 'Z', 'X', 'x':
		return status{}, unix.ESRCH
	}
	return s, nil
}

// tasks yields the threads of one process, or of all if tgid is 0.
func (p *procFS) tasks(tgid int32, yield func(tree.TaskInfo) bool) error {
	b := p.buf()
	defer p.bufs.Put(b)
	if tgid != 0 {
		if tgid < 0 {
			return nil
		}
		_, err := p.process(b, tgid, yield)
		return err
	}
	if b.dirs == nil {
		b.dirs = make([]byte, 32<<10)
	}
	// A descriptor of its own, since its offset is where the scan stands.
	root, err := p.open(append(b.path[:0], '.', 0), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return numbers(root, b.dirs, func(pid int32) (bool, error) { return p.process(b, pid, yield) })
}

// process yields the threads of a process.
func (p *procFS) process(b *procBuf, tgid int32, yield func(tree.TaskInfo) bool) (more bool, err error) {
	leader, err := p.stat(b, tgid)
	if err == unix.ESRCH {
		return true, nil
	} else if err != nil {
		return false, err
	}
	if leader.threads <= 1 {
		return !leader.live() || yield(leader.info(tgid)), nil
	}
	// The kernel ends a listing of threads early when the one it stands at dies.
	for range 4 {
		b.list = b.list[:0]
		if err := p.listThreads(b, tgid); err != nil {
			return false, err
		}
		if len(b.list) >= int(leader.threads) {
			break
		}
		if leader, err = p.stat(b, tgid); err == unix.ESRCH {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	for _, tid := range b.list {
		// The leader's is read again: an exec can have replaced it.
		s, err := statOf(p.read(b, b.name(tgid, tid, "stat")))
		if err == unix.ESRCH {
			continue
		} else if err != nil {
			return false, err
		}
		if s.live() && !yield(s.info(tgid)) {
			return false, nil
		}
	}
	return true, nil
}

// listThreads appends the threads of a process to the list, dead or alive.
func (p *procFS) listThreads(b *procBuf, tgid int32) error {
	fd, err := p.open(b.name(tgid, 0, "task"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ESRCH {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(fd)
	if b.tids == nil {
		b.tids = make([]byte, 8<<10)
	}
	return numbers(fd, b.tids, func(tid int32) (bool, error) {
		b.list = append(b.list, tid)
		return true, nil
	})
}

// numbers calls each for the entries of a directory that are numbers, until it
// says false.
func numbers(fd int, buf []byte, each func(int32) (more bool, err error)) error {
	for {
		n, err := unix.Getdents(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT: // the directory of a process that is gone
			return nil
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		for b := buf[:n]; len(b) > 0; {
			var name []byte
			_, name, b = kernfs.NextDirent(b)
			id := int64(0)
			for _, c := range name {
				if id = id*10 + int64(c-'0'); c < '0' || c > '9' || id > 1<<31-1 {
					id = 0
					break
				}
			}
			if id == 0 {
				continue
			}
			if more, err := each(int32(id)); !more || err != nil {
				return err
			}
		}
	}
}

// name builds <pid>/<file>, or <pid>/task/<tid>/<file> if tid is not 0.
func (b *procBuf) name(pid, tid int32, file string) []byte {
	path := strconv.AppendInt(b.path[:0], int64(pid), 10)
	if tid != 0 {
		path = append(path, "/task/"...)
		path = strconv.AppendInt(path, int64(tid), 10)
	}
	path = append(path, '/')
	path = append(path, file...)
	return append(path, 0)
}

// open opens a path relative to the root. What is gone is ESRCH.
func (p *procFS) open(path []byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(p.fd), uintptr(unsafe.Pointer(&path[0])),
			uintptr(flags|unix.O_CLOEXEC), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		case unix.ENOENT:
			return -1, unix.ESRCH
		default:
			return -1, errno
		}
	}
}

// read reads a file; the text is good until the next use of b.
func (p *procFS) read(b *procBuf, path []byte) ([]byte, error) {
	fd, err := p.open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return b.readAll(fd)
}

// readAll reads a file from its beginning, also when that was done before.
func (b *procBuf) readAll(fd int) ([]byte, error) {
	for n := 0; ; {
		if n == len(b.text) {
			b.text = append(b.text, make([]byte, len(b.text))...)
		}
		got, err := unix.Pread(fd, b.text[n:], int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		// The kernel makes these files at once, so a short read is the last.
		case got < len(b.text)-n:
			return b.text[:n+got], nil
		default:
			n += got
		}
	}
}
