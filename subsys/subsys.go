// Package subsys lists the subsystems of containerfs. Each has a package of its
// own below this one; what they need of the host is injected here.
package subsys

import (
	"encoding/binary"
	"hash/fnv"
	"log/slog"
	"os"
	"slices"

	"containerfs/subsys/bc"
	"containerfs/subsys/controller"
	"containerfs/subsys/cpuacct"
	"containerfs/subsys/cpuset"
	"containerfs/subsys/debug"
	"containerfs/subsys/ns"
	"containerfs/subsys/numtasks"
	"containerfs/tree"
)

// Config is what the subsystems are given.
type Config struct {
	Log *slog.Logger // nil: slog.Default

	// Enable are the names of those of Optional that there should be.
	Enable []string

	// Cpuset is cpuset's host. Nil: the real one.
	Cpuset cpuset.Host

	// CpusetRows keep what CPUs members had before. Nil: nothing does.
	CpusetRows tree.Rows

	// Cpuacct is cpuacct's host. Nil: the real one.
	Cpuacct cpuacct.Host

	// CpuacctRows keep how far tasks are credited. Nil: nothing does.
	CpuacctRows tree.Rows

	// NS is ns's host. Nil: the real one.
	NS ns.Host

	// Tasks are the tasks that numtasks may kill. Nil: none can be killed.
	Tasks numtasks.Tasks

	// FoundSince is the clock tick from which on a task that a look at the host finds was
	// forked while somebody looked, where the host tells of no forks. 0: it tells.
	FoundSince uint64

	// BC is bc's host. Nil: the real one.
	BC bc.Host

	// BCRows keep what rlimits processes had before. Nil: nothing does.
	BCRows tree.Rows

	// Kernel is how the kernel's controllers in Enable are opened. Its Names, Origins and
	// Log are All's to set.
	Kernel controller.Config

	// OriginRows keep where tasks came from that the kernel's controllers have. Nil:
	// nothing does.
	OriginRows tree.Rows
}

// Optional are the subsystems that there are only when they are asked for, and
// that are then not what `all` means.
var Optional = append([]string{"ns"}, controller.Names...)

// Names are the subsystems that All makes where these are enabled, in the order of their
// registration, which is that of callbacks, listings and canonical names.
func Names(enable []string) []string {
	names := []string{"cpuset", "cpuacct", "debug"}
	if slices.Contains(enable, "ns") {
		names = append(names, "ns")
	}
	names = append(names, "numtasks", "bc")
	for _, name := range controller.Names {
		if slices.Contains(enable, name) {
			names = append(names, name)
		}
	}
	return names
}

// Commands are what has to be written to a control file, one after the other, for it to show
// something in place of what it shows now.
func Commands(name, now, want string) []string { return controller.Commands(name, now, want) }

// AbsentError is All's for one of Enable that this kernel does not have.
type AbsentError = controller.AbsentError

// KernelFiles are the names of the files that those of Enable have which are the kernel's, as
// far as they can be seen without opening them: see controller.Look.
func KernelFiles(enable []string) map[string][]string { return controller.Look(enable) }

// Enforcer is a subsystem that has to look after the host: its effect wears off,
// or what it accounts changes, without any event that would tell. Call Enforce
// once a second (SPEC §11), from one goroutine, after tree.New.
type Enforcer interface{ Enforce() }

// Measurer is a subsystem that has counted less than it could. Call Measure before what it has
// counted is kept, as Enforce is called.
type Measurer interface{ Measure() }

// Factual is a subsystem that says what the host allows of it.
type Factual interface{ Facts() []string }

