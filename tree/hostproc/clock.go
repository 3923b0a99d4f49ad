package hostproc

import "golang.org/x/sys/unix"

// Ticks of start times are hundredths of a second: USER_HZ, which is the same
// on every architecture that Go has.
const tick = 1e9 / 100

// Now is the clock that stamps events.
func (h *Host) Now() int64 { return clock(unix.CLOCK_MONOTONIC) }

// Tick is the clock tick of start times that it is now.
func (h *Host) Tick() uint64 { return uint64(clock(unix.CLOCK_BOOTTIME)) / tick }

// ticksAt converts the time stamp of an event to the clock of start times,
// which counts from boot and goes on during suspend, given sleep, read after the
// event. No thread whose fork has that stamp started in a later tick: the kernel
// reads the start time first. It can have started in an earlier one.
func ticksAt(ns, sleep int64) uint64 {
	return uint64(max(ns+sleep, 0)) / tick
}

// sleep is how far the clock of start times is ahead of that of events: the time
// that the machine was suspended. It only grows.
func sleep() int64 {
	// In the order that makes it too large rather than too small.
	mono := clock(unix.CLOCK_MONOTONIC)
	return clock(unix.CLOCK_BOOTTIME) - mono
}

func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic("hostproc: no clock: " + err.Error()) // every kernel has both
	}
	return ts.Nano()
}
