package subsys

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"containerfs/subsys/controller"
	"containerfs/subsys/cpuacct"
	"containerfs/tree"
)

// kernelCpuacct is cpuacct with the kernel's counts, which miss nothing, whoever
// watches. The root's are ours: it stands for tasks that are anywhere.
//
// The kernel's counts are those of a directory, which begin at 0 when the directory is made: at
// mkdir, and again when the host was booted. What is shown is the kernel's counts and a base: what
// ours had counted by then, or what makes it 0 at a reset. It is less than 0 as well where a server
// without the kernel's counts was in between, which knows of no base.
type kernelCpuacct struct {
	pair
	ourCpuacct
	boot string

	mu    sync.Mutex // a leaf
	bases map[*tree.Container]base
}

type ourCpuacct struct{ *cpuacct.Subsystem }

// base is what is added to the counts of a container's kernel directory.
type base struct {
	directory uint64 // which one, of all there were in any boot of the host
	counts
}

// counts are the numbers of usage and of stat: nanoseconds, user and system ticks.
type counts [3]int64

// countFiles are the files of counts, each at the index of the first of those that it has.
var countFiles = []string{"usage", "stat"}

func newKernelCpuacct(ours *cpuacct.Subsystem, kernel *controller.Subsystem, boot string) *kernelCpuacct {
	s := &kernelCpuacct{
		pair: pair{ours: ours, kernel: kernel}, ourCpuacct: ourCpuacct{ours},
		boot: boot, bases: make(map[*tree.Container]base),
	}
	kernel.Again(func(c *tree.Container) {
		id, err := kernel.DirectoryID(c)
		if err == nil {
			err = s.beginAt(c, everOnly(boot, id))
		}
		if err != nil {
			kernel.Log().Error("what a container has counted is lost with its kernel directory", "path", c.Path(), "err", err)
		}
	})
	for _, f := range ours.Files() {
		if first := slices.Index(countFiles, f.Name); first >= 0 {
			f.Fetch = s.fetch(f, first)
		}
		if f.Name == "usage" {
			f.Write = s.reset(f)
		}
		s.files = append(s.files, f)
	}
	return s
}

// Create is tree.Subsystem's.
func (s *kernelCpuacct) Create(c *tree.Container) (tree.State, error) {
	state, err := s.pair.Create(c)
	if err != nil || c.IsRoot() {
		return state, err
	}
	id, err := s.kernel.DirectoryID(c)
	if err != nil {
		s.pair.Destroy(c, state)
		return nil, err
	}
	s.setBase(c, base{directory: everOnly(s.boot, id)})
	return state, nil
}

// Destroy is tree.Subsystem's.
func (s *kernelCpuacct) Destroy(c *tree.Container, state tree.State) {
	s.pair.Destroy(c, state)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bases, c)
}

func (s *kernelCpuacct) base(c *tree.Container) base {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bases[c]
}

func (s *kernelCpuacct) setBase(c *tree.Container, b base) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bases[c] = b
}

// fetch makes the reader of a file, whose numbers are counts from the one with that index on.
func (s *kernelCpuacct) fetch(ours tree.File, first int) func(*tree.Container) ([]byte, error) {
	return func(c *tree.Container) (b []byte, err error) {
		if !c.IsRoot() {
			base := s.base(c) // before the rest: there is none of a container that is removed meanwhile
			text, err := s.kernel.Fetch(c, "cpuacct."+ours.Name)
			if err != nil {
				return nil, err
			}
			return eachCount(text, first, func(i int, n int64) int64 { return max(0, n+base.counts[i]) }), nil
		}
		if err := ours.Prepare(c); err != nil {
			return nil, err
		}
		s.tree.View(func() {
			if !s.kernel.Shows(c) {
				err = syscall.ENODEV
				return
			}
			b, err = ours.Read(c, nil)
		})
		return b, err
	}
}

