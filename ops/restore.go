package ops

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"containerfs/ops/store"
	"containerfs/tree"
)

// keptRows are the rows of a state directory until they are restored: values are
// copies, one behind the other.
type keptRows struct {
	arena []byte
	rows  [store.Tasks + 1][]keptRow
}

type keptRow struct {
	num   uint64
	name  string
	value []byte
}

func (k *keptRows) add(key store.Key, value []byte) error {
	if len(k.arena)+len(value) > cap(k.arena) {
		k.arena = make([]byte, 0, max(1<<20, len(value)))
	}
	start := len(k.arena)
	k.arena = append(k.arena, value...)
	k.rows[key.Bucket] = append(k.rows[key.Bucket], keptRow{key.Num, key.Name, k.arena[start:len(k.arena):len(k.arena)]})
	return nil
}

func (k *keptRows) fact(key store.Key) []byte {
	for _, r := range k.rows[store.Facts] {
		if r.name == key.Name {
			return r.value
		}
	}
	return nil
}

// OpenJournal opens a state directory, which is made if there is none. What was
// kept in it is restored by FS.Restore; Begin says that it is this server's from now on.
func OpenJournal(dir string, log *slog.Logger) (_ *Journal, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	j := &Journal{log: log, kept: new(keptRows), later: make(laterRows)}
	if j.store, err = store.Open(dir, j.kept.add); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.store.Close()
		}
	}()
	place, err := inode(dir)
	if err != nil {
		return nil, err
	}
	j.judge(string(boot), place)
	renamed := j.state.Mirror == "" || j.state.Copied
	if renamed {
		var id [8]byte
		rand.Read(id[:])
		j.state.Mirror = "s" + hex.EncodeToString(id[:])
		// The places are those of the other directory's tasks: the next server, which finds
		// that this one is no copy any more, must not have them.
		for _, b := range []store.Bucket{store.Groups, store.Tasks} {
			for _, r := range j.kept.rows[b] {
				j.later[store.Key{Bucket: b, Num: r.num}] = nil
			}
		}
	}
	j.fact(bootKey, string(boot))
	j.fact(placeKey, place)
	if j.fact(mirrorKey, j.state.Mirror); renamed {
		// Before there is a mirror of that name.
		if err := j.later.put(j.store); err != nil {
			return nil, fmt.Errorf("state directory %s: %w", dir, err)
		}
	}
	return j, nil
}

// Renounce leaves the directory to a next server as one that is new: for what was, and has
// served nobody. Errors are those of the disk.
func (j *Journal) Renounce() error { return j.store.Wait(j.store.Put(mirrorKey, nil, nil)) }

// LookJournal is the journal of a state directory that is only looked at, for
// FS.Rehearse: it makes nothing, takes no lock and keeps nothing, whether a server has
// the directory or not. One that has no file yet is os.ErrNotExist.
func LookJournal(dir string) (*Journal, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	j := &Journal{kept: new(keptRows), later: make(laterRows)}
	if _, err := store.Read(dir, j.kept.add); err != nil {
		return nil, err
	}
	place, err := inode(dir)
	if err != nil {
		return nil, err
	}
	j.judge(string(boot), place)
	return j, nil
}

// MirrorOf is the id by which a state directory's mirror is named, by a look at the directory
// alone.
func MirrorOf(dir string) (id string, err error) {
	_, err = store.Read(dir, func(k store.Key, value []byte) error {
		if k == mirrorKey {
			id = string(value)
		}
		return nil
	})
	return id, err
}

// judge says what the state is of that was kept.
func (j *Journal) judge(boot, place string) {
	j.state.Mirror = string(j.kept.fact(mirrorKey))
	known := j.state.Mirror != ""
	// A server that was refused or killed as it started has left no more than its facts.
	j.state.Fresh = !known || j.kept.fact(nextKey) == nil
	j.state.Rebooted = known && string(j.kept.fact(bootKey)) != boot
	// The numbers of a file system may be others after a boot.
	j.state.Copied = known && !j.state.Rebooted && string(j.kept.fact(placeKey)) != place
}

// laterRows are to be put when the server is sure to be: until then the state stays as it
// was. They are put at once: with the facts of this boot, or of this directory, alone, the
// places of another's tasks would be those of tasks of this.
type laterRows map[store.Key][]byte

