package ops

import (
	"io"

	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// eventsFile is the host's events: the file of that name in the root directory.
// A hierarchy's is a control file of its root.
type eventsFile struct{}

func (eventsFile) qid() p9.QID { return fileQID(qidEvents) }

func (eventsFile) attr(fs *FS) (perm, p9.Attr, error) {
	p := fs.eventsPerm
	a := fill(p, p9.ModeRegular, 1, times{mtime: fs.started}, fs.started)
	a.Size = uint64(fs.recorder.log.size())
	return p, a, nil
}

func (eventsFile) stream(fs *FS) *eventLog { return fs.recorder.log }

// setAttr opens the log to others. Inside Change.
func (eventsFile) setAttr(at *attachment, valid p9.SetAttrMask, attr p9.SetAttr) error {
	p := at.fs.eventsPerm
	if err := at.change(&p, new(times), valid, attr); err != nil {
		return err
	}
	at.fs.tree.Update(func() {
		at.fs.eventsPerm = p
		if j := at.fs.journal; j != nil {
			j.put(eventsKey, permRow(p), nil)
		}
	})
	return nil
}

// stream is a node that is read where it is at, not as one value per open.
type stream interface {
	node
	stream(fs *FS) *eventLog
}

// readStream reads a log at an offset of the file. A log drops its oldest lines. Who reads
// on where they were gets the oldest that is kept, and from there on the log's offsets are
// his plus f.skipped. A read that does not go on where the last one ended has an offset of
// the log itself.
func (f *file) readStream(l *eventLog, b []byte, offset int64) (int, error) {
	if offset != f.next {
		f.skipped = 0
	}
	n, from := l.readAt(b, offset+f.skipped)
	f.skipped, f.next = from-offset, offset+int64(n)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// logStream is a hierarchy's log as a control file shows it.
func logStream(c *tree.Container) *eventLog { return rootOf(c.Hierarchy()).log }
