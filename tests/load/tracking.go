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

// readEvents is a reader of the proc connector that does nothing with what it reads:
// what any listener costs. It goes on for ever.
func readEvents(stdout io.Writer) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return err
	}
	// nlmsghdr, cn_msg of CN_IDX_PROC, PROC_CN_MCAST_LISTEN.
	var listen [40]byte
	le.PutUint32(listen[0:], 40)
	le.PutUint16(listen[4:], 3)
	le.PutUint32(listen[16:], 1)
	le.PutUint32(listen[20:], 1)
	le.PutUint16(listen[32:], 4)
	le.PutUint32(listen[36:], 1)
	if err := unix.Sendto(fd, listen[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "ready")
	for b := make([]byte, 4096); ; {
		if _, _, err := unix.Recvfrom(fd, b, 0); err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return err
		}
	}
}

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
// second alone, beside a reader that does nothing with the events, and
// beside containerfs, and what CPU time the two take per fork.
func (b *book) tracking(w *world, stateless []string) error {
	type follower struct {
		name  string
		start func() (pid int, stop func(), err error)
		rates []float64
		cpus  []float64 // per fork, µs
	}
	followers := []*follower{
		{name: "alone", start: func() (int, func(), error) { return 0, func() {}, nil }},
		{name: "bare reader", start: func() (int, func(), error) {
			c, _, err := w.sub("reader")
			if err != nil {
				return 0, nil, err
			}
			return c.Process.Pid, func() { kill(c) }, nil
		}},
		{name: "containerfs", start: func() (int, func(), error) {
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
			return c.Process.Pid, func() { c.Process.Signal(unix.SIGTERM); c.Wait() }, nil
		}},
	}
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
			stop()
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
