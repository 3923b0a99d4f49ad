package cpuacct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// ringSize holds the finals of some 80,000 tasks until they are read.
const ringSize = 4 << 20

// taskDead is the state of a task that is switched away from for the last time,
// include/linux/sched.h.
const taskDead = 0x80

// Layout of what the program writes: six numbers of eight bytes.
const (
	recordTID = 8 * iota
	recordTGID
	recordStart
	recordRun
	recordUser
	recordSystem
	recordSize
)

// switches is the program at the scheduler's switches, sched_switch, that sends a
// record when the task that leaves is dead. At that point the scheduler has
// brought its run time up to date, and nothing is added to it any more.
type switches struct {
	program *ebpf.Program
	ring    *ebpf.Map
	link    link.Link
	reader  *ringbuf.Reader
}

func openSwitches() (watcher, error) {
	s := new(switches)
	err := s.open()
	if errors.Is(err, syscall.EPERM) {
		s.close()
		s = new(switches)
		err = withLockedMemory(s.open)
	}
	if err != nil {
		s.close()
		// The verifier's log is for who writes programs.
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			err = v.Unwrap()
		}
		return nil, fmt.Errorf("BPF: %w", err)
	}
	return s, nil
}

// withLockedMemory runs f while the memory that this process may lock has no limit, if that
// can be had: what BPF needs counts before Linux 5.11.
func withLockedMemory(f func() error) error {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &was); err != nil {
		return err
	}
	none := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err == nil {
		defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &was)
	}
	return f()
}

func (s *switches) open() (err error) {
	if err = inFirstPIDNamespace(); err != nil {
		return err
	}
	offsets, err := taskOffsets()
	if err != nil {
		return err
	}
	if s.ring, err = ebpf.NewMap(&ebpf.MapSpec{Name: "cpuacct_finals", Type: ebpf.RingBuf, MaxEntries: ringSize}); err != nil {
		return err
	}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "cpuacct_switch", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_switch",
		// The kernel lets no other programs read its structures.
		License:      "Dual MIT/GPL",
		Instructions: program(offsets, s.ring.FD()),
	})
	if err != nil {
		return err
	}
	if s.reader, err = ringbuf.NewReader(s.ring); err != nil {
		return err
	}
	s.link, err = link.AttachTracing(link.TracingOptions{Program: s.program})
	return err
}

// program is what runs at each switch. Its arguments are: whether it is a
// preemption, the task that leaves, and more that is not used.
func program(o offsets, ring int) asm.Instructions {
	prev, word := asm.R6, asm.R2
	send := func(at int16, from int16, size asm.Size) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(word, prev, from, size),
			asm.StoreMem(asm.RFP, at-recordSize, word, asm.DWord),
		}
	}
	code := asm.Instructions{
		asm.LoadMem(prev, asm.R1, 8, asm.DWord),
		asm.LoadMem(word, prev, o.state, o.stateSize),
		asm.And.Imm(word, taskDead),
		asm.JEq.Imm(word, 0, "out"),
	}
	code = append(code, send(recordTID, o.pid, asm.Word)...)
	code = append(code, send(recordTGID, o.tgid, asm.Word)...)
	code = append(code, send(recordStart, o.start, asm.DWord)...)
	code = append(code, send(recordRun, o.run, asm.DWord)...)
	code = append(code, send(recordUser, o.user, asm.DWord)...)
	code = append(code, send(recordSystem, o.system, asm.DWord)...)
	return append(code,
		asm.LoadMapPtr(asm.R1, ring),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -recordSize),
		asm.Mov.Imm(asm.R3, recordSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

// run is watcher's.
func (s *switches) run(ended func([]Final)) {
	const most = 256
	var record ringbuf.Record
	batch := make([]Final, 0, most)
	for {
		// Wait for one, then take what is there.
		err := s.reader.ReadInto(&record)
		for ; err == nil; err = s.reader.ReadInto(&record) {
			if f, ok := decodeRecord(record.RawSample); ok {
				batch = append(batch, f)
			}
			if len(batch) == most || record.Remaining == 0 {
				break
			}
		}
		if len(batch) > 0 {
			ended(batch)
			batch = batch[:0]
		}
		if errors.Is(err, ringbuf.ErrClosed) {
			return
		}
	}
}

func decodeRecord(b []byte) (f Final, ok bool) {
	if len(b) < recordSize {
		return f, false
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(b[i:]) }
	f = Final{
		TID:   int32(at(recordTID)),
		TGID:  int32(at(recordTGID)),
		Start: ticks(at(recordStart)),
		Times: Times{Run: at(recordRun), User: at(recordUser), System: at(recordSystem)},
	}
	return f, f.TID > 0
}

// close is watcher's. It takes what an open that failed has left.
func (s *switches) close() {
	if s.link != nil {
		_ = s.link.Close()
	}
	if s.reader != nil {
		_ = s.reader.Close()
	}
	if s.program != nil {
		_ = s.program.Close()
	}
	if s.ring != nil {
		_ = s.ring.Close()
	}
}

// offsets are where this kernel's task_struct has what the program reads.
type offsets struct {
	state, pid, tgid, start, run, user, system int16
	stateSize                                  asm.Size
}

// taskOffsets looks them up once: the kernel does not change under a server.
var taskOffsets = sync.OnceValues(func() (o offsets, err error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return o, err
	}
	var task, entity *btf.Struct
	if err = kernel.TypeByName("task_struct", &task); err != nil {
		return o, err
	}
	if err = kernel.TypeByName("sched_entity", &entity); err != nil {
		return o, err
	}
	for _, m := range []struct {
		name string
		size int
		at   *int16
	}{
		{"pid", 4, &o.pid}, {"tgid", 4, &o.tgid}, {"start_boottime", 8, &o.start},
		{"utime", 8, &o.user}, {"stime", 8, &o.system}, {"se", 0, &o.run},
	} {
		if *m.at, err = offsetOf(task, m.name, m.size); err != nil {
			return o, err
		}
	}
	if o.state, o.stateSize, err = stateOf(task); err != nil {
		return o, err
	}
	run, err := offsetOf(entity, "sum_exec_runtime", 8)
	o.run += run
	return o, err
})

// stateOf is where a task's state is: under another name before Linux 5.14.
func stateOf(task *btf.Struct) (int16, asm.Size, error) {
	at, err := offsetOf(task, "__state", 4)
	if err == nil {
		return at, asm.Word, nil
	}
	if at, errOld := offsetOf(task, "state", 8); errOld == nil {
		return at, asm.DWord, nil
	}
	return 0, 0, err
}

// offsetOf is where a structure has a member of that name and size; 0 is any.
func offsetOf(s *btf.Struct, name string, size int) (int16, error) {
	for _, m := range s.Members {
		if m.Name != name {
			continue
		}
		n, err := btf.Sizeof(m.Type)
		if err != nil || size != 0 && n != size || m.BitfieldSize != 0 || m.Offset.Bytes() > 1<<14 {
			return 0, fmt.Errorf("%s.%s is not as it is known: %w", s.Name, name, syscall.ENOTSUP)
		}
		return int16(m.Offset.Bytes()), nil
	}
	return 0, fmt.Errorf("%s has no %s: %w", s.Name, name, syscall.ENOTSUP)
}

// inFirstPIDNamespace fails where the numbers that the kernel has of tasks are
// not those that this process sees.
func inFirstPIDNamespace() error {
	const first = "pid:[4026531836]"
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil {
		return err
	} else if ns != first {
		return fmt.Errorf("in the pid namespace %s: %w", ns, syscall.EPERM)
	}
	return nil
}
