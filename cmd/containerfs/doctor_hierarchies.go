package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"containerfs/ops"
	"containerfs/ops/rules"
	"containerfs/subsys"
	"containerfs/tree"
)

// hierarchies looks whether the hierarchies that a server is asked for can be beside each
// other and beside those of its state directory, by what serve does: in a model that is on
// no host the state is restored, and they are mounted.
func (x *examination) hierarchies(conf config, refused string) {
	const check = "hierarchy"
	fs, t, err := bareModel(conf)
	if err != nil {
		x.add(statusWarning, check, err.Error(), "look again")
		return
	}
	defer func() { fs.Close() }()
	fresh, err := rehearse(conf, fs, t)
	whole := conf.NoHierarchies && !fresh // what the state holds is all that there will be
	switch {
	case err == nil && whole:
		x.ok(check, "%s of the state directory", counted(len(keptIn(t)), "hierarchy", "hierarchies"))
	case err != nil:
		x.add(statusWrong, check, err.Error(), refused)
		// What is wrong without the state, too, can be told.
		fs.Close()
		if fs, t, err = bareModel(conf); err != nil {
			return
		}
	}
	if whole {
		x.idleRules(conf, fs)
		return
	}
	kept := keptIn(t)
	for _, h := range conf.Hierarchies {
		if err := mountIn(fs, h); err != nil {
			x.add(statusWrong, check, strings.TrimPrefix(inTheWay(err, conf.State, h.Name, kept, conf.Hierarchies).Error(), check+" "), refused)
		} else {
			x.ok(check, "%s=%s", h.Name, h.Options)
		}
	}
	x.idleRules(conf, fs)
}

// idleRules looks for rules and templates that can do nothing with the hierarchies of fs, which
// are those that a server is asked for and those of its state directory.
func (x *examination) idleRules(conf config, fs *ops.FS) {
	if conf.Rules == "" {
		return
	}
	f, err := rules.Read(conf.Rules)
	if err != nil {
		x.add(statusWarning, "rules", err.Error(), "look again")
		return
	}
	before := len(x.findings)
	fs.IdleRules(f, conf.Templates, func(what string, args ...any) {
		for i := 0; i+1 < len(args); i += 2 {
			what += fmt.Sprintf(" %v=%v", args[i], args[i+1])
		}
		x.add(statusWarning, "rules", what, "it does nothing until the file says another, or somebody makes what it names")
	})
	if len(x.findings) == before {
		x.ok("rules", "what %s and %s name is there", counted(len(f.Rules), "rule", "rules"), counted(len(conf.Templates), "template", "templates"))
	}
}

// rehearse makes a model what a server's state directory says, as the server does at start,
// and reports whether nothing is kept there yet. What is wrong with the file itself is for
// stateFile to tell.
func rehearse(conf config, fs *ops.FS, t *tree.Tree) (fresh bool, err error) {
	if conf.State == "" {
		return true, nil
	}
	journal, err := ops.LookJournal(conf.State)
	if err != nil {
		return true, nil
	}
	done, err := fs.Rehearse(journal)
	return journal.State().Fresh, restoreError(conf.State, t, done, err)
}

// bareModel is a model with the subsystems that a server is to have, and nothing in it.
func bareModel(conf config) (*ops.FS, *tree.Tree, error) {
	kernel := subsys.KernelFiles(conf.Enable)
	var bare []tree.Subsystem
	for _, name := range subsys.Names(conf.Enable) {
		bare = append(bare, bareSubsystem{name, bareFiles(slices.Concat(ownFiles[name], kernel[name]))})
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	recorder := ops.NewRecorder(1)
	t, err := tree.New(tree.Config{Host: bareHost{}, Subsystems: bare, Observer: recorder, Log: log, CloneData: ops.CloneData})
	if err != nil {
		return nil, nil, fmt.Errorf("there is no model: %w", err)
	}
	return ops.New(ops.Config{
		Tree: t, Host: bareHost{}, Recorder: recorder, Log: log,
		AllowReleaseAgent: conf.AllowReleaseAgent, Apart: subsys.Optional,
	}), t, nil
}

// ownFiles are the names of files of theirs of which another subsystem can have one, which is
// seen without prefixes.
var ownFiles = map[string][]string{
	"cpuset":   {"cpus", "mems"},
	"cpuacct":  {"usage", "stat", "load"},
	"numtasks": {"shares", "stats", "limit", "policy"},
	"bc":       {"resources"},
}

func bareFiles(names []string) (files []tree.File) {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		files = append(files, tree.File{Name: name})
	}
	return files
}

// bareSubsystem is one of which there are only the names, its own and those of its files.
type bareSubsystem struct {
	name  string
	files []tree.File
}

func (s bareSubsystem) Name() string                             { return s.name }
func (s bareSubsystem) Files() []tree.File                       { return s.files }
func (bareSubsystem) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (bareSubsystem) Destroy(*tree.Container, tree.State)        {}

// bareHost is one without tasks.
type bareHost struct{}

func (bareHost) Task(int32) (tree.TaskInfo, error)           { return tree.TaskInfo{}, syscall.ESRCH }
func (bareHost) Owner(int32) (ruid, suid uint32, err error)  { return 0, 0, syscall.ESRCH }
func (bareHost) Tasks(int32, func(tree.TaskInfo) bool) error { return nil }
func (bareHost) Drain()                                      {}
func (bareHost) Now() int64                                  { return 0 }
