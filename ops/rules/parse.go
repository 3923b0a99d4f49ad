package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a file.
const (
	MaxFile  = 1 << 20
	MaxLine  = 4096
	MaxRules = 4096
	maxPath  = 4095 // of a container
)

// File is rules that were read. It never changes.
type File struct {
	Name  string // of the file, for messages
	Rules []*Rule
}

// Rule is one line.
type Rule struct {
	Line int // its number in the file

	// User and Process are as written, of a % line those that it continues. An
	// empty Process is any.
	User, Process string

	Hierarchies []string
	Destination string // as written
	Ignore      bool
	Create      bool

	continues bool
	all       bool // hierarchies: *
	elements  []element
}

// element is a name in a destination.
type element []part

// part is a piece of it: text, or what a letter after % stands for.
type part struct {
	text string
	verb byte
}

// Read reads a file. Its errors name the file, and the line if it is about one.
func Read(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(name, text)
}

// LineError is what is wrong with a line of a file.
type LineError struct {
	Name string
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Name, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Parse reads the text of a file.
func Parse(name string, text []byte) (*File, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, MaxFile)
	}
	f := &File{Name: name}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fail := func(err error) (*File, error) { return nil, &LineError{name, n, err} }
		if len(line) > MaxLine {
			return fail(fmt.Errorf("longer than %d bytes", MaxLine))
		}
		line, _, _ = bytes.Cut(line, []byte("#"))
		fields := strings.FieldsFunc(string(line), isBlank)
		if len(fields) == 0 {
			continue
		}
		if len(f.Rules) == MaxRules {
			return fail(fmt.Errorf("more than %d rules", MaxRules))
		}
		r, err := parseRule(fields, f.Rules)
		if err != nil {
			return fail(err)
		}
		r.Line = n
		f.Rules = append(f.Rules, r)
	}
	return f, nil
}

// isBlank is isspace(3) in the C locale.
func isBlank(c rune) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func parseRule(fields []string, before []*Rule) (*Rule, error) {
	for _, f := range fields {
		if !utf8.ValidString(f) || strings.ContainsFunc(f, unicode.IsControl) {
			return nil, fmt.Errorf("%q has a character that cannot be printed", f)
		}
	}
	if n := len(fields); n < 3 || n > 4 {
		return nil, fmt.Errorf("%d fields; want USER[:PROCESS] HIERARCHIES DESTINATION [OPTIONS]", n)
	}
	r := &Rule{Destination: fields[2]}
	err := r.parseWho(fields[0], before)
	if err == nil {
		err = r.parseHierarchies(fields[1])
	}
	if err == nil {
		err = r.parseDestination()
	}
	if err == nil && len(fields) == 4 {
		err = r.parseOptions(fields[3])
	}
	return r, err
}

func (r *Rule) parseWho(field string, before []*Rule) error {
	user, process, named := strings.Cut(field, ":")
	if user == "%" {
		switch {
		case named:
			return errors.New("% has the user and the process of the line before, and none of its own")
		case len(before) == 0:
			return errors.New("% continues a line, and there is none before")
		}
		last := before[len(before)-1]
		r.User, r.Process, r.continues = last.User, last.Process, true
		return nil
	}
	switch {
	case user == "" || user == "@":
		return fmt.Errorf("%q names no user", field)
	case user[0] == '%' || user[0] == '*' && user != "*":
		return fmt.Errorf("%q: %c stands alone", user, user[0])
	}
	name, starred := strings.CutSuffix(process, "*")
	switch {
	case strings.Contains(name, "*"):
		return fmt.Errorf("process %q: a * can stand at the end only", process)
	case name != "" && name[0] != '/' && strings.Contains(name, "/"):
		return fmt.Errorf("process %q: want a name without /, or an absolute path", process)
	}
	if r.User, r.Process = user, process; starred && name == "" {
		r.Process = ""
	}
	return nil
}

func (r *Rule) parseHierarchies(field string) error {
	for name := range strings.SplitSeq(field, ",") {
		switch {
		case name == "": // as libcgroup has it
		case name == "*":
			r.all = true
		default:
			if err := checkHierarchy(name); err != nil {
				return err
			}
		}
		if name != "" && !slices.Contains(r.Hierarchies, name) {
			r.Hierarchies = append(r.Hierarchies, name)
		}
	}
	if len(r.Hierarchies) == 0 {
		return fmt.Errorf("%q names no hierarchy", field)
	}
	return nil
}

// checkHierarchy refuses what is no hierarchy's name, whatever is mounted.
func checkHierarchy(name string) error {
	if strings.ContainsFunc(name, func(c rune) bool {
		return !(c < utf8.RuneSelf && (unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("._-+", c)))
	}) {
		return fmt.Errorf("%q is no name of a hierarchy", name)
	}
	return nil
}

func (r *Rule) parseOptions(field string) error {
	for name := range strings.SplitSeq(field, ",") {
		switch name {
		case "":
		case "ignore":
			r.Ignore = true
		case "create":
			r.Create = true
		case "ignore_rt":
			return errors.New("option ignore_rt, which has libcgroup leave real-time tasks alone, is not supported")
		default:
			return fmt.Errorf("unknown option %q; want ignore or create", name)
		}
	}
	return nil
}

func (r *Rule) parseDestination() (err error) {
	if r.elements, err = parseElements(r.Destination); err != nil {
		return fmt.Errorf("destination %w", err)
	}
	// Whatever is put in, it cannot be right if it is wrong with a name there.
	_, err = r.path(func(byte) string { return "x" })
	return err
}

// parseElements takes a path apart, with or without slashes around it.
func parseElements(path string) (elements []element, err error) {
	var e element
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			e = append(e, part{text: text.String()})
			text.Reset()
		}
	}
	end := func() {
		if flush(); e != nil {
			elements = append(elements, e)
		}
		e = nil
	}
	for i := 0; i < len(path); i++ {
		escaped := path[i] == '\\'
		if escaped {
			i++
		}
		switch {
		case i == len(path):
			return nil, fmt.Errorf("%q ends in a backslash", path)
		case path[i] == '/':
			end()
		case path[i] == '%' && !escaped && i+1 < len(path) && strings.IndexByte(verbs, path[i+1]) >= 0:
			flush()
			i++
			e = append(e, part{verb: path[i]})
		default:
			text.WriteByte(path[i])
		}
	}
	end()
	return elements, nil
}

// String is the rule as a line of a file.
func (r *Rule) String() string {
	who := r.User
	if r.Process != "" {
		who += ":" + r.Process
	}
	if r.continues {
		who = "%"
	}
	line := who + "\t" + strings.Join(r.Hierarchies, ",") + "\t" + r.Destination
	var options []string
	if r.Ignore {
		options = append(options, "ignore")
	}
	if r.Create {
		options = append(options, "create")
	}
	if options != nil {
		line += "\t" + strings.Join(options, ",")
	}
	return line
}
