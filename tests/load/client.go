package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// load is how many connections there are, with how many operations outstanding each.
type load struct{ conns, depth int }

func (l load) String() string { return fmt.Sprintf("%d×%d", l.conns, l.depth) }

// loads are those that are measured. At most maxSlots operations are outstanding.
var loads = []load{{1, 1}, {1, 32}, {8, 8}}

const maxSlots = 64

// result is what one measurement has found.
type result struct {
	rate float64       // operations per second
	p50  time.Duration // from a request to the end of its operation
	p99  time.Duration
	cpu  time.Duration // of the server, per operation
}

// client runs operations of a row on one connection.
type client struct {
	*conn
	row   *row
	slots []slot
	took  []int64 // of the operations that are done
}

// newClient prepares a connection for a load: its slots' containers and files.
// first is the number of its first slot among all of the load's.
func newClient(at place, t *target, depth, first int) (*client, error) {
	c, err := dial(at, t.aname)
	if err != nil {
		return nil, err
	}
	k := &client{conn: c, slots: make([]slot, depth)}
	walk := func(fid uint32, names ...string) {
		if err == nil {
			c.out = appendWalk(c.out, 0, 0, fid, names...)
			var reply []byte
			if reply, err = c.ask(); err == nil && int(le.Uint16(reply)) != len(names) {
				err = fmt.Errorf("walk to %q: not found", names)
			}
		}
	}
	for i := range k.slots {
		k.slots[i] = newSlot(i)
		s := &k.slots[i]
		s.pid = t.pids[first+i]
		walk(s.dirs[0], slotDir(first+i, 0))
		walk(s.dirs[1], slotDir(first+i, 1))
		walk(s.open, slotDir(first+i, 0), "notify_on_release")
		if err == nil {
			c.out = appendOpen(c.out, 0, s.open, 0)
			_, err = c.ask()
		}
	}
	for i, name := range bigDirs {
		walk(fidBig+uint32(i), name)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return k, nil
}

// run keeps all slots busy until the time is up, and then until they are done.
func (k *client) run(until time.Time) error {
	now := time.Now().UnixNano()
	for i := range k.slots {
		k.start(&k.slots[i], now)
	}
	last := until.UnixNano()
	for busy := len(k.slots); busy > 0; {
		if len(k.out) > 0 {
			if err := k.send(); err != nil {
				return err
			}
		}
		if err := k.fill(); err != nil {
			return err
		}
		now := time.Now().UnixNano()
		for {
			frame, err := k.frame()
			if err != nil {
				return err
			}
			if frame == nil {
				break
			}
			tag := int(le.Uint16(frame[5:]))
			if tag >= len(k.slots) {
				return errFrame
			}
			s := &k.slots[tag]
			if err := replyError(frame); err != nil {
				return fmt.Errorf("%s, message %d: %w", k.row.name, s.step, err)
			}
			st := &k.row.steps[s.step]
			if st.done == nil || st.done(s, frame[headerSize:]) {
				s.step++
			}
			if s.step < len(k.row.steps) {
				k.out = k.row.steps[s.step].send(k.out, s)
				continue
			}
			k.took = append(k.took, now-s.began)
			if now < last {
				s.tally++
				k.start(s, now)
			} else {
				busy--
			}
		}
	}
	return nil
}

func (k *client) start(s *slot, now int64) {
	s.step, s.began = 0, now
	k.out = k.row.steps[0].send(k.out, s)
}

// newClients connect for a load.
func newClients(at place, t *target, l load) (clients []*client, err error) {
	for i := range l.conns {
		k, err := newClient(at, t, l.depth, i*l.depth)
		if err != nil {
			closeClients(clients)
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		clients = append(clients, k)
	}
	return clients, nil
}

func closeClients(clients []*client) {
	for _, k := range clients {
		k.Close()
	}
}

// measure runs a row for a while.
func measure(t *target, clients []*client, r *row, d time.Duration) (result, error) {
	used, err := cpuOf(t.process)
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	errs := make([]error, len(clients))
	var running sync.WaitGroup
	for i, k := range clients {
		running.Go(func() {
			k.row, k.took = r, k.took[:0]
			if errs[i] = k.run(began.Add(d)); errs[i] != nil {
				k.Close() // the others' requests are answered
			}
		})
	}
	running.Wait()
	lasted := time.Since(began)
	after, err := cpuOf(t.process)
	if err := errors.Join(append(errs, err)...); err != nil {
		return result{}, fmt.Errorf("%s: %w", t.name, err)
	}
	var took []int64
	for _, k := range clients {
		took = append(took, k.took...)
	}
	slices.Sort(took)
	n := len(took)
	return result{
		rate: float64(n) / lasted.Seconds(),
		p50:  time.Duration(took[n/2]),
		p99:  time.Duration(took[n*99/100]),
		cpu:  (after - used) / time.Duration(n),
	}, nil
}
