package p9srv_test

import (
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
)

func TestWstat(t *testing.T) {
	const d = "Twalk tag 1 fid 0 newfid 1 wname d\nRwalk tag 1 wqid [0x2.0.d]\n"
	const f = "Twalk tag 1 fid 0 newfid 1 wname f\nRwalk tag 1 wqid [0x3.0]\n"
	for name, script := range map[string]string{
		"name": d + `
			Twstat tag 1 fid 1 stat (name e)
			Rwstat tag 1
			Twalk tag 1 fid 0 newfid 2 wname e
			Rwalk tag 1 wqid [0x2.0.d]
			Twalk tag 1 fid 0 newfid 3 wname d
			Rerror tag 1 ename No such file or directory
			Twstat tag 1 fid 1 stat (name f)
			Rerror tag 1 ename File exists
			Twstat tag 1 fid 1 stat (name e)
			Rwstat tag 1`,
		"name of the root": `
			Twstat tag 1 fid 0 stat (name e)
			Rerror tag 1 ename Device or resource busy
			Twstat tag 1 fid 0 stat (name /)
			Rwstat tag 1`,
		"name of a file": f + `
			Twstat tag 1 fid 1 stat (name e)
			Rerror tag 1 ename Not a directory`,
		"mode": d + `
			Twstat tag 1 fid 1 stat (mode d-rwx------)
			Rwstat tag 1
			Tstat tag 1 fid 1
			Rstat tag 1 stat name 'd' uid 'root' gid 'root' muid 'root' qid 0x2.0.d mode d-rwx------ ...
			Twstat tag 1 fid 1 stat (mode --rwx------)
			Rerror tag 1 ename Operation not permitted
			Twstat tag 1 fid 1 stat (mode da-rwx------)
			Rerror tag 1 ename Operation not permitted`,
		"owner": d + `
			Twstat tag 1 fid 1 stat (uid daemon gid 4294967294)
			Rwstat tag 1
			Tstat tag 1 fid 1
			Rstat tag 1 stat name 'd' uid 'daemon' gid '4294967294' muid 'daemon' qid 0x2.0.d mode d-rw-r--r-- ...
			Twstat tag 1 fid 1 stat (uid nosuchuser)
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat (gid nosuchgroup)
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat (uid 4294967295)
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat (uid -1)
			Rerror tag 1 ename Invalid argument`,
		"length": f + `
			Topen tag 1 fid 1 mode ORDWR
			Ropen tag 1 qid 0x3.0 iounit 0
			Twstat tag 1 fid 1 stat (length 0)
			Rwstat tag 1
			Twstat tag 1 fid 1 stat (length 4)
			Rwstat tag 1
			Twstat tag 1 fid 1 stat (length 3)
			Rerror tag 1 ename Invalid argument
			Tread tag 1 fid 1 count 10
			Rread tag 1 count 4 "0-3\n"`,
		"what cannot be changed": d + `
			Twstat tag 1 fid 1 stat (type 1)
			Rerror tag 1 ename Operation not permitted
			Twstat tag 1 fid 1 stat (dev 1)
			Rerror tag 1 ename Operation not permitted
			Twstat tag 1 fid 1 stat (qid 0x7.0.d)
			Rerror tag 1 ename Operation not permitted
			Twstat tag 1 fid 1 stat (muid daemon)
			Rwstat tag 1
			Tstat tag 1 fid 1
			Rstat tag 1 stat ` + statD,
		"all as it was": d + `
			Twstat tag 1 fid 1 stat (` + statD + `)
			Rwstat tag 1`,
		"nothing": f + `
			Twstat tag 1 fid 1
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat ()
			Rwstat tag 1
			Topen tag 1 fid 1 mode OWRITE
			Ropen tag 1 qid 0x3.0 iounit 0
			Twstat tag 1 fid 1 stat ()
			Rwstat tag 1
			Twstat tag 1 fid 7 stat ()
			Rerror tag 1 ename Bad file descriptor`,
		"all or nothing: attributes that are refused": d + `
			Twstat tag 1 fid 1 stat (name e mode d-rwx------ uid nosuchuser)
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat (name e mode d-rwx------ length 7)
			Rerror tag 1 ename Invalid argument
			Twstat tag 1 fid 1 stat (name f mode d-rwx------)
			Rerror tag 1 ename File exists
			Tstat tag 1 fid 1
			Rstat tag 1 stat ` + statD,
	} {
		t.Run(name, func(t *testing.T) {
			_, a := start(t, p9srv.Config{})
			w := trace(t, a)
			w.Script(helloClassic + script)
		})
	}
}

