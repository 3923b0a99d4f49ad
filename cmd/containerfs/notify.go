package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells the service manager what the server is about, by sd_notify(3).
// Without a service manager it does nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("the service manager could not be told", "state", strings.ReplaceAll(state, "\n", " "), "err", err)
	}
}

func (n notifier) ready() { n.send(daemon.SdNotifyReady) }

// reloading has the time with it, by which the manager tells this reload's end from
// an earlier one's (Type=notify-reload).
func (n notifier) reloading() {
	n.send(daemon.SdNotifyReloading + "\n" + strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n"))
}

// status is what `systemctl status` shows of the server, "" for nothing.
func (n notifier) status(text string) {
	n.send("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

func (n notifier) stopping() { n.send(daemon.SdNotifyStopping) }

// watchdog tells the manager that the server is alive, until ctx is done: four times in the
// time that the manager waits, so that one look which was slow does no harm. When alive says
// that it is not, nothing is told, and in the end the manager kills the server and starts
// another.
func (n notifier) watchdog(ctx context.Context, alive func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		n.log.Warn("watchdog", "err", err)
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, interval/4)
		err := alive(check)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Error("the watchdog is not told that the server is alive", "err", err)
		default:
			n.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
