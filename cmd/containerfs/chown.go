package main

import (
	"errors"
	"math"
	"os/user"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"
)

func chownCommand() *cli.Command {
	return &cli.Command{
		Name:      "chown",
		Usage:     "give containers and control files to a user",
		ArgsUsage: "USER[:GROUP] PATH...",
		Description: `A container is given without its control files and what is below it, unless there is
-R. :GROUP changes the group alone, which the owner can, to a group of his. USER and
GROUP are names of this host's, or numbers; the server has the numbers only.

  containerfs chown -R alice:users /all/alice
  containerfs chown root /all/alice/numtasks.shares`,
		Flags: []cli.Flag{recursiveFlag()},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 2, -1)
			if err != nil {
				return err
			}
			valid, set, err := parseOwner(args[0])
			if err != nil {
				return err
			}
			return changeEach(c, args[1:], func(p9.Attr) (p9.SetAttrMask, p9.SetAttr) { return valid, set })
		},
	}
}

func recursiveFlag() cli.Flag {
	return &cli.BoolFlag{Name: "R", Usage: "with the control files and all that is below"}
}

// parseOwner takes what chown is to set.
func parseOwner(arg string) (valid p9.SetAttrMask, set p9.SetAttr, err error) {
	name, group, hasGroup := strings.Cut(arg, ":")
	if name == "" && !hasGroup || hasGroup && group == "" {
		return valid, set, usagef("owner %q: want USER, USER:GROUP or :GROUP", arg)
	}
	if valid.UID = name != ""; valid.UID {
		id, err := userID(name)
		if err != nil {
			return valid, set, err
		}
		set.UID = p9.UID(id)
	}
	if valid.GID = hasGroup; valid.GID {
		id, err := groupID(group)
		if err != nil {
			return valid, set, err
		}
		set.GID = p9.GID(id)
	}
	return valid, set, nil
}

// userID is the number of a user of this host. Digits that are no name are the number.
func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	switch {
	case errors.As(err, new(user.UnknownUserError)):
		return hostID("user", name)
	case err != nil:
		return 0, err
	}
	return hostID("user", u.Uid)
}

// groupID is userID for a group.
func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	switch {
	case errors.As(err, new(user.UnknownGroupError)):
		return hostID("group", name)
	case err != nil:
		return 0, err
	}
	return hostID("group", g.Gid)
}

func hostID(what, digits string) (uint32, error) {
	id, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || id == math.MaxUint32 { // which stands for nobody
		return 0, usagef("no %s %q on this host", what, digits)
	}
	return uint32(id), nil
}

// attrChange says what is to be set, by what there is.
type attrChange func(now p9.Attr) (p9.SetAttrMask, p9.SetAttr)

// changeEach changes attributes of every path, and with -R of all that is in it.
func changeEach(c *cli.Context, paths []string, change attrChange) error {
	return eachPath(c, paths, func(s *session, path string) error {
		isDir, err := s.change(path, change)
		if err != nil || !isDir || !c.Bool("R") {
			return err
		}
		f := failures{stderr: c.App.ErrWriter}
		err = s.containers(clean(path), func(dir string, depth int, files []string) error {
			var all []string
			if depth > 0 {
				all = append(all, dir)
			}
			for _, name := range files {
				all = append(all, join(dir, name))
			}
			for _, file := range all {
				_, err := s.change(file, change)
				if err != nil && !isGone(err) && f.add(&pathError{c.Command.Name, file, err}) {
					return err
				}
			}
			return nil
		})
		if f.first != nil {
			return f.first
		}
		return err
	})
}

// change changes attributes of a path, if there is something to be set, and reports
// whether it is a directory.
func (s *session) change(path string, change attrChange) (isDir bool, err error) {
	f, err := s.walk(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, _, now, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return false, err
	}
	valid, set := change(now)
	if !valid.Empty() {
		err = f.SetAttr(valid, set)
	}
	return now.Mode.IsDir(), err
}
