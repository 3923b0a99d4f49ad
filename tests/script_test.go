package tests

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the scenarios in script/, each with a server of its own.
// Beside testscript's commands they have
//
//	serve ARG...            start the server; the containerfs command finds it
//	code N containerfs ...  run a command, which must exit with code N
//	process NAME            start a process of this host, with its pid in $NAME
//	fork NAME CHILD         have it fork a child, with its pid in $CHILD
//	end NAME                end it and its children
//	affinity PID CPUS       check where a process may run
//	shutdown                end the server
//
// serve puts the addresses of its listeners in $LISTENER0 and so on: a unix socket,
// a TCP port that is root's, and those of ARG; its pid in $SERVER, and that of the test,
// which has started it, in $SERVER_PARENT.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CONTAINERFS_STATE", "none")
			env.Values["t"] = env.T()
			env.Values["processes"] = map[string]*spawner{}
			env.Values["servers"] = map[string]*server{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":    scriptServe,
			"code":     scriptCode,
			"process":  scriptProcess,
			"fork":     scriptFork,
			"end":      scriptEnd,
			"affinity": scriptAffinity,
			"shutdown": scriptShutdown,
		},
	})
}

// scriptArgs checks a command's use and returns the test that it is part of.
func scriptArgs(ts *testscript.TestScript, neg bool, args []string, min, max int) testing.TB {
	if neg || len(args) < min || (max >= 0 && len(args) > max) {
		ts.Fatalf("bad use of a command; see TestScript")
	}
	return ts.Value("t").(testing.TB)
}

// process is the one that `process NAME` started.
func process(ts *testscript.TestScript, name string) *spawner {
	p := ts.Value("processes").(map[string]*spawner)[name]
	if p == nil {
		ts.Fatalf("no process %s", name)
	}
	return p
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	t := scriptArgs(ts, neg, args, 0, -1)
	s := startServer(t, args...)
	ts.Setenv("CONTAINERFS_SERVER", "unix://"+s.sock)
	ts.Setenv("SERVER", strconv.Itoa(s.cmd.Process.Pid))
	ts.Setenv("SERVER_PARENT", strconv.Itoa(os.Getpid()))
	n := 0
	for line := range strings.Lines(s.log.String()) {
		if addr, ok := strings.CutPrefix(line, "listening on "); ok {
			addr, _, _ = strings.Cut(strings.TrimSpace(addr), "?")
			ts.Setenv("LISTENER"+strconv.Itoa(n), addr)
			n++
		}
	}
	ts.Value("servers").(map[string]*server)["last"] = s
}

func scriptShutdown(ts *testscript.TestScript, neg bool, args []string) {
	scriptArgs(ts, neg, args, 0, 0)
	ts.Value("servers").(map[string]*server)["last"].stop()
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	t := scriptArgs(ts, neg, args, 2, -1)
	want := number(t, args[0])
	got := 0
	// A server that should have refused to start would run for ever.
	if err := ts.Exec("timeout", append([]string{"20"}, args[1:]...)...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptProcess(ts *testscript.TestScript, neg bool, args []string) {
	t := scriptArgs(ts, neg, args, 1, 1)
	p := startSpawner(t)
	ts.Value("processes").(map[string]*spawner)[args[0]] = p
	ts.Setenv(args[0], strconv.Itoa(p.pid()))
}

func scriptFork(ts *testscript.TestScript, neg bool, args []string) {
	scriptArgs(ts, neg, args, 2, 2)
	ts.Setenv(args[1], strconv.Itoa(process(ts, args[0]).fork()))
}

func scriptEnd(ts *testscript.TestScript, neg bool, args []string) {
	scriptArgs(ts, neg, args, 1, 1)
	process(ts, args[0]).kill()
}

func scriptAffinity(ts *testscript.TestScript, neg bool, args []string) {
	t := scriptArgs(ts, neg, args, 2, 2)
	pid := number(t, args[0])
	if got := cpusAllowed(t, pid, pid); got != args[1] {
		ts.Fatalf("%d may run on %s", pid, got)
	}
}
