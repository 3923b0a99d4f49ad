package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"containerfs/subsys"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print what a shell needs to complete command lines",
		ArgsUsage: "bash",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 1)
			if err != nil {
				return err
			}
			if args[0] != "bash" {
				return usagef("completion: no shell %q; want bash", args[0])
			}
			_, err = fmt.Fprint(c.App.Writer, bashCompletion(c.App))
			return err
		},
	}
}

// bashCompletion is a script that needs no other program than containerfs itself, which
// it asks for what is in the server's directories.
func bashCompletion(a *cli.App) string {
	var b strings.Builder
	b.WriteString("# bash completion for containerfs, made by `containerfs completion bash`.\n")
	b.WriteString(bashFunctions)
	b.WriteString("\n_containerfs_options() {\n\tcase $1 in\n")
	fmt.Fprintf(&b, "\t'') echo %s ;;\n", bashWords(flagWords(a.Flags)))
	eachCommand(a, func(name string, c *cli.Command) {
		fmt.Fprintf(&b, "\t%s) echo %s ;;\n", bashWord(name), bashWords(flagWords(c.Flags)))
	})
	b.WriteString("\tesac\n}\n\n# The flags that take a value.\n_containerfs_values() {\n\tcase $1 in\n")
	fmt.Fprintf(&b, "\t'') echo %s ;;\n", bashWords(valueWords(a.Flags)))
	eachCommand(a, func(name string, c *cli.Command) {
		fmt.Fprintf(&b, "\t%s) echo %s ;;\n", bashWord(name), bashWords(valueWords(c.Flags)))
	})
	b.WriteString("\tesac\n}\n\n_containerfs_commands() {\n\tcase $1 in\n")
	fmt.Fprintf(&b, "\t''|help) echo %s ;;\n", bashWords(commandWords(a.VisibleCommands())))
	eachCommand(a, func(name string, c *cli.Command) {
		if words := commandWords(c.VisibleCommands()); len(words) > 0 {
			fmt.Fprintf(&b, "\t%s) echo %s ;;\n", bashWord(name), bashWords(words))
		}
	})
	b.WriteString("\tesac\n}\n\n# The commands whose arguments are paths of the server.\n_containerfs_paths() {\n\tcase $1 in\n")
	var served []string
	eachCommand(a, func(name string, c *cli.Command) {
		if takesPaths(c.ArgsUsage) {
			served = append(served, bashWord(name))
		}
	})
	fmt.Fprintf(&b, "\t%s) return 0 ;;\n\tesac\n\treturn 1\n}\n", strings.Join(served, "|"))
	fmt.Fprintf(&b, "\n# Those that take containers only.\n_containerfs_containers() {\n\tcase $1 in\n\t%s) return 0 ;;\n\tesac\n\treturn 1\n}\n", strings.Join(takeContainers, "|"))
	b.WriteString("\n# The values of flags of which there are a few.\n_containerfs_choices() {\n\tcase $1 in\n")
	for _, f := range choices {
		fmt.Fprintf(&b, "\t%s) echo %s ;;\n", bashWord(f.flag), bashWords(f.values))
	}
	b.WriteString("\tesac\n}\n")
	b.WriteString("\n# The commands with names of control files behind a container: what these must be open\n# for, and what follows them.\n_containerfs_names() {\n\tcase $1 in\n")
	eachCommand(a, func(name string, c *cli.Command) {
		switch {
		case strings.Contains(c.ArgsUsage, "PATH NAME="):
			fmt.Fprintf(&b, "\t%s) echo 'w=' ;;\n", bashWord(name))
		case strings.Contains(c.ArgsUsage, "PATH [NAME]"):
			fmt.Fprintf(&b, "\t%s) echo 'r ' ;;\n", bashWord(name))
		}
	})
	b.WriteString("\tesac\n}\n\ncomplete -F _containerfs containerfs\n")
	return b.String()
}

// takesPaths reports whether a command's arguments, not only the values of its flags, are
// paths of the server.
func takesPaths(usage string) bool {
	flag := false
	for word := range strings.FieldsSeq(usage) {
		if word = strings.Trim(word, "[]."); word == "PATH" && !flag || word == "OLD" {
			return true
		}
		flag = strings.HasPrefix(word, "-") && word != "--"
	}
	return false
}

var takeContainers = []string{"attach", "freeze", "kill", "mkdir", "mv", "rmdir", "save", "thaw", "top", "tree", "wait", "watch"}

var choices = []struct {
	flag   string
	values []string
}{
	{"serve --enable", slices.Concat(subsys.Optional, subsys.Enforced)},
	{"serve --log-format", []string{"text", "json"}},
	{"serve --log-level", slices.Sorted(maps.Keys(logLevels))},
	{"serve --mirror", mirrors},
	{"top --sort", slices.Sorted(maps.Keys(sortOrders))},
	{"watch --kind", eventKinds},
}

