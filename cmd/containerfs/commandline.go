package main

import (
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// interspersed are the commands whose flags may stand behind their arguments. In
// others an argument can begin with a dash: a value, or a command to be run.
var interspersed = map[string]bool{
	"apply": true, "attach": true, "chmod": true, "chown": true, "doctor": true, "get": true, "ls": true, "mounts": true, "ps": true,
	"rmdir": true, "save": true, "stat": true, "subsystems": true, "top": true, "tree": true, "wait": true, "watch": true,
}

// flagsFirst puts the flags of such a command in front of its arguments, which is
// where the library looks for them, and takes apart what is written as -bn1.
func flagsFirst(a *cli.App, args []string) []string {
	at := commandIndex(a, args)
	if at < 0 {
		return args
	}
	command := a.Command(args[at])
	if len(command.Subcommands) > 0 && at+1 < len(args) {
		i := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.Name == args[at+1] })
		if i < 0 {
			return args
		}
		command = command.Subcommands[i]
		at++
	} else if !interspersed[args[at]] {
		return args
	}
	args = append(slices.Clone(args[:at+1]), shortFlags(command.Flags, args[at+1:])...)
	var flags, rest []string
	for i := at + 1; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case strings.HasPrefix(arg, "-") && arg != "-":
			flags = append(flags, arg)
			if !takesValue(command.Flags, arg) {
				break
			}
			if i++; i == len(args) {
				return append(args[:at+1], flags...) // which is said: the -- below is no value
			}
			flags = append(flags, args[i])
		default:
			rest = append(rest, arg)
		}
	}
	return slices.Concat(args[:at+1], flags, []string{"--"}, rest)
}

// shortFlags takes flags of one letter apart that are written together, the last one
// with its value behind it, if all of them are known.
func shortFlags(flags []cli.Flag, args []string) (apart []string) {
	for i, arg := range args {
		if arg == "--" {
			return append(apart, args[i:]...)
		}
		if letters := strings.TrimPrefix(arg, "-"); len(arg) > 2 && len(letters) == len(arg)-1 && letters[0] != '-' &&
			!strings.Contains(arg, "=") && !hasFlag(flags, letters) {
			if split, ok := splitFlags(flags, letters); ok {
				apart = append(apart, split...)
				continue
			}
		}
		apart = append(apart, arg)
	}
	return apart
}

func splitFlags(flags []cli.Flag, letters string) (split []string, ok bool) {
	for i := range letters {
		flag := letters[i : i+1]
		if !hasFlag(flags, flag) {
			return nil, false
		}
		split = append(split, "-"+flag)
		if takesValue(flags, flag) {
			if rest := letters[i+1:]; rest != "" {
				split = append(split, rest)
			}
			break
		}
	}
	return split, true
}

func hasFlag(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// commandIndex is where the command's name is, or negative.
func commandIndex(a *cli.App, args []string) int {
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; {
		case !strings.HasPrefix(arg, "-"):
			if a.Command(arg) == nil {
				return -1
			}
			return i
		case takesValue(a.Flags, arg):
			i++
		}
	}
	return -1
}

// takesValue reports whether the value of a flag is the argument behind it.
func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

// duration is the value of a flag that is a number of seconds, or a time with its unit;
// 0 for none.
func duration(c *cli.Context, flag string) (time.Duration, error) {
	text := c.String(flag)
	if text == "" && !c.IsSet(flag) {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	switch {
	case err != nil:
		return 0, usagef("%s: %q: want seconds, or a time as 500ms or 5m", flag, text)
	case d < 0:
		return 0, usagef("%s: a time cannot be negative", flag)
	}
	return d, nil
}

// nearestCommand is the command that a misspelt name is meant to be, if one is near
// enough.
func nearestCommand(commands []*cli.Command, name string) (nearest string) {
	best := max(1, len(name)/3) + 1 // as many mistakes are too many
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		if d := distance(c.Name, name); d < best {
			nearest, best = c.Name, d
		}
	}
	return nearest
}

// distance is how many letters one word differs from another in: left out, put in,
// changed, or swapped with the next.
func distance(a, b string) int {
	rows := [3][]int{}
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