// eachCount changes the number at the end of each line, of those of usage (0) or stat (1).
func eachCount(text []byte, first int, change func(i int, n int64) int64) (changed []byte) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		at := bytes.LastIndexByte(line, ' ') + 1
		n, err := strconv.ParseInt(string(line[at:]), 10, 64)
		if err != nil || first == len(counts{}) {
			return text // no kernel's is like that
		}
		changed = append(strconv.AppendInt(append(changed, line[:at]...), change(first, n), 10), '\n')
		first++
	}
	return changed
}

// read takes the numbers of usage (0) or stat (1).
func (all *counts) read(text []byte, first int) {
	eachCount(text, first, func(i int, n int64) int64 { all[i] = n; return n })
}

// kernels are the kernel's counts. Under changeMu.
func (s *kernelCpuacct) kernels(c *tree.Container) (all counts, err error) {
	for first, name := range countFiles {
		text, err := s.kernel.Get(c, "cpuacct."+name)
		if err != nil {
			return all, err
		}
		all.read([]byte(text), first)
	}
	return all, nil
}

// counted are our own counts. Under changeMu.
func (s *kernelCpuacct) counted(c *tree.Container) (all counts) {
	s.tree.View(func() {
		for _, f := range s.ourCpuacct.Files() {
			if first := slices.Index(countFiles, f.Name); first >= 0 {
				text, _ := f.Read(c, nil)
				all.read(text, first)
			}
		}
	})
	return all
}

// reset is the writer of usage. Nothing is written to the kernel, which could not be taken back.
func (s *kernelCpuacct) reset(ours tree.File) func(*tree.Actor, *tree.Container, []byte) error {
	return func(a *tree.Actor, c *tree.Container, data []byte) error {
		if c.IsRoot() {
			return ours.Write(a, c, data)
		}
		now, err := s.kernels(c)
		if err != nil {
			return err
		}
		if err := ours.Write(a, c, data); err != nil {
			return err
		}
		b := s.base(c)
		for i, n := range now {
			b.counts[i] = -n
		}
		s.setBase(c, b)
		return nil
	}
}

// Save is tree.Saver's: what ours has counted, and the base. That is there from the beginning, so
// that it is known of which directory the kernel's counts are by the first checkpoint.
func (s *kernelCpuacct) Save(c *tree.Container, b []byte) []byte {
	base := s.base(c)
	start := len(b)
	b = s.ourCpuacct.Save(c, b)
	if base.directory == 0 {
		return b
	}
	if len(b) == start {
		b = append(b, cpuacct.NothingSaved...)
	}
	return tree.AppendNumbers(b, base.directory, uint64(base.counts[0]), uint64(base.counts[1]), uint64(base.counts[2]))
}

// Restore is tree.Saver's. A directory that was not there when that was saved, or had no base,
// begins with what ours had counted.
func (s *kernelCpuacct) Restore(c *tree.Container, b []byte) error {
	ours, more, err := cpuacct.SplitSaved(b)
	if err != nil {
		return err
	}
	if err := s.ourCpuacct.Restore(c, ours); err != nil || c.IsRoot() {
		return err
	}
	now := base{directory: s.base(c).directory}
	var was uint64 // the directory
	if len(more) > 0 {
		var n [len(counts{})]uint64
		if err := tree.Numbers(more, &was, &n[0], &n[1], &n[2]); err != nil {
			return err
		}
		now.counts = counts{int64(n[0]), int64(n[1]), int64(n[2])}
	}
	if was != now.directory {
		return s.beginAt(c, now.directory)
	}
	s.setBase(c, now)
	return nil
}

// beginAt has a directory begin with what ours has counted. Under changeMu.
func (s *kernelCpuacct) beginAt(c *tree.Container, directory uint64) error {
	b := base{directory: directory}
	kernels, err := s.kernels(c)
	if err != nil {
		return err
	}
	for i, n := range s.counted(c) {
		b.counts[i] = n - kernels[i]
	}
	s.setBase(c, b)
	return nil
}
