package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/ops/store"
	"containerfs/p9srv"
)

// serverProcess finds the process behind an address, with its command line. Who is at
// the other end of a unix socket is who has made it, which can be a service manager. Any
// user can call himself a server, and in namespaces of his own have a socket at any path: of
// several processes it is root's or ours.
func serverProcess(ctx context.Context, addr string) (int, []string) {
	a, err := p9srv.ParseAddr(addr)
	if err != nil {
		return 0, nil
	}
	if a.Network == "unix" {
		if pid := socketServer(ctx, a); pid > 0 {
			if args := serveArgs(pid); args != nil {
				return pid, args
			}
		}
	}
	inodes := listeningAt(a)
	var found, holding []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || serveArgs(pid) == nil {
			continue
		}
		found = append(found, pid)
		if slices.ContainsFunc(openFiles(pid), func(name string) bool { return inodes[name] }) {
			holding = append(holding, pid)
		}
	}
	if len(holding) > 0 {
		found = holding
	}
	if len(found) > 1 {
		found = slices.DeleteFunc(found, func(pid int) bool { return !isTrusted(pid) })
	}
	if len(found) != 1 {
		return 0, nil // which of them it is cannot be said
	}
	return found[0], serveArgs(found[0])
}

// listeningAt are the sockets that listen at an address, named as /proc/PID/fd does.
func listeningAt(a p9srv.Addr) map[string]bool {
	found := make(map[string]bool)
	table := func(name string, inode int, fits func(fields []string) bool) {
		text, _ := os.ReadFile("/proc/net/" + name)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > inode && fits(f) {
				found["socket:["+f[inode]+"]"] = true
			}
		}
	}
	switch a.Network {
	case "unix":
		const accepts = 1 << 16
		table("unix", 6, func(f []string) bool {
			flags, err := strconv.ParseUint(f[3], 16, 32)
			return err == nil && flags&accepts != 0 && len(f) > 7 && f[7] == a.Address
		})
	case "tcp", "tls":
		at, err := net.ResolveTCPAddr("tcp", a.Address)
		if err != nil {
			break
		}
		for _, name := range []string{"tcp", "tcp6"} {
			const listen = "0A"
			table(name, 9, func(f []string) bool { return f[3] == listen && overlaps(f[1], at) })
		}
	}
	return found
}

// overlaps reports whether a connection to an address can be one to another, as /proc/net
// has that: hexadecimal, in words of the host. An address of IPv4 is one of IPv6 only where
// that is all of them: [::] takes connections over both, and so does no host at all. (A
// socket with IPV6_V6ONLY, which we make none of, is not told from others there.)
func overlaps(local string, at *net.TCPAddr) bool {
	host, port, _ := strings.Cut(local, ":")
	if n, err := strconv.ParseUint(port, 16, 16); err != nil || int(n) != at.Port {
		return false
	}
	ip, err := hex.DecodeString(host)
	if err != nil {
		return false
	}
	for word := range slices.Chunk(ip, 4) {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	theirs, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	ours, ok := netip.AddrFromSlice(at.IP)
	if !ok {
		ours = netip.IPv6Unspecified()
	}
	theirs, ours = theirs.Unmap(), ours.Unmap()
	switch {
	case theirs == netip.IPv6Unspecified() || ours == netip.IPv6Unspecified():
		return true
	case theirs.Is4() != ours.Is4():
		return false
	}
	return theirs.IsUnspecified() || ours.IsUnspecified() || theirs == ours
}

// openFiles are the names of what a process has open, as far as we may see them.
func openFiles(pid int) (names []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// stateOf is the state directory that a process has open, "" for none.
func stateOf(pid int) string {
	for _, name := range openFiles(pid) {
		if dir, file := filepath.Split(strings.TrimSuffix(name, " (deleted)")); file == store.FileName {
			return filepath.Clean(dir)
		}
	}
	return ""
}

// environment is that which a process was started with.
func environment(pid int) (map[string]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, err
	}
	env := make(map[string]string)
	for line := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		env[key] = value
	}
	return env, nil
}

// statusOf are the fields of a line of a process's status.
func statusOf(pid int, key string) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(rest), nil
		}
	}
	return nil, err
}

// userOf is a process's effective user.
func userOf(pid int) (uid int, ok bool) {
	fields, err := statusOf(pid, "Uid") // real, effective, saved, of files
	if err != nil || len(fields) < 2 {
		return 0, false
	}
	uid, err = strconv.Atoi(fields[1])
	return uid, err == nil
}

// isTrusted reports whether a process is root's or ours by all its users: one of a setuid
// program is its caller's as well, who says how it is called and what it has open.
func isTrusted(pid int) bool {
	uids, err := statusOf(pid, "Uid")
	return err == nil && len(uids) > 0 && !slices.ContainsFunc(uids, func(uid string) bool {
		return uid != "0" && uid != strconv.Itoa(os.Geteuid())
	})
}

// passedTo are the sockets that a service manager has passed to a process of this
// environment, as sd_listen_fds(3) says, in copies for us to close.
func passedTo(pid int, env map[string]string) (list []socket, err error) {
	n, err := strconv.Atoi(env["LISTEN_FDS"])
	if err != nil || env["LISTEN_PID"] != strconv.Itoa(pid) {
		return nil, nil
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, &os.PathError{Op: "pidfd_open", Path: strconv.Itoa(pid), Err: err}
	}
	defer unix.Close(process)
	names := strings.Split(env["LISTEN_FDNAMES"], ":")
	const first = 3
	for i := range n {
		fd, err := unix.PidfdGetfd(process, first+i, 0)
		if err != nil {
			closeSockets(list)
			return nil, &os.PathError{Op: "pidfd_getfd", Path: fmt.Sprintf("/proc/%d/fd/%d", pid, first+i), Err: err}
		}
		name := "LISTEN_FD_" + strconv.Itoa(first+i)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		s := socket{name: name, file: os.NewFile(uintptr(fd), name)}
		s.addr, s.err = p9srv.SocketAddr(s.file)
		list = append(list, s)
	}
	return list, nil
}

func closeSockets(list []socket) {
	for _, s := range list {
		if s.file != nil {
			s.file.Close()
		}
	}
}

func socketServer(ctx context.Context, a p9srv.Addr) int {
	conn, err := a.Dial(ctx)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// serveArgs is the command line of a process that is a `containerfs serve`, else nil.
func serveArgs(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	if filepath.Base(args[0]) != "containerfs" || !slices.Contains(args, "serve") {
		return nil
	}
	return args
}
