package main

import (
	"errors"
	"io"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
)

// refusal is an error number of the server's, with the reason in words.
type refusal struct {
	errno  linux.Errno
	reason string // which has the number's text in it
}

func (e *refusal) Error() string { return e.reason }
func (e *refusal) Unwrap() error { return e.errno }

// why asks the server for the reason of what it has just refused. Without one, as of a
// server that has no such file, the error stays as it is.
func (s *session) why(err error) error {
	var errno linux.Errno
	if !errors.As(err, &errno) {
		return err
	}
	_, f, walkErr := s.root.File.Walk([]string{ops.StatusName})
	if walkErr != nil {
		return err
	}
	defer f.Close()
	if _, _, openErr := f.Open(p9.ReadOnly); openErr != nil {
		return err
	}
	text := make([]byte, 4<<10)
	n, readErr := f.ReadAt(text, 0)
	if readErr != nil && readErr != io.EOF {
		return err
	}
	_, reason, _ := strings.Cut(string(text[:n]), "\n")
	reason = strings.TrimSuffix(reason, "\n")
	if reason == errno.Error() || !strings.Contains(reason, errno.Error()) {
		return err
	}
	return &refusal{errno, reason}
}

// explainedFile is a file whose refusals come with their reasons.
type explainedFile struct {
	p9.File
	s *session
}

func (f explainedFile) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.File.Walk(names)
	if errors.Is(err, linux.EACCES) {
		err = f.s.why(err)
	}
	if err != nil {
		return qids, nil, err
	}
	return qids, explainedFile{to, f.s}, nil
}

func (f explainedFile) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	qid, unit, err := f.File.Open(flags)
	return qid, unit, f.s.why(err)
}

func (f explainedFile) WriteAt(b []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(b, offset)
	return n, f.s.why(err)
}

func (f explainedFile) SetAttr(valid p9.SetAttrMask, attr p9.SetAttr) error {
	return f.s.why(f.File.SetAttr(valid, attr))
}

func (f explainedFile) Mkdir(name string, mode p9.FileMode, uid p9.UID, gid p9.GID) (p9.QID, error) {
	qid, err := f.File.Mkdir(name, mode, uid, gid)
	return qid, f.s.why(err)
}

func (f explainedFile) UnlinkAt(name string, flags uint32) error {
	return f.s.why(f.File.UnlinkAt(name, flags))
}

func (f explainedFile) RenameAt(name string, dir p9.File, newName string) error {
	return f.s.why(f.File.RenameAt(name, dir.(explainedFile).File, newName))
}
