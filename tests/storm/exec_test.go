package storm

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// execOnAnotherThread has a thread that is not the first execute a program.
func execOnAnotherThread(program string) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go execOnAnotherThread(program) // this one is taken
			select {}
		}
		fmt.Fprintln(os.Stderr, syscall.Exec(program, []string{program}, nil))
		os.Exit(1)
	}()
	select {}
}

// unloadable is a program of which the kernel finds out that it cannot load it when it has
// ended all threads but the one that executes it: its code is where the kernel's is.
func unloadable(t *testing.T) string {
	const (
		elfHeader, programHeader = 64, 56
		kernel                   = 0xffff800000000000
	)
	b := make([]byte, elfHeader+programHeader+4096)
	copy(b, "\x7fELF\x02\x01\x01") // 64 bits, little endian, version 1
	put := binary.LittleEndian
	machine := uint16(62) // x86-64
	if runtime.GOARCH == "arm64" {
		machine = 183
	}
	put.PutUint16(b[16:], 2) // ET_EXEC
	put.PutUint16(b[18:], machine)
	put.PutUint32(b[20:], 1)
	put.PutUint64(b[24:], kernel)
	put.PutUint64(b[32:], elfHeader) // where the program headers are
	put.PutUint16(b[52:], elfHeader)
	put.PutUint16(b[54:], programHeader)
	put.PutUint16(b[56:], 1)
	p := b[elfHeader:]
	put.PutUint32(p, 1)     // PT_LOAD
	put.PutUint32(p[4:], 5) // to be read and executed
	put.PutUint64(p[16:], kernel)
	for _, at := range []int{32, 40, 48} { // sizes in the file and in memory, alignment
		put.PutUint64(p[at:], 4096)
	}
	path := filepath.Join(t.TempDir(), "unloadable")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFailedExec: a process ends when a thread of it that is not the first executes what
// cannot be loaded. The kernel tells that the process's number has ended, twice, and
// nothing of the thread's own; nobody stays.
func TestFailedExec(t *testing.T) {
	for _, test := range []struct {
		name string
		setup
	}{{"mirror", setup{}}, {"events", setup{noMirror: true}}} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.setup)
			c := w.containers[0][1]
			for range 20 {
				cmd := exec.Command("/proc/self/exe", "exec", unloadable(t))
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if err := w.tree.Attach(tree.AttachRequest{To: c, ID: int32(cmd.Process.Pid), Process: true}); err != nil {
					t.Error(err)
				}
				in.Write([]byte{0})
				cmd.Wait()
				if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
					t.Fatalf("the exec does not end as it should: %v", cmd.ProcessState)
				}
			}
			var left []int32
			for due := time.Now().Add(time.Minute); time.Now().Before(due); time.Sleep(time.Millisecond) {
				w.tree.Drain()
				w.tree.View(func() { left = c.AppendTasks(nil) })
				if len(left) == 0 {
					return
				}
			}
			t.Errorf("%d are left: %v", len(left), left)
		})
	}
}
