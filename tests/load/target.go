package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// place is where a target is reached.
type place struct{ network, address string }

// target is a server that is measured.
type target struct {
	name    string
	aname   string
	process int // its pid
	places  []place
	pids    [][]byte // of the slots' processes

	stop func() error
}

// world is what all targets have containers for.
type world struct {
	dir      string // for sockets and mount points
	self     string // this program
	sleepers []*exec.Cmd
	big      [2]*exec.Cmd // with many threads each
	targets  []*target
}

// bigDirs are the containers with many children and as many threads.
var (
	bigDirs = [2]string{"1000", "10000"}
	bigSize = [2]int{1000, 10000}
)

// slotDir is a container of a slot's.
func slotDir(slot, i int) string { return fmt.Sprintf("slot%d.%d", slot, i) }

func newWorld() (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := retireLeftovers(); err != nil {
		return w, err
	}
	if w.self, err = os.Executable(); err != nil {
		return w, err
	}
	if w.dir, err = os.MkdirTemp("", "cfsload"); err != nil {
		return w, err
	}
	for range maxSlots {
		c := child(exec.Command("sleep", "100000"))
		if err := c.Start(); err != nil {
			return w, err
		}
		w.sleepers = append(w.sleepers, c)
	}
	for i, n := range bigSize {
		if w.big[i], _, err = w.sub("threads", strconv.Itoa(n)); err != nil {
			return w, err
		}
	}
	return w, nil
}

