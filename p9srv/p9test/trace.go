package p9test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"9fans.net/go/plan9"
)

// NewTrace wraps a connection that is to speak 9P2000. Messages are in the text
// form of the traces of 9fans.net/go/plan9, whose codec makes and reads the
// frames:
//
//	Twalk tag 3 fid 0 newfid 1 wname [a b]
//	Rwalk tag 3 wqid [0x5.0.d 0x6.0]
//	Rerror tag 3 ename Permission denied
//
// In a Twstat, fields of the stat that are not there are not to be touched.
func NewTrace(t testing.TB, c net.Conn) *Wire {
	c.SetDeadline(time.Now().Add(time.Minute))
	return &Wire{t, c, bufio.NewReader(c), EncodeTrace, decodeTrace}
}

// EncodeTrace makes a frame of a 9P2000 message in text form.
func EncodeTrace(text string) ([]byte, error) {
	f, err := plan9.ParseFcall(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return f.Bytes()
}

func decodeTrace(b []byte) string {
	f, err := plan9.UnmarshalFcall(b)
	if err != nil {
		return fmt.Sprintf("%v: %x", err, b)
	}
	return f.String()
}
