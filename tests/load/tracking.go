package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	return nil
}
