package main

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// usage is what a container and all below it use. What nothing counts is nil, and what we
// may not know.
type usage struct {
	Time   int64    `json:"unix_ns"`
	Path   string   `json:"path"`
	CPU    *float64 `json:"cpu_percent"` // of one CPU, since the sample before
	Tasks  *int     `json:"tasks"`
	Memory *int64   `json:"memory_bytes"`

	depth int // below the first
}

// measure is a file that has a number, which may be of pages of the server's host. With a key
// it has one in each line, after its name, and this is of that line.
type measure struct {
	name   string
	pages  bool
	kernel bool
	key    string

	// What a subsystem beside the file has and lacks: under noprefix another's can go by that name.
	has, lacks string
}

// in is the file's name among those of a container, "" if it is not there.
func (f *measure) in(files []string) string {
	if slices.Contains(files, f.name) {
		return f.name
	}
	_, bare, _ := strings.Cut(f.name, ".")
	if slices.Contains(files, bare) && (f.has == "" || slices.Contains(files, f.has)) && !slices.Contains(files, f.lacks) {
		return bare
	}
	return ""
}

// cpuFile is where a container's CPU time can be read, in nanoseconds.
var cpuFile = measure{name: "cpuacct.usage"}

// memoryFiles are where a container's memory can be read, best first.
var memoryFiles = []measure{
	{name: "memory.current", kernel: true, has: "high"},
	{name: "memory.usage_in_bytes", kernel: true},
	{name: "bc.physpages.held", pages: true},
}

// sampler measures the containers below a path.
type sampler struct {
	s    *session
	path string
	last map[string]cpuTime
}

// cpuTime is a reading of cpuacct.usage.
type cpuTime struct {
	ns int64
	of uint64 // the file's number, which no other container's has
	at time.Time
}

func newSampler(s *session, path string) *sampler {
	return &sampler{s: s, path: path, last: make(map[string]cpuTime)}
}

// sample measures every container once.
func (m *sampler) sample() ([]usage, error) {
	tops, err := m.s.tops(m.path)
	if err != nil {
		return nil, err
	}
	var all []usage
	now := make(map[string]cpuTime)
	for _, top := range tops {
		below := make(map[string]int) // tasks, by container, with those below
		unknown := make(map[string]bool)
		upwards := func(path string, each func(at string)) {
			for at := path; ; at = parent(at) {
				each(at)
				if at == top || at == "/" {
					return
				}
			}
		}
		isUnknown := func(at string) { unknown[at] = true }
		first := len(all)
		err := m.s.visible(top, func(path string, depth int, files []string) error {
			u := usage{Time: time.Now().UnixNano(), Path: path, depth: depth}
			tids, err := m.s.numbers(join(path, "tasks"))
			switch {
			case depth > 0 && isGone(err):
				return nil
			case depth > 0 && errors.Is(err, linux.EACCES):
				upwards(path, isUnknown)
			case err != nil:
				return err
			}
			upwards(path, func(at string) { below[at] += len(tids) })
			u.CPU = m.cpu(path, files, now)
			u.Memory = m.s.measured(path, files, memoryFiles)
			all = append(all, u)
			return nil
		}, func(path string, depth int) {
			upwards(path, isUnknown)
			all = append(all, usage{Time: time.Now().UnixNano(), Path: path, depth: depth})
		})
		if err != nil {
			return nil, err
		}
		for i := first; i < len(all); i++ {
			if n := below[all[i].Path]; !unknown[all[i].Path] {
				all[i].Tasks = &n
			}
		}
	}
	m.last = now
	return all, nil
}

// parent is the path of the container above.
func parent(path string) string { return clean(path[:strings.LastIndexByte(path, '/')]) }

// cpu is the share of a CPU since the last sample, if that is known.
func (m *sampler) cpu(path string, files []string, now map[string]cpuTime) *float64 {
	ns, of, ok := m.s.number(path, files, &cpuFile)
	if !ok {
		return nil
	}
	at := time.Now()
	now[path] = cpuTime{ns, of, at}
	before, ok := m.last[path]
	if elapsed := at.Sub(before.at); ok && of == before.of && ns >= before.ns && elapsed > 0 {
		percent := 100 * float64(ns-before.ns) / float64(elapsed)
		return &percent
	}
	return nil
}

// measured is the first of several measures that the container has and we may read.
func (s *session) measured(path string, files []string, of []measure) *int64 {
	root := isRoot(files)
	for i := range of {
		f := &of[i]
		if root && f.kernel && f.in(files) != "" {
			return nil // its processes are where they come from: this is the server's directory
		}
		if n, _, ok := s.number(path, files, f); ok {
			if f.pages {
				size, err := s.pageSize()
				if err != nil {
					return nil
				}
				n *= size
			}
			return &n
		}
	}
	return nil
}

// askPageSize asks what a page of the server's host has: it can be of another kind than
// ours, or have another kernel.
func (s *session) askPageSize() (int64, error) {
	st, err := s.root.StatFS()
	return int64(st.BlockSize), err
}

// number reads a number, if the container has it and we may, and tells which file it was.
func (s *session) number(path string, files []string, f *measure) (n int64, of uint64, ok bool) {
	name := f.in(files)
	if name == "" {
		return 0, 0, false
	}
	var text strings.Builder
	qid, err := readWhich(s, &text, join(path, name))
	if err != nil {
		return 0, 0, false
	}
	value := text.String()
	if f.key != "" {
		found := false
		for line := range strings.Lines(value) {
			if value, found = strings.CutPrefix(line, f.key+" "); found {
				break
			}
		}
		if !found {
			return 0, 0, false
		}
	}
	n, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, qid.Path, err == nil
}

// sortOrder is a column to sort by, the largest first but for paths.
type sortOrder struct {
	name    string
	compare func(a, b *usage) int
}

var sortOrders = map[string]sortOrder{
	"cpu":    {"cpu", func(a, b *usage) int { return compareKnown(b.CPU, a.CPU) }},
	"tasks":  {"tasks", func(a, b *usage) int { return compareKnown(b.Tasks, a.Tasks) }},
	"memory": {"memory", func(a, b *usage) int { return compareKnown(b.Memory, a.Memory) }},
	"path":   {"path", func(a, b *usage) int { return strings.Compare(a.Path, b.Path) }},
}

// compareKnown has what is not known below everything.
func compareKnown[T cmp.Ordered](a, b *T) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*a, *b)
}

func sortUsage(rows []usage, by sortOrder, reverse bool) {
	slices.SortStableFunc(rows, func(a, b usage) int {
		order := by.compare(&a, &b)
		if reverse {
			order = -order
		}
		return cmp.Or(order, strings.Compare(a.Path, b.Path))
	})
}