// TestWstatOfNothing is a commit, says stat(5).
func TestWstatOfNothing(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w := trace(t, a)
	w.Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1 wname f
		Rwalk tag 1 wqid [0x3.0]
		Topen tag 1 fid 1 mode OWRITE
		Ropen tag 1 qid 0x3.0 iounit 0`)
	g := hold(t, tree, "fsync")
	w.Send("Twstat tag 1 fid 1 stat ()")
	g.await(t, 1)
	g.release()
	w.Want("Rwstat tag 1")
}

// TestWstatTakesTheNameBack has a File refuse the attributes after the name was
// changed.
func TestWstatTakesTheNameBack(t *testing.T) {
	tree := p9test.NewTree()
	tree.Put("d", nil)
	a := p9test.Serve(t, p9srv.Config{Attacher: refusing{tree}})
	trace(t, a).Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1 wname d
		Rwalk tag 1 wqid [0x2.0.d]
		Twstat tag 1 fid 1 stat (name e mode d-rwx------)
		Rerror tag 1 ename Operation not permitted
		Tstat tag 1 fid 1
		Rstat tag 1 stat ` + statD + `
		Twalk tag 1 fid 0 newfid 2 wname d
		Rwalk tag 1 wqid [0x2.0.d]`)
}

// TestCreateThatCannotBeOpened makes directories whose Open is refused: the maker may
// have it open for all that its mode says, and it is not left behind for other reasons.
func TestCreateThatCannotBeOpened(t *testing.T) {
	tree := p9test.NewTree()
	a := p9test.Serve(t, p9srv.Config{Attacher: refusing{tree}})
	trace(t, a).Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1
		Rwalk tag 1 wqid []
		Tcreate tag 1 fid 1 name secret perm d---------- mode OREAD
		Rcreate tag 1 qid 0x2.0.d iounit 0
		Tread tag 1 fid 1 count 100
		Rread tag 1 count 0 []
		Twalk tag 1 fid 0 newfid 2
		Rwalk tag 1 wqid []
		Tcreate tag 1 fid 2 name broken perm d-rwxr-xr-x mode OREAD
		Rerror tag 1 ename No such device
		Twalk tag 1 fid 0 newfid 3 wname broken
		Rerror tag 1 ename No such file or directory
		Tstat tag 1 fid 2                        # stays where it was
		Rstat tag 1 stat name '/'...`)
}

// refusing is a Tree in which nobody may change attributes, nor open anything: EACCES
// of what has no permissions, ENODEV of what has some.
type refusing struct{ *p9test.Tree }

func (t refusing) Attach(c *ops.Caller, aname string) (p9.File, error) {
	f, err := t.Tree.Attach(c, aname)
	return refusingFile{f}, err
}

type refusingFile struct{ p9.File }

func (f refusingFile) SetAttr(p9.SetAttrMask, p9.SetAttr) error { return linux.EPERM }

func (f refusingFile) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	_, _, attr, err := f.GetAttr(p9.AttrMask{Mode: true})
	switch {
	case err != nil:
	case attr.Mode&0o777 == 0:
		err = linux.EACCES
	default:
		err = linux.ENODEV
	}
	return p9.QID{}, 0, err
}

func (f refusingFile) Remove() error { return f.File.(interface{ Remove() error }).Remove() }

func (f refusingFile) Rename(dir p9.File, name string) error {
	return f.File.Rename(dir.(refusingFile).File, name)
}

func (f refusingFile) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.File.Walk(names)
	if err == nil {
		to = refusingFile{to}
	}
	return qids, to, err
}
