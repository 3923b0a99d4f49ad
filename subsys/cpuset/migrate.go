package cpuset

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
)

// migrator moves the pages of processes between memory nodes, one process after
// the other, in a goroutine that lives as long as there is something to do. It is
// asked under the Tree's locks, which it never waits for: mu is a leaf, and no
// lock is held over a migration. What waits is bounded by the number of
// processes, for those of one process are merged.
type migrator struct {
	host Host
	log  *slog.Logger

	mu      sync.Mutex
	waiting map[int32]migration // by tgid
	running bool
	closed  bool
	worker  sync.WaitGroup
}

type migration struct{ from, to Set }

// ask has the pages of a process moved. Pages that an earlier migration was yet
// to bring to its nodes go from where they are.
func (m *migrator) ask(tgid int32, from, to Set) {
	if from.Equal(to) || from.Empty() || to.Empty() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if m.waiting == nil {
		m.waiting = make(map[int32]migration)
	}
	if before, ok := m.waiting[tgid]; ok {
		from = from.Or(before.from)
	}
	m.waiting[tgid] = migration{from, to}
	if !m.running {
		m.running = true
		m.worker.Go(m.work)
	}
}

// drop forgets a process that has ended: its number may be another's soon.
func (m *migrator) drop(tgid int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, tgid)
}

func (m *migrator) close() {
	m.mu.Lock()
	m.closed = true
	m.waiting = nil
	m.mu.Unlock()
	m.worker.Wait()
}

func (m *migrator) work() {
	for {
		tgid, job, ok := m.next()
		if !ok {
			return
		}
		left, err := m.host.MigratePages(tgid, job.from, job.to)
		switch {
		case errors.Is(err, syscall.ESRCH), errors.Is(err, syscall.ENOSYS): // gone; said at start
		case err != nil:
			m.log.Warn("the pages of a process were not migrated", "tgid", tgid, "from", job.from, "to", job.to, "err", err)
		case left > 0:
			m.log.Warn("pages of a process could not be migrated", "tgid", tgid, "from", job.from, "to", job.to, "pages", left)
		}
	}
}

// next takes a process that waits; without any the worker ends.
func (m *migrator) next() (tgid int32, job migration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for tgid, job = range m.waiting {
		delete(m.waiting, tgid)
		return tgid, job, true
	}
	m.running = false
	return 0, migration{}, false
}
