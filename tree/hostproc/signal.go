package hostproc

import (
	"syscall"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// Signal sends a signal to the process that a thread is of, and to no other:
// ESRCH when the thread has ended, whoever has its number now.
func (h *Host) Signal(task tree.TaskInfo, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(int(task.TGID), 0)
	if err != nil {
		return failTask("signal", task.TID, err)
	}
	defer unix.Close(fd)
	// The descriptor is of one process for ever. If the thread is there now,
	// it is that process's.
	now, err := h.Task(task.TID)
	if err != nil {
		return err
	}
	if now.Start != task.Start || now.TGID != task.TGID {
		return failTask("signal", task.TID, unix.ESRCH)
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return failTask("signal", task.TID, err)
	}
	return nil
}
