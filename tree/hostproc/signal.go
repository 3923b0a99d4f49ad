package hostproc

import (
	"syscall"

	"golang.org/x/sys/unix"

	"containerfs/tree"
)

// Signal sends a signal to the process that a thread is of, and to no other:
// ESRCH when the thread has ended, whoever has its number now.
func (h *Host) Signal(task tree.TaskInfo, sig syscall.Signal) error {
	send := func() error { return unix.Kill(int(task.TGID), sig) }
	switch fd, err := unix.PidfdOpen(int(task.TGID), 0); err {
	case nil:
		defer unix.Close(fd)
		send = func() error { return unix.PidfdSendSignal(fd, sig, nil, 0) }
	case unix.ENOSYS, unix.EPERM:
		// Linux before 5.3, or a filter of system calls: what is looked at now could end
		// and another process get its number until the signal is sent.
	default:
		return failTask("signal", task.TID, err)
	}
	// The descriptor is of one process for ever. If the thread is there now,
	// it is that process's.
	now, err := h.Task(task.TID)
	if err != nil {
		return err
	}
	if now.Start != task.Start || now.TGID != task.TGID {
		return failTask("signal", task.TID, unix.ESRCH)
	}
	if err := send(); err != nil {
		return failTask("signal", task.TID, err)
	}
	return nil
}
