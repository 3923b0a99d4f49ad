package tests

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// doctor are the lines that doctor says of a server, and whether all is well.
func (s *server) doctor(args ...string) (lines string, well bool) {
	s.t.Helper()
	code, out, errs := s.command(append([]string{"doctor"}, args...)...)
	if code > 1 || errs != "" {
		s.t.Fatalf("doctor: exit code %d\n%s", code, errs)
	}
	return out, code == 0
}

// TestDoctorState: of a running server the state directory is found that it has, from
// wherever doctor is run.
func TestDoctorState(t *testing.T) {
	dir := t.TempDir()
	s := startServerAs(t, func(c *exec.Cmd) { c.Dir = dir }, "--state", "kept")
	state := filepath.Join(dir, "kept")
	got, well := s.doctor()
	for _, want := range []string{
		"ok       state: new\n", "ok       state directory: " + state + " has the mode 0700\n", "ok       state: " + state + "/state.db is whole, with ",
		fmt.Sprintf("ok       process: %d\n", s.cmd.Process.Pid),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if !well {
		t.Errorf("something is wrong:\n%s", got)
	}

	// For another server it is taken, and that there is none yet is no mistake of the file's.
	file := filepath.Join(dir, "config.toml")
	writeFile(t, file, "state = \""+state+"\"\n")
	c := exec.Command("containerfs", "--server", "unix://"+dir+"/none", "doctor", "--config", file)
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CONTAINERFS_STATE=") })
	out, _ := c.Output()
	if want := fmt.Sprintf("warning  state: %s is in use by process %d, another server; ", state, s.cmd.Process.Pid); c.ProcessState.ExitCode() != 0 || !strings.Contains(string(out), want) || !strings.HasPrefix(string(out), "warning  server: ") {
		t.Errorf("%v, no %q in\n%s", c.ProcessState, want, out)
	}
	writeFile(t, file, "state = \""+state+"\"\nrules = \"/nosuch\"\n")
	c = exec.Command(c.Args[0], c.Args[1:]...)
	if out, _ := c.Output(); c.ProcessState.ExitCode() != 1 {
		t.Errorf("rules that are not there: %v\n%s", c.ProcessState, out)
	}

	// Nor is it forgotten where no server answers and no file is named.
	c = exec.Command("containerfs", "--server", "unix://"+dir+"/none", "doctor")
	c.Env = append(os.Environ(), "CONTAINERFS_STATE="+state)
	if out, _ := c.Output(); c.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "ok       state: "+state+"/state.db is whole, with ") {
		t.Errorf("without a server: %v\n%s", c.ProcessState, out)
	}

	os.Chmod(state, 0o777)
	if got, well := s.doctor(); well || !strings.Contains(got, "wrong    state directory: "+state+" has the mode 0777: others can put another state there; chmod 700 it\n") {
		t.Errorf("open to others:\n%s", got)
	}
	os.Chmod(state, 0o700)
	if got, well := s.doctor(); !well {
		t.Errorf("closed again:\n%s", got)
	}
	os.Remove(state + "/state.db")
	if got, well := s.doctor(); well || !strings.Contains(got, "wrong    state: "+state+"/state.db was removed: what is changed now does not outlive the server; ") {
		t.Errorf("without the file:\n%s", got)
	}

	none := startServer(t)
	if got, well := none.doctor(); !well || !strings.Contains(got, "ok       state: none, everything ends with the server\n") || strings.Contains(got, "state directory") {
		t.Errorf("without state:\n%s", got)
	}
}

// TestDoctorFiles: files that decide who comes in, and where processes go, are nobody
// else's to write. Names are from where the server is.
func TestDoctorFiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/config.toml", "rules = \"rules.conf\"\n")
	writeFile(t, dir+"/rules.conf", "64001 all x\n")
	s := startServerAs(t, func(c *exec.Cmd) { c.Dir = dir }, "--config", "config.toml")
	for _, tt := range []struct {
		file, check string
		mode        os.FileMode
		status      string
	}{
		{"config.toml", "config", 0o644, "ok      "}, {"config.toml", "config", 0o664, "wrong   "},
		{"rules.conf", "rules", 0o644, "ok      "}, {"rules.conf", "rules", 0o646, "wrong   "},
	} {
		path := filepath.Join(dir, tt.file)
		os.Chmod(path, tt.mode)
		got, well := s.doctor()
		if want := fmt.Sprintf("%s %s: ", tt.status, tt.check); !strings.Contains(got, want) || well != (tt.mode == 0o644) || !strings.Contains(got, fmt.Sprintf("%s has the mode %04o", tt.file, tt.mode)) {
			t.Errorf("%s with %04o: no %q in\n%s", tt.file, tt.mode, want, got)
		}
		os.Chmod(path, 0o644)
	}
}

