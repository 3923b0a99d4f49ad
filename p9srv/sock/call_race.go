//go:build race

package sock

import "syscall"

// The race detector takes what one end of a connection did before it wrote as done
// before the other has read, if these calls are made.

func read(fd uintptr, b []byte) (int, error)  { return syscall.Read(int(fd), b) }
func write(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
