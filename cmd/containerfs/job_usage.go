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
	OOMKills   *int64   `json:"oom_kills"` // since the job was started
	ExitCode   int      `json:"exit_code"` // of run
}

// What a job's usage is read from, best first.
var (
	jobCPU        = []measure{cpuFile}
	jobMemoryPeak = []measure{
		{name: "memory.peak", kernel: true, has: "high"},
		{name: "memory.max_usage_in_bytes", kernel: true},
		{name: "bc.physpages.maxheld", pages: true},
	}
	jobTasksPeak = []measure{
		{name: "pids.peak", kernel: true, lacks: "high"},
		{name: "bc.numproc.maxheld"},
	}
	jobOOMKills = []measure{
		{name: "memory.events", kernel: true, has: "high", key: "oom_kill"},
		{name: "memory.oom_control", kernel: true, key: "oom_kill"},
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

// since is what has been added to a count.
func since(now, before *int64) *int64 {
	if now == nil || before == nil || *now < *before {
		return nil
	}
	n := *now - *before
	return &n
}

// used is what the job has used until now.
func (j *job) used(s *session) jobUsage {
	u := jobUsage{Containers: j.dirs, Elapsed: int64(j.ended.Sub(j.started)), ExitCode: j.exit}
	// Nobody runs for no time: that is what a server says who reads of tasks only while they live.
	if u.CPU = since(j.measured(s, jobCPU), j.before.CPU); u.CPU != nil && *u.CPU == 0 {
		u.CPU = nil
	}
	u.OOMKills = since(j.measured(s, jobOOMKills), j.before.OOMKills)
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
	if u.OOMKills != nil && *u.OOMKills > 0 {
		line += fmt.Sprintf(" oom_kills=%d", *u.OOMKills)
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
