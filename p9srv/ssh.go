package p9srv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SSH is what there is at the other end of an ssh connection: the command that passes on what
// it reads and writes to a server, as `containerfs proxy -` does. To the server a client is whom
// ssh logs in.
type SSH struct {
	Socket  string // of the server, absolute; "" for the one that the command takes by itself
	Command string // its path, or its name in what sshd has as PATH; "" for containerfs
}

// SSHReady is the line by which the command says, on standard error, that it has reached the
// server.
const SSHReady = "ready"

func sshAddr(s string) (Addr, error) {
	place, path, _ := strings.Cut(s, "/")
	a := Addr{Network: "ssh", Address: place}
	user, host, port := a.login()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return Addr{}, fmt.Errorf("port %q is no number of a port", port)
	}
	if !isSSHWord(host) || host == "" || strings.ContainsAny(host, "[]@") || strings.HasSuffix(host, ":") && host != "::" {
		return Addr{}, fmt.Errorf("%q is no host", host)
	}
	if !isSSHWord(user) {
		return Addr{}, fmt.Errorf("%q is no user", user)
	}
	if strings.Contains(place, "@") && user == "" {
		return Addr{}, errors.New("want ssh://[USER@]HOST[:PORT][/PATH]")
	}
	if path != "" {
		socket, err := unixURL("/" + path)
		if err != nil {
			return Addr{}, err
		}
		a.SSH.Socket = socket.Address
	}
	return a, nil
}

// isSSHWord reports whether ssh takes a word for what it is meant to be: not for an option, and
// not for more than a word in a shell of its configuration.
func isSSHWord(s string) bool {
	return isHost(s) && !strings.HasPrefix(s, "-") && !strings.ContainsAny(s, "'\"`$\\;<>|(){}!*~^%,")
}

// login takes the address apart.
func (a Addr) login() (user, host, port string) {
	host = a.Address
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		user, host = host[:at], host[at+1:]
	}
	if h, p, err := net.SplitHostPort(host); err == nil && p != "" {
		return user, h, p
	}
	return user, strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ""
}

// set takes an option if it is one of SSH.
func (s *SSH) set(o option) (known bool, err error) {
	if o.key != "command" {
		return false, nil
	}
	if o.value == "" {
		return true, errors.New("command= is empty")
	}
	s.Command = o.value
	return true, nil
}

func (s *SSH) options() []string {
	if s.Command == "" {
		return nil
	}
	return []string{"command=" + escapeValue(s.Command)}
}

// sshArgs are the arguments of ssh. What is a matter of the user's, as keys and names of
// hosts, is in his configuration; a command that he has there for his shell is not run.
func (a Addr) sshArgs() []string {
	user, host, port := a.login()
	args := []string{"-T", "-o", "ServerAliveInterval=15", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"}
	if port != "" {
		args = append(args, "-p", port)
	}
	if user != "" {
		args = append(args, "-l", user)
	}
	command := a.SSH.Command
	if command == "" {
		command = "containerfs"
	}
	remote := quoteShell(command) + " proxy -"
	if a.SSH.Socket != "" {
		remote += " " + quoteShell(Addr{Network: "unix", Address: a.SSH.Socket}.String())
	}
	return append(args, "--", host, remote)
}

// quoteShell makes one word of s for any shell.
func quoteShell(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// dialSSH runs ssh, and returns when the command at its other end has reached the server. The
// process ends with the connection.
func dialSSH(ctx context.Context, a Addr) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ssh"), os.NewFile(uintptr(pair[1]), "ssh")
	defer ours.Close()
	defer theirs.Close()
	words, stderr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	cmd := exec.Command("ssh", a.sshArgs()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, stderr
	if err := cmd.Start(); err != nil {
		words.Close()
		return nil, err
	}
	go func() {
		cmd.Wait()
		// A process that ssh leaves behind, for other connections, can have standard error open.
		time.Sleep(lastWords)
		words.Close()
	}()
	said := make(chan error, 1)
	go func() {
		said <- awaitSSH(words)
		io.Copy(io.Discard, words)
	}()
	select {
	case err = <-said:
	case <-ctx.Done():
		cmd.Process.Kill()
		err = fmt.Errorf("%w: %w", context.Cause(ctx), <-said)
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(ours)
}

// lastWords is how long after its end what ssh has said is waited for.
const lastWords = 200 * time.Millisecond

// maxSaid is what is kept of what ssh says.
const maxSaid = 4096

// awaitSSH reads what ssh and the command say until that is that it is ready. Else the error
// is what they have said.
func awaitSSH(words io.Reader) error {
	var said []byte
	lines := bufio.NewReaderSize(words, maxSaid)
	for {
		line, err := lines.ReadSlice('\n')
		line = bytes.TrimRight(line, "\r\n")
		if string(line) == SSHReady {
			return nil
		}
		if len(line) > 0 {
			said = append(append(said, "; "...), line...)
			said = said[max(0, len(said)-maxSaid):]
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	if said = bytes.TrimPrefix(said, []byte("; ")); len(said) == 0 {
		return errors.New("ssh ended without a word")
	}
	return fmt.Errorf("ssh: %s", said)
}
