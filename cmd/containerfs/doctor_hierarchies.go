package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"

	"containerfs/ops"
	"containerfs/subsys"
	"containerfs/tree"
)

// hierarchies looks whether the hierarchies that a server is asked for can be beside each
// other, by mounting them in a model that is on no host.
func (x *examination) hierarchies(conf config, refused string) {
	const check = "hierarchy"
	fs, err := bareModel(conf)
	if err != nil {
		x.add(statusWarning, check, err.Error(), "look again")
		return
	}
	defer fs.Close()
	for _, h := range conf.Hierarchies {
		text := h.Name + "=" + h.Options
		if err := fs.Mount(h.Name, h.Options); err != nil {
			x.add(statusWrong, check, text+": "+err.Error(), refused)
		} else {
			x.ok(check, "%s", text)
		}
	}
}

// bareModel is a model with the subsystems that a server is to have, and nothing in it.
func bareModel(conf config) (*ops.FS, error) {
	var bare []tree.Subsystem
	for _, name := range slices.Concat(alwaysThere, conf.Enable) {
		if !slices.ContainsFunc(bare, func(s tree.Subsystem) bool { return s.Name() == name }) {
			bare = append(bare, bareSubsystem(name))
		}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	recorder := ops.NewRecorder(1)
	t, err := tree.New(tree.Config{Host: bareHost{}, Subsystems: bare, Observer: recorder, Log: log, CloneData: ops.CloneData})
	if err != nil {
		return nil, fmt.Errorf("there is no model: %w", err)
	}
	return ops.New(ops.Config{
		Tree: t, Host: bareHost{}, Recorder: recorder, Log: log,
		AllowReleaseAgent: conf.AllowReleaseAgent, Apart: subsys.Optional,
	}), nil
}

// alwaysThere are the subsystems that need not be enabled.
var alwaysThere = []string{"cpuset", "cpuacct", "debug", "numtasks", "bc"}

// bareSubsystem is one of which there is only the name.
type bareSubsystem string

func (s bareSubsystem) Name() string                             { return string(s) }
func (bareSubsystem) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (bareSubsystem) Destroy(*tree.Container, tree.State)        {}
func (bareSubsystem) Files() []tree.File                         { return nil }

// bareHost is one without tasks.
type bareHost struct{}

func (bareHost) Task(int32) (tree.TaskInfo, error)           { return tree.TaskInfo{}, syscall.ESRCH }
func (bareHost) Owner(int32) (ruid, suid uint32, err error)  { return 0, 0, syscall.ESRCH }
func (bareHost) Tasks(int32, func(tree.TaskInfo) bool) error { return nil }
func (bareHost) Drain()                                      {}
func (bareHost) Now() int64                                  { return 0 }
