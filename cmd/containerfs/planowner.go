package main

import (
	"errors"
	"fmt"

	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
)

// planFileOwners plans to change owners and modes of a container's files: those that the
// file does not name have the container's owner, as save leaves them out.
func (p *plan) planFileOwners(key string, c *savedContainer) error {
	for _, name := range ops.SettingOrder(c.File) {
		if err := p.checkFile(key+".file."+name, c.Path, name); err != nil {
			return err
		}
		if err := p.planOwner(key+".file."+name, c.Path, join(c.Path, name), c.fileOwner(name)); err != nil {
			return err
		}
	}
	switch {
	case c.UID == nil && c.GID == nil:
		return nil
	case p.made[c.Path]: // which files it has is known when it has been
		p.shape = append(p.shape, planStep{key: key, do: func() (func() error, error) {
			return nil, p.chownOthers(c)
		}})
		return nil
	}
	now, err := p.othersOwners(c)
	if err != nil {
		return p.fail(key+".path", c.Path, err)
	}
	if len(now) == 0 {
		return nil
	}
	p.shape = append(p.shape, planStep{
		what: fmt.Sprintf("%s: owner of %d files -> %s", c.Path, len(now), c.owner()), key: key,
		do: func() (func() error, error) {
			back := func() (err error) {
				for name, was := range now {
					err = errors.Join(err, p.chown(join(c.Path, name), savedOwner{UID: was.UID, GID: was.GID}))
				}
				return err
			}
			err := p.chownFiles(c, now)
			if err != nil {
				var half undoList
				half.add(c.Path+": owners of files", back)
				err = half.after(err)
			}
			return back, err
		},
	})
	return nil
}

// owner is the owner that a container has in the file; what is not given is a dash.
func (c *savedContainer) owner() string {
	show := func(id *uint32) string {
		if id == nil {
			return "-"
		}
		return fmt.Sprint(*id)
	}
	return show(c.UID) + ":" + show(c.GID)
}

// othersOwners are the files that c does not name and whose owner is to be changed, with
// what they have now.
func (p *plan) othersOwners(c *savedContainer) (map[string]savedOwner, error) {
	files, _, err := p.s.list(c.Path)
	if err != nil {
		return nil, err
	}
	now := make(map[string]savedOwner)
	for _, name := range files {
		if _, named := c.File[name]; named {
			continue
		}
		attr, err := p.s.attr(join(c.Path, name))
		if err != nil {
			return nil, err
		}
		if valid, _ := ownerChange(attr, c.fileOwner(name)); !valid.Empty() {
			now[name] = ownerOf(attr)
		}
	}
	return now, nil
}

// chownOthers gives the files that c does not name the container's owner.
func (p *plan) chownOthers(c *savedContainer) error {
	now, err := p.othersOwners(c)
	if err != nil {
		return err
	}
	return p.chownFiles(c, now)
}

func (p *plan) chownFiles(c *savedContainer, files map[string]savedOwner) error {
	for name := range files {
		if err := p.chown(join(c.Path, name), c.fileOwner(name)); err != nil {
			return err
		}
	}
	return nil
}

func parseMode(text string) p9.FileMode {
	mode, _ := octalMode(text) // it has been checked
	return mode
}

// planOwner plans a change of mode and owner of a container, or of a file in it.
func (p *plan) planOwner(key, container, path string, want savedOwner) error {
	if p.made[container] {
		// What it is made with is known when it has been.
		p.shape = append(p.shape, planStep{key: key, do: func() (func() error, error) {
			return nil, p.chown(path, want) // it goes with the container
		}})
		return nil
	}
	attr, err := p.s.attr(path)
	if err != nil {
		return p.fail(key, path, err)
	}
	valid, set := ownerChange(attr, want)
	if valid.Empty() {
		return nil
	}
	now := ownerOf(attr)
	p.shape = append(p.shape, planStep{
		what: fmt.Sprintf("%s: %s -> %s", path, now, want.over(now)), key: key,
		do: func() (func() error, error) {
			back := p9.SetAttr{Permissions: attr.Mode.Permissions(), UID: attr.UID, GID: attr.GID}
			return func() error { return p.setAttr(path, valid, back) }, p.setAttr(path, valid, set)
		},
	})
	return nil
}

func (o savedOwner) String() string {
	return fmt.Sprintf("mode %s owner %d:%d", *o.Mode, *o.UID, *o.GID)
}

// over is what becomes of an owner and mode.
func (o savedOwner) over(now savedOwner) savedOwner {
	if o.Mode == nil {
		o.Mode = now.Mode
	} else {
		mode := modeBits(parseMode(*o.Mode))
		o.Mode = &mode
	}
	if o.UID == nil {
		o.UID = now.UID
	}
	if o.GID == nil {
		o.GID = now.GID
	}
	return o
}

// ownerChange is what has to be set.
func ownerChange(attr p9.Attr, want savedOwner) (valid p9.SetAttrMask, set p9.SetAttr) {
	if want.Mode != nil && parseMode(*want.Mode) != attr.Mode.Permissions() {
		valid.Permissions, set.Permissions = true, parseMode(*want.Mode)
	}
	if want.UID != nil && p9.UID(*want.UID) != attr.UID {
		valid.UID, set.UID = true, p9.UID(*want.UID)
	}
	if want.GID != nil && p9.GID(*want.GID) != attr.GID {
		valid.GID, set.GID = true, p9.GID(*want.GID)
	}
	return valid, set
}

func (p *plan) chown(path string, want savedOwner) error {
	_, err := p.s.change(path, func(now p9.Attr) (p9.SetAttrMask, p9.SetAttr) { return ownerChange(now, want) })
	return err
}

func (p *plan) setAttr(path string, valid p9.SetAttrMask, set p9.SetAttr) error {
	f, err := p.s.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.SetAttr(valid, set)
}