// All makes the subsystems, in the order of Names. Those that are Enforcers have to be
// called, those that are io.Closers to be closed when no change can come any more. An
// error says what of Enable this host lacks.
func All(cfg Config) ([]tree.Subsystem, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Cpuset == nil {
		cfg.Cpuset = cpuset.NewHost()
	}
	if cfg.Cpuacct == nil {
		cfg.Cpuacct = cpuacct.NewHost()
	}
	if cfg.NS == nil {
		cfg.NS = ns.NewHost()
	}
	if cfg.BC == nil {
		cfg.BC = bc.NewHost()
	}
	cfg.Kernel.Log = cfg.Log
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		cfg.Log.Warn("what earlier servers kept of tasks is not known, and nothing is kept of them", "err", err)
		cfg.OriginRows, cfg.CpusetRows, cfg.CpuacctRows, cfg.BCRows = nil, nil, nil, nil
	}
	if cfg.OriginRows != nil {
		cfg.Kernel.Origins = controller.OriginsIn(cfg.OriginRows, string(boot))
	}
	for _, name := range cfg.Enable {
		if slices.Contains(controller.Names, name) || slices.Contains(Enforced, name) {
			cfg.Kernel.Names = append(cfg.Kernel.Names, name)
		}
	}
	kernel, err := controller.Open(cfg.Kernel)
	if err != nil {
		return nil, err
	}
	tasks := numtasks.New(numtasks.NewHost(cfg.Tasks), cfg.Log)
	if cfg.FoundSince != 0 {
		tasks.JudgeFound(cfg.FoundSince)
	}
	counters := bc.New(cfg.BC, cfg.Log)
	counters.Remember(cfg.memory(cfg.BCRows, string(boot), "bc", "the rlimits that processes had before they were lowered are not known"))
	l := controller.NewLimits(kernel)
	if l.LimitsTasks() {
		tasks.LimitBy(bootTasks{l.ForNumtasks(), string(boot)})
	}
	if l.LimitsTasks() || l.LimitsMemory() {
		counters.LimitBy(l.ForBC(), l.LimitsTasks(), l.LimitsMemory())
	}
	l.Ask(tasks.Allows, counters.Allows)
	sets, accounts := cpuset.New(cfg.Cpuset, cfg.Log), cpuacct.New(cfg.Cpuacct, cfg.Log)
	if !slices.Contains(cfg.Kernel.Names, "cpuset") {
		sets.SayAlone(controller.Left("cpuset", cfg.Kernel.ID))
	}
	sets.Remember(cfg.memory(cfg.CpusetRows, string(boot), "cpuset", "the CPUs that tasks had before they became members are not known"))
	accounts.Remember(cfg.memory(cfg.CpuacctRows, string(boot), "cpuacct", "what tasks have run while there was no server is not counted"))
	made := map[string]tree.Subsystem{
		"cpuset": sets, "cpuacct": accounts, "debug": debug.Subsystem{}, "numtasks": tasks, "bc": counters,
	}
	for _, s := range kernel {
		switch s.Name() {
		case "cpuset":
			made["cpuset"] = newKernelCpuset(sets, s)
		case "cpuacct":
			made["cpuacct"] = newKernelCpuacct(accounts, s, string(boot))
		default:
			made[s.Name()] = s
		}
	}
	if slices.Contains(cfg.Enable, "ns") {
		made["ns"] = ns.New(cfg.NS, cfg.Log)
	}
	var all []tree.Subsystem
	for _, name := range Names(cfg.Enable) {
		all = append(all, made[name])
	}
	return all, nil
}

// everOnly is a number for what has one that is its own in a boot of the host only.
func everOnly(boot string, id uint64) uint64 {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64([]byte(boot), id))
	return h.Sum64()
}

// bootTasks are a numtasks.Limiter in a boot of the host.
type bootTasks struct {
	controller.Tasks
	boot string
}

// Refused is numtasks.Limiter's.
func (t bootTasks) Refused(c *tree.Container) (n, counter uint64, ok bool, err error) {
	n, directory, ok, err := t.Tasks.Refused(c)
	return n, everOnly(t.boot, directory), ok, err
}

// memory is what a subsystem keeps in rows, nil without. Where that cannot be read it
// says what is lost.
func (cfg *Config) memory(rows tree.Rows, boot, subsystem, lost string) *tree.Memory {
	if rows == nil {
		return nil
	}
	m, err := tree.NewMemory(rows, boot)
	if err != nil {
		cfg.Log.Warn(lost, "subsystem", subsystem, "err", err)
	}
	return m
}
