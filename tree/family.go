package tree

// parentLocked notes that tgid is the real parent of p, as the host or a fork
// event says now.
func (t *Tree) parentLocked(p *Process, tgid int32) {
	a, old := t.procs[tgid], p.ancestor()
	if a == nil || a == old || a == p {
		return
	}
	if a.isBelow(p) { // the number was used again: which of its processes is meant is not known
		a.adopted = true
		a.mix()
		return
	}
	p.parent = a
	a.kids++
	if p.mixed || p.group() != a.group() {
		a.mix()
	}
	if old != nil {
		old.kids--
		old.unmix()
	}
}

// named is the process that a fork event names as the forker's, or may: a thread
// is forked in its own. Nil where it is not known.
func (t *Tree) named(e ForkEvent) *Process {
	if e.TID != e.TGID {
		return t.procs[e.TGID]
	}
	return t.procs[e.ParentTGID]
}

// mayFork reports whether a task of p may have forked one of which an event names a as the
// parent, or a thread of a: see "Fork events that can be wrong".
func (p *Process) mayFork(a *Process, thread bool) bool {
	return p == a || !thread && p.ancestor() == a
}

// isBelow reports whether p is a descendant of a.
func (p *Process) isBelow(a *Process) bool {
	for p = p.parent; p != nil && p != a; {
		p = p.parent
	}
	return p != nil
}

// mix notes that a thread of p may be in another group than others of p, or than its ancestors.
func (p *Process) mix() {
	for ; p != nil && !p.mixed; p = p.ancestor() {
		p.mixed = true
	}
}

// unmix clears mixed when nobody is left who could fork in p's name.
func (p *Process) unmix() {
	if p.kids == 0 && p.nthreads == 1 && !p.adopted {
		p.mixed = false
	}
}

// settle clears mixed when p's family has come together again.
func (p *Process) settle() {
	if p.kids > 0 || p.adopted {
		return
	}
	for k := p.threads; k != nil; k = k.pnext {
		if k.group != p.group() {
			return
		}
	}
	p.mixed = false
}

// renewFamiliesLocked takes what a scan says of parents, by tgid, in place of
// what fork and exit events let assume.
func (t *Tree) renewFamiliesLocked(parents map[int32]int32) {
	for _, p := range t.procs {
		p.kids, p.adopted, p.mixed = 0, false, false
	}
	for tgid, p := range t.procs {
		ppid, seen := parents[tgid]
		if !seen {
			continue
		}
		switch a := t.procs[ppid]; {
		case a != nil && (a == p || a.isBelow(p)):
			a.adopted = true
		case a != nil:
			p.parent = a
		case ppid == 0:
			p.parent = nil
		}
	}
	for _, p := range t.procs {
		g := p.group()
		if a := p.ancestor(); a != nil {
			a.kids++
			if a.group() != g {
				a.mix()
			}
		}
		for k := p.threads; k != nil; k = k.pnext {
			if k.group != g {
				p.mix()
			}
		}
		if p.adopted || p.moving {
			p.mix()
		}
	}
}