// eachCommand calls f for the commands that are shown and their subcommands, by their
// whole names.
func eachCommand(a *cli.App, f func(name string, c *cli.Command)) {
	var each func(prefix string, list []*cli.Command)
	each = func(prefix string, list []*cli.Command) {
		for _, c := range list {
			if c.Name == "help" {
				continue
			}
			f(prefix+c.Name, c)
			each(prefix+c.Name+" ", c.VisibleCommands())
		}
	}
	each("", a.VisibleCommands())
}

func commandWords(list []*cli.Command) (words []string) {
	for _, c := range list {
		words = append(words, c.Name)
	}
	return words
}

func flagWords(flags []cli.Flag) (words []string) {
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		for _, n := range f.Names() {
			words = append(words, dashed(n))
		}
	}
	return words
}

func valueWords(flags []cli.Flag) (words []string) {
	for _, f := range flags {
		if d, ok := f.(cli.DocGenerationFlag); ok && d.TakesValue() {
			words = append(words, flagWords([]cli.Flag{f})...)
		}
	}
	return words
}

func bashWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func bashWords(words []string) string { return bashWord(strings.Join(words, " ")) }

// bash takes words apart at : and =, which are in addresses, so the line is looked at
// whole. A server that does not answer must not hold the prompt.
const bashFunctions = `
_containerfs() {
	local words cur command= server= word skip= path= rest= container=
	read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
	if [[ ${COMP_LINE:0:COMP_POINT} == *" " ]]; then
		cur=
	else
		cur=${words[-1]}
		unset 'words[-1]'
	fi
	COMPREPLY=()
	for word in "${words[@]:1}"; do
		if [[ -n $skip ]]; then
			[[ $skip == --server ]] && server=$word
			[[ "$command $skip" == 'run -c' ]] && container=$word
			skip=
			continue
		fi
		if [[ -n $rest ]]; then
			path=${path:-$word}
			continue
		fi
		case $word in
		--)
			rest=1
			;;
		--server=*)
			server=${word#*=}
			;;
		-*)
			[[ " $(_containerfs_values "$command") " == *" $word "* ]] && skip=$word
			;;
		*)
			if [[ " $(_containerfs_commands "$command") " == *" $word "* ]]; then
				command=${command:+$command }$word
			else
				path=${path:-$word}
				[[ $command == run ]] && rest=1 # what follows is the other command's
			fi
			;;
		esac
	done
	if [[ "$command $skip" == 'run -c' || "$command $skip" == 'attach --from' ]]; then
		_containerfs_path "$cur" 'd*' ${server:+--server "$server"}
		return
	fi
	if [[ "$command $skip" == 'run --set' ]]; then
		# A container that is to be made has what the one above it has.
		_containerfs_entries "$cur" "$container" '' '-*w*' = ${server:+--server "$server"}
		((${#COMPREPLY[@]})) || _containerfs_entries "$cur" "${container%/*}" '' '-*w*' = ${server:+--server "$server"}
		return
	fi
	if [[ -n $skip ]]; then
		COMPREPLY=($(compgen -W "$(_containerfs_choices "$command $skip")" -- "$cur"))
		((${#COMPREPLY[@]})) || compopt -o default 2>/dev/null
		return
	fi
	if [[ $cur == -* && -z $rest ]]; then
		COMPREPLY=($(compgen -W "$(_containerfs_options "$command")" -- "$cur"))
		return
	fi
	word=$(_containerfs_commands "$command")
	if [[ -n $word ]]; then
		COMPREPLY=($(compgen -W "$word" -- "$cur"))
	elif _containerfs_paths "$command"; then
		word=$(_containerfs_names "$command")
		if [[ -n $word && -n $path ]]; then
			_containerfs_entries "$cur" "$path" '' "-*${word:0:1}*" "${word:1}" ${server:+--server "$server"}
		else
			# What has names behind it is a container.
			_containerfs_containers "$command" && word=d
			_containerfs_path "$cur" "${word:+d}*" ${server:+--server "$server"}
		fi
	else
		[[ $command == run && -z $path ]] && COMPREPLY=($(compgen -c -- "$cur"))
		compopt -o default 2>/dev/null
	fi
}

_containerfs_path() {
	local cur=$1 fits=$2 dir=/
	shift 2
	[[ $cur == */* ]] && dir=${cur%/*}/
	_containerfs_entries "$cur" "$dir" "$dir" "$fits" ' ' "$@"
}

# Entries of a directory of the server, behind a prefix, whose modes fit a pattern. Readline
# has only what is behind the last colon.
_containerfs_entries() {
	local cur=$1 dir=$2 prefix=$3 fits=$4 behind=$5 line name end before=
	shift 5
	[[ $cur == *:* && $COMP_WORDBREAKS == *:* ]] && before=${cur%"${cur##*:}"}
	compopt -o nospace 2>/dev/null
	while IFS= read -r line; do
		name=$prefix${line#* * * }
		end=$behind
		[[ $line == d* ]] && end=/
		if [[ ${line%% *} == $fits && $name == "$cur"* ]]; then
			COMPREPLY+=("$(printf %q "${name#"$before"}")$end")
		fi
	done < <(timeout 2 containerfs "$@" ls -l "$dir" 2>/dev/null)
}
`
