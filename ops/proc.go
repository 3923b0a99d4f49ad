package ops

import (
	"fmt"
	"sort"
	"strconv"
	"syscall"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// procDir is proc: a directory per process. A thread's is there too, but not
// listed.
type procDir struct{}

func (procDir) qid() p9.QID                        { return dirQID(qidProc) }
func (procDir) parent() node                       { return topDir{} }
func (procDir) attr(fs *FS) (perm, p9.Attr, error) { return fs.fixedDir(2 + fs.tree.NumPIDs()) }

func (procDir) lookup(fs *FS, name string) (node, error) {
	tid, err := strconv.ParseInt(name, 10, 32)
	if err != nil || tid <= 0 || name[0] == '+' || name[0] == '0' {
		return nil, syscall.ENOENT
	}
	d, ok := fs.taskDir(int32(tid))
	if !ok {
		return nil, errUndrained
	}
	return d, nil
}

// list lists the processes that there were when the listing began.
func (procDir) list(f *file, after uint64, yield func(entry) bool) error {
	first := sort.Search(len(f.pids), func(i int) bool { return uint64(f.pids[i]) > after })
	for _, pid := range f.pids[first:] {
		d, ok := f.at.fs.taskDir(pid)
		if !ok {
			continue
		}
		if !yield(entry{strconv.Itoa(int(pid)), d.qid(), uint64(pid)}) {
			break
		}
	}
	return nil
}

// taskDir is proc/<pid>: of a thread, or of a process, which is there as long as a thread of it is.
type taskDir struct {
	task  *tree.Task
	tid   int32
	start uint64
}

// taskDir is the directory of a number; not ok when nobody has it. View.
func (fs *FS) taskDir(tid int32) (d taskDir, ok bool) {
	if task := fs.tree.Task(tid); task != nil {
		return taskDir{task, tid, task.Start()}, true
	}
	p := fs.tree.Process(tid)
	if p == nil {
		return d, false
	}
	d = taskDir{p.Thread(), tid, p.FirstStart()}
	if d.start == 0 {
		d.start = d.task.Start()
	}
	return d, true
}

// thread is the one that is asked: of a process whose first thread has ended one that lives. It
// is nil when all is gone. View.
func (d taskDir) thread() *tree.Task {
	if d.task.Live() {
		return d.task
	}
	if p := d.task.Process(); p.TGID() == d.tid {
		return p.Thread()
	}
	return nil
}

// path is a task's part of qid paths: its start time, which alone tells it from
// others of its tid, in the upper bits.
func (d taskDir) path(index uint64) uint64 {
	return qidTaskFlag | d.start<<25&(qidTaskFlag-1) | uint64(d.tid)<<2 | index
}

func (d taskDir) qid() p9.QID  { return dirQID(d.path(0)) }
func (d taskDir) parent() node { return procDir{} }

func (d taskDir) attr(fs *FS) (perm, p9.Attr, error) {
	if d.thread() == nil {
		return perm{}, p9.Attr{}, syscall.ESRCH
	}
	return fs.fixedDir(2)
}

var taskFiles = []string{"container", "cpuset"}

func (d taskDir) lookup(fs *FS, name string) (node, error) {
	if d.thread() == nil {
		return nil, syscall.ESRCH
	}
	for i, f := range taskFiles {
		if f == name {
			return taskFile{d, i}, nil
		}
	}
	return nil, syscall.ENOENT
}

func (d taskDir) list(_ *file, after uint64, yield func(entry) bool) error {
	for i := after; i < uint64(len(taskFiles)); i++ {
		if !yield(entry{taskFiles[i], taskFile{d, int(i)}.qid(), i + 1}) {
			break
		}
	}
	return nil
}

// taskFile is proc/<pid>/container or proc/<pid>/cpuset (SPEC §9).
type taskFile struct {
	d     taskDir
	index int // in taskFiles
}

func (f taskFile) qid() p9.QID                   { return fileQID(f.d.path(uint64(f.index + 1))) }
func (taskFile) drains() bool                    { return true }
func (taskFile) write(*attachment, []byte) error { return errReadOnly }

func (f taskFile) attr(fs *FS) (perm, p9.Attr, error) {
	if f.d.thread() == nil {
		return perm{}, p9.Attr{}, syscall.ESRCH
	}
	return fs.fixedFile(0o444)
}

func (f taskFile) read(at *attachment, b []byte) ([]byte, error) {
	task := f.d.thread()
	if task == nil {
		return nil, syscall.ESRCH
	}
	fs := at.fs
	if taskFiles[f.index] == "cpuset" {
		id := fs.subsystem("cpuset")
		if id < 0 {
			return nil, syscall.EINVAL
		}
		if h := fs.tree.Bound(id); h != nil {
			return append(task.Container(h).AppendPath(b), '\n'), nil
		}
		return append(b, "/\n"...), nil // unbound: the default hierarchy's
	}
	for _, h := range fs.newestFirst() {
		b = fmt.Appendf(b, "%s:%s\n", fs.tree.Names(h.Subsystems(), ","), task.Container(h).AppendPath(nil))
	}
	return b, nil
}
