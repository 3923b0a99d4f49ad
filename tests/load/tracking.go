package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// runStorm forks for a while and prints how many children it has made. Each of two
// threads forks, its child ends at once and is waited for.
func runStorm(args []string) error {
	fs := flag.NewFlagSet("storm", flag.ContinueOnError)
	d := fs.Duration("time", time.Second, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	began := time.Now()
	made := make(chan int)
	var errs [2]error
	for i := range errs {
		go func() {
			n := 0
			for ; time.Since(began) < *d; n++ {
				pid, err := storm.Fork(0)
				if err == nil {
					_, err = unix.Wait4(pid, nil, 0, nil)
				}
				if err != nil {
					errs[i] = err
					break
				}
			}
			made <- n
		}()
	}
	n := <-made + <-made
	fmt.Println(n, time.Since(began).Nanoseconds())
	return errors.Join(errs[:]...)
}

// tracking measures what it costs to follow the host's forks: how many there are per
// second alone, beside readers that do nothing with the events, a feed each, and
// beside containerfs, and what CPU time these take per fork.
func (b *book) tracking(w *world, stateless []string) error {
	type follower struct {
		name  string
		start func() (pid int, stop func() error, err error)
		rates []float64
		cpus  []float64 // per fork, µs
	}
	followers := []*follower{{name: "alone", start: func() (int, func() error, error) { return 0, func() error { return nil }, nil }}}
	var left strings.Builder
	for _, f := range offered(feeds, &left) {
		followers = append(followers, &follower{name: f.name, start: func() (int, func() error, error) {
			c, _, err := w.sub("reader", f.part)
			if err != nil {
				return 0, nil, err
			}
			return c.Process.Pid, func() error { return endReader(c) }, nil
		}})
	}
	followers = append(followers, &follower{name: "containerfs", start: func() (int, func() error, error) {
		c := child(exec.Command(b.program, append([]string{"serve", "--hierarchy", "bench=" + subsystems, "--listen", "unix://" + w.dir + "/track"}, stateless...)...))
		c.SysProcAttr.Pdeathsig = unix.SIGTERM
		c.Stderr = nil
		stderr, err := c.StderrPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			return 0, nil, err
		}
		in := bufio.NewScanner(stderr)
		for in.Scan() && in.Text() != "ready" {
		}
		go io.Copy(io.Discard, stderr)
		return c.Process.Pid, func() error { c.Process.Signal(unix.SIGTERM); c.Wait(); return nil }, nil
	}})
	var listed []time.Duration
	for rep := range b.reps {
		for n := range followers {
			f := followers[(n+rep)%len(followers)]
			fmt.Fprintf(os.Stderr, "tracking: %s\n", f.name)
			pid, stop, err := f.start()
			if err != nil {
				return fmt.Errorf("tracking: %s: %w", f.name, err)
			}
			var used, after time.Duration
			if pid != 0 {
				used, err = cpuOf(pid)
			}
			var out []byte
			if err == nil {
				out, err = exec.Command(w.self, "storm", "-time", (3 * b.time).String()).Output()
			}
			if err == nil && pid != 0 {
				time.Sleep(20 * time.Millisecond) // what is still queued
				after, err = cpuOf(pid)
			}
			if err == nil && f.name == "containerfs" {
				err = w.listed(place{"unix", w.dir + "/track"}, 3*b.time, &listed)
			}
			err = errors.Join(err, stop())
			var forks, took float64
			if err == nil {
				_, err = fmt.Sscan(strings.TrimSpace(string(out)), &forks, &took)
			}
			if err != nil {
				return fmt.Errorf("tracking: %s: %w", f.name, err)
			}
			f.rates = append(f.rates, forks/took*1e9)
			f.cpus = append(f.cpus, float64((after-used).Microseconds())/forks)
		}
	}
	self := func(x float64) float64 { return x }
	reader := median(followers[1].rates, self)
	fmt.Fprintf(&b.text, "\nForks of the host by two threads, each of which waits for its child, which ends at once:\n\n")
	fmt.Fprintf(&b.text, "| listening | forks/s | to the bare reader's | its CPU µs/fork |\n|---|---|---|---|\n")
	for _, f := range followers {
		fmt.Fprintf(&b.text, "| %s | %.0f | %.2f | %.1f |\n", f.name, median(f.rates, self), median(f.rates, self)/reader, median(f.cpus, self))
	}
	b.text.WriteString(left.String())
	slices.Sort(listed)
	fmt.Fprintf(&b.text, "\nIn such a storm, from a fork's return to its child's being walked to in proc, which must succeed at once: p50 %s µs, p99 %s µs (%d children).\n",
		micros(listed[len(listed)/2]), micros(listed[len(listed)*99/100]), len(listed))
	return nil
}

// listed forks while a storm does so too, and asks the server for each child at once.
func (w *world) listed(at place, d time.Duration, took *[]time.Duration) error {
	c, err := dial(at, "")
	if err != nil {
		return err
	}
	defer c.Close()
	storming := exec.Command(w.self, "storm", "-time", d.String())
	if err := storming.Start(); err != nil {
		return err
	}
	defer storming.Wait()
	for began := time.Now(); time.Since(began) < d; {
		pid, err := storm.Fork(time.Second)
		if err != nil {
			return err
		}
		asked := time.Now()
		c.out = appendWalk(c.out, 0, 0, 1, "proc", strconv.Itoa(pid))
		reply, err := c.ask()
		*took = append(*took, time.Since(asked))
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		if err == nil && le.Uint16(reply) != 2 {
			err = errors.New("a child is not listed")
		}
		if err != nil {
			return err
		}
		c.out = appendClunk(c.out, 0, 1)
		if _, err := c.ask(); err != nil {
			return err
		}
	}
	return nil
}
