package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"containerfs/ops/rules"
	"containerfs/tree/hostproc"
)

// warnOfRules says where the rules will have a process moved from containers as soon as it
// executes a program: what was moved by hand stays until then only. Who may not read the
// rules is not warned.
func warnOfRules(stderr io.Writer, s *session, dirs []string, pid int32, name, program string) {
	file, err := s.rules()
	if err != nil || len(file.Rules) == 0 {
		return
	}
	id, err := hostproc.IdentityOf(pid)
	if err != nil {
		return
	}
	id.Exe, id.Comm = executed(program)
	t := &trial{s: s, file: file, subject: subjectOf(pid, id), places: make(map[string]string)}
	for _, dir := range dirs {
		names := split(dir)
		if len(names) == 0 {
			continue
		}
		hierarchy, place := names[0], "/"+strings.Join(names[1:], "/")
		t.places[hierarchy] = place
		t.decide(hierarchy, func(v verdict, _ string) error {
			if v.Stays || v.Missing || *v.Path == place {
				return nil
			}
			keep := ""
			if !strings.ContainsAny(place, " #") { // a rule cannot name it
				escaped := strings.NewReplacer(`\`, `\\`, "%", `\%`).Replace(place)
				keep = fmt.Sprintf("; a line `%s %s %s ignore` before it keeps it there", t.names.User(id.UID), hierarchy, escaped)
			}
			fmt.Fprintln(stderr, printable(fmt.Sprintf("containerfs: warning: line %d of the rules (%s) has %s moved from %s to %s as it is executed%s",
				*v.Line, *v.Rule, name, clean(dir), clean(hierarchy+*v.Path), keep)))
			return nil
		}, func(string) error { return nil })
	}
}

// maxInterpreters is how many scripts can be each other's interpreters.
const maxInterpreters = 5

// executed is what /proc will show as the executed file and the name of a process that
// executes a program.
func executed(program string) (exe, comm string) {
	comm = path.Base(program)
	comm = comm[:min(len(comm), rules.MaxComm)]
	for range maxInterpreters {
		interpreter, err := interpreterOf(program)
		if err != nil || interpreter == "" {
			break
		}
		program = interpreter
	}
	exe, err := filepath.EvalSymlinks(program)
	if err == nil {
		exe, err = filepath.Abs(exe)
	}
	if err != nil {
		return "", comm
	}
	return exe, comm
}

// interpreterOf is the program that reads a script, "" of what is none.
func interpreterOf(program string) (string, error) {
	f, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const longest = 256 // as the kernel has it
	line, err := bufio.NewReaderSize(io.LimitReader(f, longest), longest).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	words, ok := strings.CutPrefix(line, "#!")
	if fields := strings.Fields(words); ok && len(fields) > 0 {
		return fields[0], nil
	}
	return "", nil
}