// child ends when this program does.
func child(c *exec.Cmd) *exec.Cmd {
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// sub starts this program for a part of its own and returns the line that it
// prints when it is ready. It goes on until its input ends.
func (w *world) sub(args ...string) (*exec.Cmd, string, error) {
	c := child(exec.Command(w.self, args...))
	if _, err := c.StdinPipe(); err != nil {
		return nil, "", err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.Start(); err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		kill(c)
		return nil, "", fmt.Errorf("%s: %w", args[0], err)
	}
	return c, strings.TrimSpace(line), nil
}

func kill(c *exec.Cmd) {
	if c != nil && c.Process != nil {
		c.Process.Kill()
		c.Wait()
	}
}

// close ends everything: tasks first, so that containers can go.
func (w *world) close() (err error) {
	for _, c := range w.sleepers {
		kill(c)
	}
	for _, c := range w.big {
		kill(c)
	}
	for _, t := range w.targets {
		err = errors.Join(err, t.stop())
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func (w *world) add(t *target) *target {
	for _, c := range w.sleepers {
		t.pids = append(t.pids, strconv.AppendInt(nil, int64(c.Process.Pid), 10))
	}
	w.targets = append(w.targets, t)
	return t
}

// threads has so many threads until the input ends.
func threads(n int) error {
	for {
		have := 0
		if err := eachThread(os.Getpid(), func(int) error { have++; return nil }); err != nil {
			return err
		}
		if have >= n {
			break
		}
		for range n - have {
			spareThread()
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// addFloor starts a floor: "floor", or "mover", which moves tasks in a hierarchy.
func (w *world) addFloor(name string) (*target, error) {
	sock := filepath.Join(w.dir, name)
	c, addr, err := w.sub(name, sock)
	if err != nil {
		return nil, err
	}
	return w.add(&target{
		name: name, process: c.Process.Pid,
		places: []place{{"tcp", addr}, {"unix", sock}},
		stop: func() error {
			kill(c)
			if name == "mover" {
				return retire(hierarchy(c.Process.Pid))
			}
			return nil
		},
	}), nil
}

// addContainerfs starts a containerfs and makes its containers.
func (w *world) addContainerfs(name, program string, args ...string) (*target, error) {
	sock := filepath.Join(w.dir, strings.ReplaceAll(name, " ", "-"))
	c := child(exec.Command(program, append([]string{"serve", "--hierarchy", "bench=" + subsystems,
		"--listen", "unix://" + sock, "--listen", "tcp://127.0.0.1:0?no_root_squash"}, args...)...))
	c.SysProcAttr.Pdeathsig = syscall.SIGTERM
	c.Stderr = nil
	stderr, err := c.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	t := w.add(&target{
		name: name, aname: "bench", process: c.Process.Pid,
		places: []place{{}, {"unix", sock}},
		stop: func() error {
			c.Process.Signal(syscall.SIGTERM)
			if err := c.Wait(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		},
	})
	in := bufio.NewScanner(stderr)
	for in.Scan() && in.Text() != "ready" {
		if at, ok := strings.CutPrefix(in.Text(), "listening on tcp://"); ok {
			at, _, _ = strings.Cut(at, "?")
			t.places[0] = place{"tcp", at}
		}
	}
	if t.places[0].address == "" {
		return nil, fmt.Errorf("%s: not ready: %v", name, in.Err())
	}
	go io.Copy(io.Discard, stderr)
	return t, w.prepare(t)
}

// prepare makes the containers of a containerfs.
func (w *world) prepare(t *target) error {
	k, err := dial(t.places[1], t.aname)
	if err != nil {
		return err
	}
	defer k.Close()
	do := func(request []byte) {
		if err == nil {
			k.out = request
			_, err = k.ask()
		}
	}
	for i := range maxSlots {
		do(appendMkdir(nil, 0, 0, slotDir(i, 0)))
		do(appendMkdir(nil, 0, 0, slotDir(i, 1)))
	}
	for i, dir := range bigDirs {
		do(appendMkdir(nil, 0, 0, dir))
		do(appendWalk(nil, 0, 0, 1, dir))
		for n := range bigSize[i] {
			do(appendMkdir(nil, 0, 1, fmt.Sprintf("child%d", n)))
		}
		do(appendWalk(nil, 0, 1, 2, "procs"))
		do(appendOpen(nil, 0, 2, 1))
		do(appendWrite(nil, 0, 2, strconv.AppendInt(nil, int64(w.big[i].Process.Pid), 10)))
		do(appendClunk(nil, 0, 2))
		do(appendClunk(nil, 0, 1))
	}
	if err != nil {
		return fmt.Errorf("%s: prepare: %w", t.name, err)
	}
	return nil
}

// addDiod starts diod on a hierarchy of the kernel's that only it sees.
func (w *world) addDiod() (*target, error) {
	mnt, sock := filepath.Join(w.dir, "cgroup"), filepath.Join(w.dir, "diod")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c := child(exec.Command(w.self, "diod", mnt, addr, sock))
	if err := c.Start(); err != nil {
		return nil, err
	}
	// What it has mounted is seen through it.
	seen := fmt.Sprintf("/proc/%d/root%s", c.Process.Pid, mnt)
	t := w.add(&target{
		name: "diod", aname: mnt, process: c.Process.Pid,
		places: []place{{"tcp", addr}, {"unix", sock}},
		stop: func() error {
			kill(c)
			return retire(hierarchy(c.Process.Pid))
		},
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		k, err := dial(t.places[1], t.aname)
		if err == nil {
			k.Close()
			break
		}
		if time.Since(began) > 10*time.Second {
			return nil, fmt.Errorf("diod does not answer: %w", err)
		}
	}
	for i := range maxSlots {
		for j := range 2 {
			err = errors.Join(err, os.Mkdir(filepath.Join(seen, slotDir(i, j)), 0o755))
		}
	}
	for i, dir := range bigDirs {
		dir = filepath.Join(seen, dir)
		err = errors.Join(err, os.Mkdir(dir, 0o755))
		for n := range bigSize[i] {
			err = errors.Join(err, os.Mkdir(fmt.Sprintf("%s/child%d", dir, n), 0o755))
		}
		err = errors.Join(err, os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(w.big[i].Process.Pid)), 0))
	}
	return t, err
}

// freeAddress is one where nobody listens.
func freeAddress() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port), nil
}

// execDiod mounts a hierarchy where nobody else sees it, and becomes diod.
func execDiod(mnt, addr, sock string) error {
	path, err := exec.LookPath("diod")
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("none", mnt, "cgroup", 0, "none,name="+hierarchy(os.Getpid())); err != nil {
		return fmt.Errorf("mount a cgroup hierarchy: %w", err)
	}
	return unix.Exec(path, []string{"diod", "--foreground", "--no-auth", "--no-userdb", "--config-file", "/dev/null",
		"--logdest", "/dev/null", "--listen", addr, "--listen", sock, "--export", mnt}, os.Environ())
}

const hierarchyPrefix = "containerfs-test-bench-"

// hierarchy is the name of a diod's.
func hierarchy(pid int) string { return hierarchyPrefix + strconv.Itoa(pid) }

// retire removes a hierarchy, whose tasks have been killed.
func retire(name string) error {
	root, err := kernfs.OpenNamed(name)
	if err != nil {
		return err
	}
	return kernfs.Retire(root, 20*time.Second)
}

// retireLeftovers removes the hierarchies of runs that were killed.
func retireLeftovers() error {
	names, err := kernfs.Names()
	for _, name := range names {
		if digits, ok := strings.CutPrefix(name, hierarchyPrefix); ok {
			if pid, bad := strconv.Atoi(digits); bad == nil && unix.Kill(pid, 0) == unix.ESRCH {
				err = errors.Join(err, retire(name))
			}
		}
	}
	return err
}

// subsystems are those of the hierarchy that is measured: one that does nothing on the
// host, as diod's hierarchy has no controller.
const subsystems = "debug"
