package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// The manual is made of the same texts as --help, but for the page of filesPage. The
// library's own generator leaves the descriptions of commands out, which is most of it.

// daemonPage are the commands that have a page of their own, in section 8.
var daemonPage = map[string]bool{"serve": true}

func manualCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "write the manual pages",
		ArgsUsage: "DIR",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 1)
			if err != nil {
				return err
			}
			for _, p := range manual(app(nil, nil, nil)) {
				path := filepath.Join(args[0], "man"+p.section, p.name+"."+p.section)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(p.text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// page is one manual page, in the language of man(7).
type page struct{ name, section, text string }

func manual(a *cli.App) (pages []page) {
	client := newPage("containerfs", "1", a.Usage)
	client.section("SYNOPSIS")
	client.line(".B containerfs")
	client.line(`[\-\-server ADDR] COMMAND [ARG]...`)
	client.section("DESCRIPTION")
	client.text(description)
	client.section("OPTIONS")
	client.flags(a.Flags)
	client.section("COMMANDS")
	files := filesPage()
	see := []string{`mount.containerfs (8)`, files.name + " (" + files.section + ")"}
	for _, c := range a.VisibleCommands() {
		switch {
		case c.Name == "help":
		case daemonPage[c.Name]:
			d := newPage("containerfs-"+c.Name, "8", c.Usage)
			d.section("SYNOPSIS")
			d.line(".B containerfs " + c.Name)
			d.line(strings.TrimSpace("[OPTION]... " + roff(c.ArgsUsage)))
			d.section("DESCRIPTION")
			d.text(c.Description)
			d.section("OPTIONS")
			d.flags(c.Flags)
			d.seeAlso("containerfs (1)", files.name+" ("+files.section+")")
			pages = append(pages, d.page())
			see = append(see, d.name+" (8)")
		default:
			client.command(c, "")
		}
	}
	client.section("EXIT STATUS")
	client.text(exitStatusText)
	client.section("ENVIRONMENT")
	client.text(environmentText)
	client.seeAlso(see...)

	mount := a.Command("mount")
	helper := newPage(mountHelper, "8", mount.Usage)
	helper.section("SYNOPSIS")
	helper.line(".B mount \\-t containerfs")
	helper.line("[\\-o OPTIONS] ADDR DIR")
	helper.section("DESCRIPTION")
	helper.text("mount(8) runs it for the type containerfs, with the options of fstab. It is\ncontainerfs mount under another name, with exit codes of mount(8): 1 when the line makes no\nsense, 32 when the mount failed for any other reason.")
	helper.text(mount.Description)
	helper.seeAlso("containerfs (1)", "mount (8)")
	return append([]page{client.page(), helper.page(), files}, pages...)
}

type manualPage struct {
	name, number string
	b            strings.Builder
}

func newPage(name, section, usage string) *manualPage {
	p := &manualPage{name: name, number: section}
	p.line(fmt.Sprintf(".TH %s %s", strings.ToUpper(roff(name)), section))
	p.section("NAME")
	p.line(roff(name) + ` \- ` + roff(usage))
	return p
}

func (p *manualPage) page() page           { return page{p.name, p.number, p.b.String()} }
func (p *manualPage) line(s string)        { p.b.WriteString(s + "\n") }
func (p *manualPage) section(title string) { p.line(".SH " + title) }
func (p *manualPage) seeAlso(pages ...string) {
	p.section("SEE ALSO")
	p.line(".BR " + strings.Join(pages, " ,\n.BR "))
}

func (p *manualPage) command(c *cli.Command, parent string) {
	name := strings.TrimSpace(parent + " " + c.Name)
	title := name
	if c.ArgsUsage != "" {
		title += " " + c.ArgsUsage
	}
	p.line(".SS " + roff(title))
	p.text(c.Usage)
	p.text(c.Description)
	p.flags(c.Flags)
	for _, sub := range c.VisibleCommands() {
		if sub.Name != "help" {
			p.command(sub, name)
		}
	}
}

// text takes paragraphs; lines that begin with a space are kept as they are.
func (p *manualPage) text(s string) {
	begun, kept := false, false
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		asIs := strings.HasPrefix(line, " ")
		switch {
		case line == "":
			if kept {
				p.line(".EE")
			}
			begun, kept = false, false
			continue
		case asIs && !kept:
			p.line(".PP")
			p.line(".EX")
		case !asIs && kept:
			p.line(".EE")
			p.line(".PP")
		case !begun:
			p.line(".PP")
		}
		begun, kept = true, asIs
		p.line(roff(line))
	}
	if kept {
		p.line(".EE")
	}
}

func (p *manualPage) flags(flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, visible := f.(cli.VisibleFlag); !ok || visible && !v.IsVisible() {
			continue
		}
		var names []string
		for _, n := range f.Names() {
			names = append(names, `\fB`+roff(dashed(n))+`\fR`)
		}
		title := strings.Join(names, ", ")
		placeholder, usage := unquoteUsage(d.GetUsage())
		if d.TakesValue() {
			title += ` \fI` + roff(cmp.Or(placeholder, "VALUE")) + `\fR`
			if v := cmp.Or(d.GetDefaultText(), d.GetValue()); v != "" {
				usage += " (default: " + v + ")"
			}
			if vars := d.GetEnvVars(); len(vars) > 0 {
				usage += "; where it is not given, $" + strings.Join(vars, ", $") + " is it"
			}
		}
		p.line(".TP")
		p.line(title)
		p.line(roff(usage))
	}
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// unquoteUsage finds the name of a flag's value, which is in backquotes.
func unquoteUsage(usage string) (placeholder, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "", usage
	}
	return name, before + name + after
}

// roff escapes a line: what would be taken for a request or an escape, and dashes, which
// are to be copied as such.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`, `'`, `\(aq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, `\(aq`) {
		s = `\&` + s
	}
	return s
}
