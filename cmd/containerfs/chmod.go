package main

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func chmodCommand() *cli.Command {
	return &cli.Command{
		Name:      "chmod",
		Usage:     "change modes of containers and control files",
		ArgsUsage: "MODE PATH...",
		Description: `MODE is octal up to 777, or changes with commas between them: for the owner (u), the
group (g), others (o) or all (a), what is added (+), taken away (-) or set (=) of read (r),
write (w) and, of containers, search permission (x).

  containerfs chmod 750 /all/alice
  containerfs chmod -R g+w,o= /all/alice`,
		Flags: []cli.Flag{recursiveFlag()},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, -1)
			if err != nil {
				return err
			}
			mode, err := parseModeChange(args[0])
			if err != nil {
				return err
			}
			return changeEach(c, args[1:], func(now p9.Attr) (p9.SetAttrMask, p9.SetAttr) {
				return p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: mode(now.Mode.Permissions())}
			})
		},
	}
}

// octalMode is a mode in digits.
func octalMode(text string) (p9.FileMode, bool) {
	bits, err := strconv.ParseUint(text, 8, 32)
	return p9.FileMode(bits), err == nil && bits <= 0o777
}

var modeClause = regexp.MustCompile(`^([ugoa]+)([-+=])([rwx]*)$`)

// parseModeChange says what becomes of a mode.
func parseModeChange(text string) (func(p9.FileMode) p9.FileMode, error) {
	if mode, ok := octalMode(text); ok {
		return func(p9.FileMode) p9.FileMode { return mode }, nil
	}
	type clause struct {
		op        string
		who, bits p9.FileMode
	}
	var clauses []clause
	for part := range strings.SplitSeq(text, ",") {
		m := modeClause.FindStringSubmatch(part)
		if m == nil {
			return nil, usagef("mode %q: want octal up to 777, or changes as u+w,go-rx", text)
		}
		who := modeLetters(m[1], map[rune]p9.FileMode{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777})
		bits := modeLetters(m[3], map[rune]p9.FileMode{'r': 0o444, 'w': 0o222, 'x': 0o111})
		clauses = append(clauses, clause{m[2], who, who & bits})
	}
	return func(mode p9.FileMode) p9.FileMode {
		for _, c := range clauses {
			switch c.op {
			case "+":
				mode |= c.bits
			case "-":
				mode &^= c.bits
			default:
				mode = mode&^c.who | c.bits
			}
		}
		return mode
	}, nil
}

func modeLetters(letters string, of map[rune]p9.FileMode) (bits p9.FileMode) {
	for _, l := range letters {
		bits |= of[l]
	}
	return bits
}
