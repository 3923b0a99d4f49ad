package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"containerfs/tree"
)

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

// OriginsIn keeps origins in rows, in the boot of the host that has this id: of another
// boot there is none.
func OriginsIn(rows tree.Rows, boot string) Origins {
	return stored{rows, strings.TrimSpace(boot)}
}

type stored struct {
	rows tree.Rows
	boot string
}

// row is an Origin with the boot that it is of.
type row struct {
	Origin
	Boot string `json:"boot"`
}

func (o *Origin) name() string { return o.Trunk + " " + strconv.Itoa(int(o.TID)) }

func (s stored) Put(origins ...Origin) error {
	rows := make(map[string][]byte, len(origins))
	for _, o := range origins {
		text, err := json.Marshal(row{o, s.boot})
		if err != nil {
			return err
		}
		rows[o.name()] = text
	}
	return s.rows.Write(rows)
}

func (s stored) Delete(origins ...Origin) error {
	rows := make(map[string][]byte, len(origins))
	for _, o := range origins {
		rows[o.name()] = nil
	}
	return s.rows.Write(rows)
}

func (s stored) All() (all []Origin, err error) {
	var bad error
	old := make(map[string][]byte)
	err = s.rows.All(func(key string, value []byte) {
		var r row
		switch e := json.Unmarshal(value, &r); {
		case e != nil || r.name() != key:
			bad = fmt.Errorf("where a task came from, %q, cannot be understood: %w", key, errors.Join(e, syscall.EIO))
		case r.Boot != s.boot:
			old[key] = nil
		default:
			all = append(all, r.Origin)
		}
	})
	if err = errors.Join(err, bad); err == nil && len(old) > 0 {
		err = s.rows.Write(old)
	}
	return all, err
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
