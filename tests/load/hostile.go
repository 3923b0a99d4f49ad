package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

// A hostile load goes on beside an honest client until it is stopped.
type hostileLoad struct {
	name  string
	start func(at place, aname string) (stop func(), err error)
}

var hostileLoads = []hostileLoad{
	{"nobody", func(place, string) (func(), error) { return func() {}, nil }},
	{"50 that never read", neverRead},
	{"200 that send a byte at a time, 2,000 a second", bytewise},
	{"10,000 connections", crowd},
}

// neverRead asks for as much as fits, and reads nothing.
func neverRead(at place, aname string) (func(), error) {
	var conns []net.Conn
	stop := func() { closeAll(conns) }
	for range 50 {
		c, err := dial(at, aname)
		if err != nil {
			stop()
			return nil, err
		}
		conns = append(conns, c)
		for range 1000 {
			c.out = appendGetattr(c.out, 1, 0)
		}
		flood := c.out
		go func() {
			for {
				if _, err := c.Write(flood); err != nil {
					return
				}
			}
		}()
	}
	return stop, nil
}

// bytewise sends requests a byte at a time, one after the other on each connection.
func bytewise(at place, aname string) (func(), error) {
	var conns []net.Conn
	done := make(chan struct{})
	stop := func() { close(done); closeAll(conns) }
	for range 200 {
		c, err := dial(at, aname)
		if err != nil {
			stop()
			return nil, err
		}
		conns = append(conns, c)
	}
	request := appendGetattr(nil, 1, 0)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if n%2 == 0 {
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
			at := n / len(conns) % len(request)
			conns[n%len(conns)].Write(request[at : at+1])
		}
	}()
	return stop, nil
}

// crowd connects, attaches, and does nothing more.
func crowd(at place, aname string) (func(), error) {
	var conns []net.Conn
	for range 10000 {
		c, err := dial(at, aname)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		c.in = nil
		conns = append(conns, c)
	}
	return func() { closeAll(conns) }, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// hostile measures an honest client, one operation at a time, beside each load, which
// comes over the unix socket while the client comes over TCP.
func (b *book) hostile(t *target) error {
	r := &rows[2]
	honest, err := newClients(t.places[0], t, load{1, 1})
	if err != nil {
		return err
	}
	defer closeClients(honest)
	results := make(map[string][]result)
	for _, h := range hostileLoads {
		fmt.Fprintf(os.Stderr, "hostile: %s\n", h.name)
		stop, err := h.start(t.places[1], t.aname)
		if err != nil {
			return fmt.Errorf("hostile: %s: %w", h.name, err)
		}
		time.Sleep(200 * time.Millisecond)
		for range b.reps {
			res, err := measure(t, honest, r, 2*b.time)
			if err != nil {
				stop()
				return fmt.Errorf("hostile: %s: %w", h.name, err)
			}
			results[h.name] = append(results[h.name], res)
		}
		stop()
		time.Sleep(200 * time.Millisecond)
	}
	p99 := func(name string) float64 {
		return median(results[name], func(r result) float64 { return float64(r.p99) })
	}
	fmt.Fprintf(&b.text, "\nAn honest client, 1×1 over tcp, %s, beside others:\n\n", r.name)
	fmt.Fprintf(&b.text, "| others | /s | p50 µs | p99 µs | p99 to nobody's |\n|---|---|---|---|---|\n")
	for _, h := range hostileLoads {
		all := results[h.name]
		fmt.Fprintf(&b.text, "| %s | %.0f | %s | %s | %.2f |\n", h.name,
			median(all, func(r result) float64 { return r.rate }),
			micros(time.Duration(median(all, func(r result) float64 { return float64(r.p50) }))),
			micros(time.Duration(p99(h.name))), p99(h.name)/p99("nobody"))
	}
	return nil
}
