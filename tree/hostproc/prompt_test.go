package hostproc

import "testing"

// looker is a model that looks at the delivery during a resync.
type looker struct {
	*recorder
	resync func()
}

func (l looker) Resync(uint64) { l.resync() }

// A host is prompt only while nothing that takes long is before an event that comes now.
func TestPrompt(t *testing.T) {
	h := connected(t, Options{})
	d := h.delivery
	d.model = looker{newRecorder(), func() {
		if h.Prompt() {
			t.Error("prompt during a resync")
		}
	}}
	if !h.Prompt() {
		t.Fatal("not prompt when nothing has come")
	}
	for range 2 { // the second joins the first
		d.ask()
		if h.Prompt() {
			t.Error("prompt before a resync")
		}
	}
	d.applying.Lock()
	d.step()
	d.applying.Unlock()
	if !h.Prompt() {
		t.Error("not prompt after a resync")
	}
	d.put(make([]event, few), true)
	if !h.Prompt() {
		t.Error("not prompt with few entries")
	}
	d.put(make([]event, 1), true)
	if h.Prompt() {
		t.Error("prompt with many entries")
	}
	d.applying.Lock()
	d.step()
	d.applying.Unlock()
	h.conn.overflow.Store(true)
	if h.Prompt() {
		t.Error("prompt while events are lost")
	}
	h.conn.overflow.Store(false)
	if !h.Prompt() {
		t.Error("not prompt at the end")
	}
	polling, err := Open(Options{Polling: true})
	if err != nil {
		t.Fatal(err)
	}
	defer polling.Close()
	if polling.Prompt() {
		t.Error("prompt by polling")
	}
}
