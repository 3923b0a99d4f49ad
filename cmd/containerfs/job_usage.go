package main

import (
	"fmt"
	"time"
)

// jobUsage is what the containers of a job have measured. What none measures is nil.
type jobUsage struct {
	Containers []string `json:"containers"`
	Elapsed    int64    `json:"elapsed_ns"`
	CPU        *int64   `json:"cpu_ns"` // since the job was started
	MemoryPeak *int64   `json:"memory_peak_bytes"`
	TasksPeak  *int64   `json:"tasks_peak"`
}

// What a job's usage is read from, best first.
var (
	jobCPU        = []measure{{"cpuacct.usage", false, false}}
	jobMemoryPeak = []measure{
		{"memory.peak", false, true},
		{"memory.max_usage_in_bytes", false, true},
		{"bc.physpages.maxheld", true, false},
	}
	jobTasksPeak = []measure{
		{"pids.peak", false, true},
		{"bc.numproc.maxheld", false, false},
	}
)

// measured is the best that one of the job's containers has measured.
func (j *job) measured(s *session, of []measure) *int64 {
	for i := range of {
		for _, dir := range j.dirs {
			files, _, err := s.list(dir)
			if err != nil {
				continue
			}
			if n := s.measured(dir, files, of[i:i+1]); n != nil {
				return n
			}
		}
	}
	return nil
}

// used is what the job has used until now.
func (j *job) used(s *session) jobUsage {
	u := jobUsage{Containers: j.dirs, Elapsed: int64(j.ended.Sub(j.started))}
	if cpu := j.measured(s, jobCPU); cpu != nil && j.cpuBefore != nil && *cpu >= *j.cpuBefore {
		since := *cpu - *j.cpuBefore
		u.CPU = &since
	}
	// Of a process that has ended before it was looked at no page is known.
	if u.MemoryPeak = j.measured(s, jobMemoryPeak); u.MemoryPeak != nil && *u.MemoryPeak == 0 {
		u.MemoryPeak = nil
	}
	u.TasksPeak = j.measured(s, jobTasksPeak)
	return u
}

func (u *jobUsage) String() string {
	seconds := func(ns int64) string { return fmt.Sprintf("%.3fs", time.Duration(ns).Seconds()) }
	line := "elapsed=" + seconds(u.Elapsed)
	if u.CPU != nil {
		line += " cpu=" + seconds(*u.CPU)
	}
	if u.MemoryPeak != nil {
		line += " memory_peak=" + bytesShort(*u.MemoryPeak)
	}
	if u.TasksPeak != nil {
		line += fmt.Sprintf(" tasks_peak=%d", *u.TasksPeak)
	}
	return line
}

// tellUsage prints the usage, and writes it to the file that was named.
func (j *job) tellUsage(u jobUsage) error {
	if j.usage {
		fmt.Fprintf(j.c.App.ErrWriter, "containerfs: usage: %s\n", u.String())
	}
	if j.usageFile == nil {
		return nil
	}
	if err := writeJSON(j.usageFile, u); err != nil {
		return err
	}
	return j.usageFile.Close()
}
