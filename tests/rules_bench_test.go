package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// execsMain executes a program so many times, at a rate that it keeps up as well as it
// can: RATE COUNT PROGRAM ARG0 ARG....
func execsMain(args []string) error {
	signal.Ignore(syscall.SIGCHLD) // so there is nobody to wait for
	var rate, count int
	if _, err := fmt.Sscan(args[0]+" "+args[1], &rate, &count); err != nil {
		return err
	}
	began := time.Now()
	for i := range count {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		if _, err := syscall.ForkExec(args[2], args[3:], &syscall.ProcAttr{}); err != nil {
			return err
		}
	}
	fmt.Print(time.Since(began).Seconds())
	return nil
}

// BenchmarkRules has programs executed at a steady rate that a rule moves, as which
// SPEC §21 has it, and reports how long they waited for that, from the kernel's event
// on; how many were moved at all, since one that ends first is not; and what an exec
// cost the server. In a tight loop the machine itself is the limit.
func BenchmarkRules(b *testing.B) {
	for _, rate := range []int{500, 1000, 2000, 1_000_000} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) { benchmarkRules(b, rate) })
	}
}

func benchmarkRules(b *testing.B, rate int) {
	const seconds, most = 5, 10_000
	dir := openDir(b)
	r := &ruled{dir: dir, file: filepath.Join(dir, "rules.conf")}
	writeFile(b, r.file, "64001:tool cpu,net tools create\n")
	r.server = startServer(b, "--hierarchy", "net=debug", "--hierarchy", "cpu=numtasks", "--rules", r.file)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox") // static: it is executed quickly
	if err != nil {
		b.Fatal(err)
	}
	tool, execs := filepath.Join(dir, "tool"), filepath.Join(dir, "execs")
	for to, from := range map[string]string{tool: busybox, execs: self} {
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.WriteFile(to, text, 0o755)); err != nil {
			b.Fatal(err)
		}
	}
	count := min(rate*seconds, most)
	cpu := cpuTime(b, r.cmd.Process.Pid)
	for b.Loop() {
		cmd := exec.Command(execs, strconv.Itoa(rate), strconv.Itoa(count), tool, "sleep", "0.3")
		cmd.Env = append(os.Environ(), "CONTAINERFS_TEST_EXECS=1")
		cmd.Dir = "/"
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: professor, Gid: professor}}
		out, err := cmd.Output()
		took, errs := strconv.ParseFloat(string(out), 64)
		if err := errors.Join(err, errs); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(count)/took, "execs/s")
	}
	r.settled()
	cpu = cpuTime(b, r.cmd.Process.Pid) - cpu
	file := r.run("read", "/rules")
	m := regexp.MustCompile(`# placements: count=(\d+) p50_us=(\d+) p99_us=(\d+)\n`).FindStringSubmatch(file)
	if m == nil || number(b, m[1]) == 0 {
		b.Fatalf("no placements:\n%s", file)
	}
	b.ReportMetric(100*float64(number(b, m[1]))/float64(count*b.N), "%placed")
	b.ReportMetric(float64(number(b, m[2])), "p50-us")
	b.ReportMetric(float64(number(b, m[3])), "p99-us")
	b.ReportMetric(float64(cpu.Microseconds())/float64(count*b.N), "cpu-us/exec")
	b.ReportMetric(0, "ns/op")
}
