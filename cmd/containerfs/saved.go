package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// savedSchema is the version of files that save writes and apply reads.
const savedSchema = 1

// savedFile is hierarchies with their containers, as save writes them.
type savedFile struct {
	Schema    int              `toml:"schema"`
	Hierarchy []savedHierarchy `toml:"hierarchy"`
	Container []savedContainer `toml:"container"`

	tomlFile
}

type savedHierarchy struct {
	Name    string `toml:"name"`
	Options string `toml:"options"` // as ctl takes them
}

// savedContainer is a container. What is not given is not changed by apply.
type savedContainer struct {
	Path string `toml:"path"`
	savedOwner
	Set  map[string]string     `toml:"set"`
	File map[string]savedOwner `toml:"file"` // control files that are not the container's owner's, or have another mode
}

type savedOwner struct {
	Mode *string `toml:"mode"`
	UID  *uint32 `toml:"uid"`
	GID  *uint32 `toml:"gid"`
}

// fileOwner is what a control file's owner and mode are to be: where it has no owner of its
// own, the container's.
func (c *savedContainer) fileOwner(name string) savedOwner {
	o := c.File[name]
	if o.UID == nil {
		o.UID = c.UID
	}
	if o.GID == nil {
		o.GID = c.GID
	}
	return o
}

// parseSaved reads a file. Its errors name the line.
func parseSaved(name string, b []byte) (*savedFile, error) {
	f := &savedFile{}
	var err error
	if f.tomlFile, err = decodeTOML(name, b, f); err != nil {
		if bad := (*keyError)(nil); errors.As(err, &bad) && bad.isUnquotedFile() {
			return nil, usagef("%v; the name of a control file that has a dot goes in quotes", err)
		}
		return nil, usagef("%v", err)
	}
	return f, f.check()
}

// isUnquotedFile is true of a control file's name with a dot that is not in quotes, which is
// a table in a table.
func (e *keyError) isUnquotedFile() bool {
	return len(e.key) > 3 && e.key[0] == "container" && (e.key[1] == "set" || e.key[1] == "file") && !strings.Contains(e.key[2], ".")
}

func (f *savedFile) errorf(key, format string, args ...any) error {
	return usagef("%s: %s", f.at(key), fmt.Sprintf(format, args...))
}

// check refuses what makes no sense whatever the server holds.
func (f *savedFile) check() error {
	if _, ok := f.lines["schema"]; !ok {
		return f.errorf("schema", "no schema is given; want schema = %d", savedSchema)
	}
	if f.Schema != savedSchema {
		return f.errorf("schema", "schema %d is not known, only %d", f.Schema, savedSchema)
	}
	hierarchies := make(map[string]bool)
	for i, h := range f.Hierarchy {
		key := fmt.Sprintf("hierarchy.%d", i)
		switch {
		case h.Name == "" || strings.ContainsAny(h.Name, "/ \n"):
			return f.errorf(key+".name", "%q is no name of a hierarchy", h.Name)
		case h.Options == "" || strings.ContainsAny(h.Options, " \n"):
			return f.errorf(key+".options", "%q are no options of a hierarchy", h.Options)
		case hierarchies[h.Name]:
			return f.errorf(key+".name", "hierarchy %s is there twice", h.Name)
		}
		hierarchies[h.Name] = true
	}
	seen := make(map[string]bool)
	for i, c := range f.Container {
		key := fmt.Sprintf("container.%d", i)
		switch {
		case len(split(c.Path)) == 0 || c.Path != clean(c.Path):
			return f.errorf(key+".path", "%q is no path of a container", c.Path)
		case seen[c.Path]:
			return f.errorf(key+".path", "container %s is there twice", c.Path)
		}
		seen[c.Path] = true
		if err := f.checkOwner(key, c.savedOwner); err != nil {
			return err
		}
		for name, value := range c.Set {
			at := key + ".set." + name
			switch {
			case checkFileName(name) != nil:
				return f.errorf(at, "%q is no name of a control file", name)
			case len(value) >= maxCommand:
				return f.errorf(at, "the value of %s is too long", name)
			case slices.Contains(notValues, name):
				return f.errorf(at, "%s is no setting", name)
			}
		}
		for name, owner := range c.File {
			if checkFileName(name) != nil {
				return f.errorf(key+".file."+name, "%q is no name of a control file", name)
			}
			if err := f.checkOwner(key+".file."+name, owner); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *savedFile) checkOwner(key string, o savedOwner) error {
	if o.Mode != nil {
		if _, ok := octalMode(*o.Mode); !ok {
			return f.errorf(key+".mode", "mode %q: want octal up to 777", *o.Mode)
		}
	}
	return nil
}

// settings are a container's values in the order of their lines.
func (f *savedFile) settings(i int) []setting {
	c := &f.Container[i]
	var all []setting
	for name, value := range c.Set {
		all = append(all, setting{name, value})
	}
	line := func(s setting) int { return f.lines[fmt.Sprintf("container.%d.set.%s", i, s.name)] }
	slices.SortFunc(all, func(a, b setting) int { return cmp.Or(cmp.Compare(line(a), line(b)), strings.Compare(a.name, b.name)) })
	return all
}

// tomlString quotes text as a TOML string, on one line.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
