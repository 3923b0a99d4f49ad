package tree

// Releasable reports whether something has left the container since
// notify_on_release was last written: a task, a child, or a reference. View.
func (c *Container) Releasable() bool { return c.releasable }

// NotifyOnRelease is the flag of SPEC §8.
func (c *Container) NotifyOnRelease() bool { return c.notifyOnRelease }

// SetNotifyOnRelease sets the flag and clears Releasable: an idle container
// fires nothing when the flag goes on. Update.
func (c *Container) SetNotifyOnRelease(on bool) {
	c.releasable = false
	c.notifyOnRelease = on
}

// Get holds the container against rmdir and release; Put gives it up.
func (c *Container) Get() { c.refs.Add(1) }

// Put undoes one Get. It must not be called inside View or Update.
func (c *Container) Put() {
	if c.refs.Add(-1) > 0 {
		return
	}
	t := c.h.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	c.releasable = true
	t.releaseLocked(c)
}

// Refs is the number of references that Get took.
func (c *Container) Refs() int { return int(c.refs.Load()) }

// releaseLocked fires a release of c if it is due: the Observer gets Released,
// and not again until Tree.Served. Until Tree.Released it is kept that it has fired.
func (t *Tree) releaseLocked(c *Container) {
	if c.releasable && c.notifyOnRelease && !c.served && !c.removed && !c.IsRoot() &&
		c.linked == 0 && c.children.len() == 0 && c.refs.Load() == 0 {
		c.served = true
		c.releases++
		c.vacateLocked()
		t.observeLocked(Event{Kind: Released, Container: c})
	}
}

// Served ends the release that fired: from now on another can. It must not be called
// inside View or Update.
func (t *Tree) Served(c *Container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.served = false
}

// Released tells that a release that fired is done: that is kept, and it fires in no other life. It
// must not be called inside View or Update.
func (t *Tree) Released(c *Container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.releases--
	c.vacateLocked()
}

// leftLocked notes that the last task of g has exited, or is elsewhere.
func (t *Tree) leftLocked(g *Group) {
	for i := range g.links {
		if c := g.links[i].c; c.linked == 0 {
			c.releasable = true
			t.releaseLocked(c)
		}
	}
}
