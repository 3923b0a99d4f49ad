package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tracefs  = "/sys/kernel/tracing"
	ringSize = 1 << 20 // of a CPU, in bytes
)

// ringEvents are the tracepoints whose records are read, in the group sched.
var ringEvents = [...]string{"sched_process_fork", "sched_process_exec", "sched_process_exit"}

// A ring is where the kernel writes a CPU's records.
type ring struct {
	fds  []int // an event each; the first one's is mapped
	mem  []byte
	page *unix.PerfEventMmapPage
	data []byte
	wrap []byte // a record that begins at the end and ends at the beginning
}

// rings are those of all CPUs, and what was read of them.
type rings struct {
	cpus []*ring
	ids  [len(ringEvents)]uint16 // of the tracepoints, as in their records
	read counts
	lost uint64
}

// openRings has the kernel write records of the tracepoints that a tracefs names, each
// CPU's to a ring of so many bytes.
func openRings(tracefs string, size int) (*rings, error) {
	rs := &rings{}
	if err := rs.open(tracefs, size); err != nil {
		rs.close()
		return nil, err
	}
	return rs, nil
}

func (rs *rings) open(tracefs string, size int) error {
	for i, name := range ringEvents {
		b, err := os.ReadFile(filepath.Join(tracefs, "events/sched", name, "id"))
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
		if err != nil {
			return fmt.Errorf("id of %s: %w", name, err)
		}
		rs.ids[i] = uint16(id)
	}
	dirs, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		cpu, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "cpu"))
		if err != nil {
			return err
		}
		r := &ring{}
		err = r.open(cpu, rs.ids[:], size)
		if errors.Is(err, unix.ENODEV) {
			continue // it is offline
		}
		rs.cpus = append(rs.cpus, r)
		if err != nil {
			return err
		}
	}
	if len(rs.cpus) == 0 {
		return errors.New("no CPUs are listed")
	}
	return nil
}

func (r *ring) open(cpu int, ids []uint16, size int) error {
	for _, id := range ids {
		fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
			Type:        unix.PERF_TYPE_TRACEPOINT,
			Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
			Config:      uint64(id),
			Sample:      1, // each
			Sample_type: unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_RAW,
			Bits:        unix.PerfBitWatermark | unix.PerfBitUseClockID,
			Wakeup:      uint32(size / 4),
			Clockid:     unix.CLOCK_MONOTONIC, // by which the CPUs' records can be put in order
		}, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("perf_event_open", err)
		}
		r.fds = append(r.fds, fd)
		if len(r.fds) > 1 {
			if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_OUTPUT, r.fds[0]); err != nil {
				return os.NewSyscallError("PERF_EVENT_IOC_SET_OUTPUT", err)
			}
			continue
		}
		page := os.Getpagesize()
		if r.mem, err = unix.Mmap(fd, 0, page+size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return os.NewSyscallError("mmap", err)
		}
		r.page, r.data = (*unix.PerfEventMmapPage)(unsafe.Pointer(&r.mem[0])), r.mem[page:]
	}
	return nil
}

func (rs *rings) close() {
	for _, r := range rs.cpus {
		if r.mem != nil {
			unix.Munmap(r.mem)
		}
		for _, fd := range r.fds {
			unix.Close(fd)
		}
	}
}

// take reads the records that are there and has the kernel use their place again.
func (rs *rings) take() error {
	for _, r := range rs.cpus {
		if err := r.take(rs.count); err != nil {
			return err
		}
	}
	return nil
}

func (r *ring) take(each func(record []byte)) error {
	size := uint64(len(r.data))
	head, tail := atomic.LoadUint64(&r.page.Data_head), r.page.Data_tail
	for tail != head {
		// perf_event_header: kind, misc, length. It is never in two parts.
		at := tail % size
		length := uint64(native.Uint16(r.data[at+6:]))
		if length < 8 || length > head-tail {
			return fmt.Errorf("a record of %d bytes in a ring with %d", length, head-tail)
		}
		record := r.data[at:min(at+length, size)]
		if at+length > size {
			r.wrap = append(append(r.wrap[:0], record...), r.data[:at+length-size]...)
			record = r.wrap
		}
		each(record)
		tail += length
	}
	atomic.StoreUint64(&r.page.Data_tail, tail)
	return nil
}

func (rs *rings) count(record []byte) {
	switch kind := native.Uint32(record); {
	case kind == unix.PERF_RECORD_LOST && len(record) >= 24: // header, id, number
		rs.lost += native.Uint64(record[16:])
		return
	case kind == unix.PERF_RECORD_SAMPLE && len(record) >= 22: // header, time, length, the tracepoint's own
		switch native.Uint16(record[20:]) {
		case rs.ids[0]:
			rs.read.forks++
			return
		case rs.ids[1]:
			rs.read.execs++
			return
		case rs.ids[2]:
			rs.read.exits++
			return
		}
	}
	rs.read.others++
}

// readRings is a reader of the tracepoints' records. It is woken when a ring has much in
// it, and looks at all of them every 2 ms anyway.
func readRings(ctx context.Context, stdout, stderr io.Writer) error {
	rs, err := openRings(tracefs, ringSize)
	if err != nil {
		return err
	}
	defer rs.close()
	var fds []unix.PollFd
	for _, r := range rs.cpus {
		fds = append(fds, unix.PollFd{Fd: int32(r.fds[0]), Events: unix.POLLIN})
	}
	fmt.Fprintln(stdout, "ready")
	for ctx.Err() == nil {
		if _, err := unix.Poll(fds, lateness); err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
		if err := rs.take(); err != nil {
			return err
		}
	}
	if err := rs.take(); err != nil { // what was before the end is there
		return err
	}
	rs.read.print(stdout)
	fmt.Fprintf(stderr, "perf ring: %d records lost\n", rs.lost)
	return nil
}

// ringless says why this process gets no rings.
func ringless() error {
	rs, err := openRings(tracefs, ringSize)
	if err == nil {
		rs.close()
	}
	return err
}