func (l laterRows) put(s *store.Store) error {
	rows := make([]store.Row, 0, len(l))
	for k, v := range l {
		rows = append(rows, store.Row{Key: k, Value: v})
	}
	clear(l)
	return s.Wait(s.PutAll(rows...))
}

// fact sets a fact, later.
func (j *Journal) fact(k store.Key, value string) {
	if string(j.kept.fact(k)) != value {
		j.later[k] = []byte(value)
	}
}

// Anchor says, before Restore, whether a mirror shows where tasks are, or only the
// journal's list. Where it was the other way before, nobody knows where they are
// now.
func (j *Journal) Anchor(mirror bool) {
	now, other := "list", "mirror"
	if mirror {
		now, other = other, now
	}
	if string(j.kept.fact(anchorKey)) == other {
		j.state.Unanchored = true
	}
	j.fact(anchorKey, now)
	j.lists = !mirror
}

// inode tells a directory from its copies.
func inode(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// void reports whether what is kept of tasks means nothing here and now.
func (s State) void() bool { return s.Rebooted || s.Copied || s.Unanchored }

// Restored says what was restored.
type Restored struct{ Hierarchies, Containers, Groups, Tasks int }

// KeptGroups are the css groups that tasks can be in, by what is kept: none after
// a boot, and none of a container that is gone.
func (j *Journal) KeptGroups() (groups []uint64) {
	if j.state.void() || len(j.kept.rows[store.Groups]) == 0 {
		return nil
	}
	there := make(map[uint64]bool, len(j.kept.rows[store.Containers]))
	for _, r := range j.kept.rows[store.Containers] {
		there[r.num] = true
	}
	for _, r := range j.kept.rows[store.Groups] {
		ids, err := readGroupRow(r.value)
		if err == nil && !slices.ContainsFunc(ids, func(id uint64) bool { return !there[id] }) {
			groups = append(groups, r.num)
		}
	}
	return groups
}

// Restore makes the tree what it was, from the journal. It is called once, before
// there are tasks. exists says which css groups have a directory in the mirror, nil
// without a mirror. Where it fails the server cannot be. Nothing is written before Begin.
func (fs *FS) Restore(exists map[uint64]bool) (done Restored, err error) {
	j := fs.journal
	if done, err = fs.restore(j, exists); err == nil {
		fs.tree.View(func() { j.next = fs.tree.Next() })
	}
	return done, err
}

// Begin keeps what Restore has come to: of which boot and mirror the state is now, and that
// places which mean nothing any more are nobody's. It is called when nothing can refuse the
// server any more. One that was refused leaves all of that to the next. Which numbers are next
// is kept as well, where that was said since.
func (j *Journal) Begin() error {
	t := j.fs.tree
	_ = t.Change(func() error { t.Update(j.keepNext); return nil })
	return j.later.put(j.store)
}

// Rehearse is Restore for who is no server and only looks, by LookJournal: it fails as
// that would, and what the tree is then is kept nowhere.
func (fs *FS) Rehearse(j *Journal) (Restored, error) { return fs.restore(j, nil) }

// restore makes the tree what a journal has kept.
func (fs *FS) restore(j *Journal, exists map[uint64]bool) (done Restored, err error) {
	kept := j.kept
	j.kept = nil
	byID := make(map[uint64]*tree.Container, len(kept.rows[store.Containers]))
	if row := kept.fact(nextKey); row != nil {
		next, err := readNextRow(row)
		if err != nil {
			return done, err
		}
		fs.tree.RestoreNext(next)
	}
	for _, r := range kept.rows[store.Hierarchies] {
		h, err := fs.restoreHierarchy(r)
		if err != nil {
			return done, err
		}
		byID[h.Root().ID()] = h.Root()
		done.Hierarchies++
	}
	for _, r := range kept.rows[store.Containers] {
		c, err := fs.restoreContainer(r, byID)
		if err != nil {
			return done, fmt.Errorf("container %d: %w", r.num, err)
		}
		byID[r.num] = c
		done.Containers++
	}
	for _, r := range kept.rows[store.Roots] {
		if id := fs.subsystem(r.name); id >= 0 {
			if err := fs.tree.RestoreRoot(id, r.value); err != nil {
				return done, err
			}
		}
	}
	if row := kept.fact(eventsKey); row != nil {
		fs.restoreEventsPerm(row)
	}
	if err := fs.restoreGroups(j, kept, byID, exists, &done); err != nil {
		return done, err
	}
	fs.tree.EndRestore()
	return done, nil
}

// LacksError is of a state with a hierarchy that has a subsystem which the server does not.
type LacksError struct{ Hierarchy, Subsystem string }

func (e *LacksError) Error() string {
	return fmt.Sprintf("hierarchy %s of the state has the subsystem %s, which this server does not: --enable %[2]s", e.Hierarchy, e.Subsystem)
}

func (fs *FS) restoreHierarchy(r keptRow) (*tree.Hierarchy, error) {
	k, err := fs.readHierarchyRow(r.num, r.value)
	if err != nil {
		return nil, fmt.Errorf("hierarchy %d: %w", r.num, err)
	}
	if k.missing != "" {
		return nil, &LacksError{k.Name, k.missing}
	}
	k.Root.Data = &rootAttrs{agent: k.agent, log: newEventLog(fs.recorder.limit)}
	h, err := fs.tree.RestoreHierarchy(k.KeptHierarchy)
	if err != nil {
		return nil, err
	}
	if k.agent != "" && !fs.allowAgent {
		fs.log.Warn("a release agent is kept and not run, without --allow-release-agent", "hierarchy", k.Name, "agent", k.agent)
	}
	fs.setAttrs(h.Root(), k.attrs)
	return h, nil
}

func (fs *FS) restoreContainer(r keptRow, byID map[uint64]*tree.Container) (*tree.Container, error) {
	parent, k, a, err := readContainerRow(r.num, r.value)
	if err != nil {
		return nil, err
	}
	if byID[parent] == nil {
		return nil, fmt.Errorf("%q has no parent: %w", k.Name, errRow)
	}
	k.Data = new(attrs)
	c, err := fs.tree.RestoreContainer(byID[parent], k)
	if err != nil {
		return nil, err
	}
	fs.setAttrs(c, a)
	fs.tree.Update(func() { fs.recorder.owned[a.dir.uid]++ })
	return c, nil
}

// restoreGroups restores where tasks are. Groups of containers that are gone are
// those of nobody, and so are all of another boot.
func (fs *FS) restoreGroups(j *Journal, kept *keptRows, byID map[uint64]*tree.Container, exists map[uint64]bool, done *Restored) error {
	void := j.state.void()
	for _, r := range kept.rows[store.Groups] {
		ids, err := readGroupRow(r.value)
		if err != nil {
			return fmt.Errorf("css group %d: %w", r.num, err)
		}
		var cs []*tree.Container
		for _, id := range ids {
			cs = append(cs, byID[id])
		}
		if void || slices.Contains(cs, nil) {
			j.later[store.Key{Bucket: store.Groups, Num: r.num}] = nil
			continue
		}
		if err := fs.tree.RestoreGroup(r.num, cs, exists[r.num]); err != nil {
			return err
		}
		done.Groups++
	}
	places := make(map[int32]tree.Place)
	for _, r := range kept.rows[store.Tasks] {
		p, err := readPlaceRow(r.value)
		switch {
		case err != nil:
			return fmt.Errorf("task %d: %w", r.num, err)
		case void || exists != nil: // the mirror knows
			j.later[taskKey(int32(r.num))] = nil
		default:
			places[int32(r.num)] = p
		}
	}
	done.Tasks = len(places)
	j.places = places
	fs.tree.RestoreTasks(places)
	return nil
}

func (fs *FS) restoreEventsPerm(row []byte) {
	p := perm{fs.uid, fs.gid, modeEvents}
	if row != nil {
		if kept, err := readPermRow(row); err == nil {
			p = kept
		}
	}
	fs.tree.Update(func() { fs.eventsPerm = p })
}

// conflict says why a hierarchy that is asked for cannot be beside those that there are,
// those of the state among them: one has the name, or some of the subsystems.
func (fs *FS) conflict(name string, o options) string {
	var in []string
	fs.tree.View(func() {
		for h := range fs.tree.Hierarchies {
			names := fs.tree.Names(h.Subsystems()&o.subsystems, " ")
			is := ""
			switch {
			case h.Name() == name:
				is = "there is " + name + "=" + showOptions(h)
			case strings.Contains(names, " "):
				is = names + " are in the hierarchy " + h.Name()
			case names != "":
				is = names + " is in the hierarchy " + h.Name()
			default:
				continue
			}
			if !h.Published() {
				is += unmounted
			}
			in = append(in, is)
		}
	})
	return strings.Join(in, " and ")
}
