package tree

// SetNote gives a process a note, which the processes that it forks from then on
// share: what the front end knows of the program that it runs. It is nil until
// it is set for the process or an ancestor.
func (t *Tree) SetNote(tgid int32, note any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.procs[tgid]; p != nil {
		p.note = note
	}
}

// ChangeNote gives a process the note that f makes of the one that it has, and reports whether it
// had one. f is called with the lock of the model held.
func (t *Tree) ChangeNote(tgid int32, f func(note any) any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.procs[tgid]
	if p == nil || p.note == nil {
		return false
	}
	p.note = f(p.note)
	return true
}

// ReplaceNote gives a process a note in the place of another one, and reports
// whether that was what it had.
func (t *Tree) ReplaceNote(p *Process, old, note any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.note != old {
		return false
	}
	p.note = note
	return true
}

// Note is what SetNote gave. View.
func (p *Process) Note() any { return p.note }

// Noted reports whether a process needs no note: it has one, or is not known.
func (t *Tree) Noted(tgid int32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.procs[tgid]
	return p == nil || p.note != nil
}
