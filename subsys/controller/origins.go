package controller

// An Origin is where a task was in the kernel's hierarchy before this server took
// it, to be put back there.
type Origin struct {
	Trunk string `json:"trunk"` // the kernel's hierarchy
	TID   int32  `json:"tid"`   // in version 2 of the process
	Start uint64 `json:"start"` // no earlier than the task's start time
	Path  string `json:"path"`
	ID    uint64 `json:"id"` // the kernel's number for the directory, while it is booted
}

// key is whose an Origin is.
type key struct {
	trunk string
	tid   int32
}

func (o *Origin) key() key { return key{o.Trunk, o.TID} }

// Origins keeps Origins while the server does not run. An Origin is known by its
// Trunk and TID; what was put for them before is replaced. They are worth nothing
// after the host was booted again.
type Origins interface {
	// Put returns when they are kept.
	Put(...Origin) error

	// Delete takes away what is kept for the Trunk and TID of these.
	Delete(...Origin) error

	All() ([]Origin, error)
}

// forgetful is for a server without state.
type forgetful struct{}

func (forgetful) Put(...Origin) error    { return nil }
func (forgetful) Delete(...Origin) error { return nil }
func (forgetful) All() ([]Origin, error) { return nil, nil }

// source is an origin that tasks share: a task's and its children's.
type source struct {
	path string
	id   uint64
}