// TestDoctorSockets: the sockets that a service manager has passed are looked at as
// those of the server's own, and those that nobody listens on are told.
func TestDoctorSockets(t *testing.T) {
	dir := openDir(t)
	path := dir + "/9p.sock"
	l, err := net.Listen("unix", path)
	passed := inherit(t, l, err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	loopback := inherit(t, tcp, err)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	unused := inherit(t, other, err)
	names, files := []string{"containerfs.socket", "net", "other"}, []*os.File{passed, loopback, unused}

	s := startServerAs(t, pass(names[:2], files[:2]), "--listen", "systemd:containerfs.socket", "--listen", "systemd:net?as=daemon")
	got, well := s.doctor()
	for _, want := range []string{
		fmt.Sprintf("ok       process: %d\n", s.cmd.Process.Pid),
		"ok       listener: the socket containerfs.socket of the service manager: unix://" + path + "\n",
		"ok       socket: " + path + ", in a directory with the mode 0755\n",
		"ok       listener: the socket net of the service manager: tcp://" + tcp.Addr().String() + "?as=daemon\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if !well {
		t.Errorf("something is wrong:\n%s", got)
	}
	// The same by the socket, whose other end is not the server's for the kernel.
	passedOn := &server{t: t, sock: path}
	if again, _ := passedOn.doctor(); !strings.Contains(again, fmt.Sprintf("ok       process: %d\n", s.cmd.Process.Pid)) {
		t.Errorf("by the socket that was passed:\n%s", again)
	}
	s.stop()

	os.Chmod(dir, 0o777)
	s = startServerAs(t, pass(names, files), "--listen", "systemd:containerfs.socket", "--listen", "systemd:net?no_root_squash")
	got, well = s.doctor()
	for _, want := range []string{
		"wrong    socket: its directory " + dir + " has the mode 0777: others can put another there; ",
		"warning  root squash: tcp://" + tcp.Addr().String() + " lets root stay root: ",
		"wrong    listener: the socket other of the service manager (tcp://" + other.Addr().String() + ") is not listened on: its clients wait for ever; ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if well {
		t.Errorf("all is well:\n%s", got)
	}

	// What a file says of them is not known without a server that has them.
	file := filepath.Join(dir, "config.toml")
	writeFile(t, file, "[[listen]]\naddr = \"systemd:net\"\nas = \"daemon\"\n")
	got, _ = s.doctor("--config", file)
	if want := "warning  listener: systemd:net takes what the service manager passes, which only a server has; "; !strings.Contains(got, want) || strings.Contains(got, "wrong    config") {
		t.Errorf("no %q in\n%s", want, got)
	}
}

// TestDoctorAmongUsers: who calls himself a server, and has what only looks like a state and the
// server's port, does not keep root from the server's process, nor doctor from its end.
func TestDoctorAmongUsers(t *testing.T) {
	s := startServer(t)
	dir := openDir(t)
	fifo := dir + "/state.db"
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	l, err := net.Listen("tcp6", "[::]:"+s.port) // which others can, too
	if err != nil {
		t.Skip(err)
	}
	c := exec.Command("sh", "-c", `exec 9<>"$0" && echo open && read end`, fifo, "serve")
	c.Args[0] = "containerfs"
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64001, Gid: 64001}}
	c.ExtraFiles = []*os.File{inherit(t, l, nil)}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("%q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := exec.CommandContext(ctx, "containerfs", "--server", "tcp://127.0.0.1:"+s.port, "doctor").CombinedOutput()
	if want := fmt.Sprintf("ok       process: %d\n", s.cmd.Process.Pid); ctx.Err() != nil || !strings.Contains(string(got), want) {
		t.Errorf("%v, want %q in\n%s", err, want, got)
	}
}
