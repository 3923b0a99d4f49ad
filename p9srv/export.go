package p9srv

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Export is what a listener is to serve: where, to whom and on which terms (SPEC
// §17). The options of its address, and the keys of its table in a config file, are
//
//	as=USER               everyone is that user, whatever they say
//	trust=uname           everyone is whom they say they are
//	access=ro|rw          ro: whatever would change something is EROFS
//	attach=NAME           every attach is inside of this hierarchy or container
//	allow=CIDR,...        who else connects is hung up on; of vsock: CIDs
//	no_root_squash        uid 0 stays uid 0 (TCP of this host, trust=uname)
//	cert= key= ca=        TLS: the server's PEM files, and the CA of its clients
//	users=NAME,...        TLS: who is let in; only so can uid 0 be among them
//	cid.N.KEY=VALUE       vsock: lets CID N in; KEY is as, trust, access or attach,
//	                      in place of the listener's
type Export struct {
	Addr
	Terms // unless CIDs has others

	Allow        []netip.Prefix   // tcp and tls; empty: from everywhere
	CIDs         map[uint32]Terms // vsock: of those that are let in
	Users        []string         // tls: whose certificates are let in; empty: those of all but privileged users
	NoRootSquash bool

	// Socket is a listening socket that was passed to this process; nil: one is
	// made. It stays open when the Listener is closed.
	Socket *os.File
}

// Terms are on what terms a peer is let in.
type Terms struct {
	As         string // user that everyone is
	TrustUname bool
	ReadOnly   bool
	Attach     string // attach name that all attaches are inside of, without the first slash
}

// Option is an option of an Export: a key with its value, which is empty for
// no_root_squash.
type Option struct{ Key, Value string }

// OptionError is what is wrong with an Export. Key is empty if it is no single option.
type OptionError struct {
	Key string
	Err error
}

func (e *OptionError) Error() string {
	if e.Key == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("option %q: %v", e.Key, e.Err)
}

func (e *OptionError) Unwrap() error { return e.Err }

// ParseExport parses an address with options.
func ParseExport(s string) (Export, error) {
	a, parsed, err := parseAddr(s)
	opts := make([]Option, len(parsed))
	for i, o := range parsed {
		if o.hasValue == (o.key == "no_root_squash") && err == nil {
			err = &OptionError{o.key, errors.New("takes no value, the others take one")}
		}
		opts[i] = Option{o.key, o.value}
	}
	var e Export
	if err == nil {
		e, err = newExport(a, opts)
	}
	if err != nil {
		return Export{}, fmt.Errorf("address %q: %w", s, err)
	}
	return e, nil
}

// NewExport is an Export of an address without options and of options, of which
// none is given twice. The error can be an OptionError.
func NewExport(addr string, opts []Option) (Export, error) {
	a, parsed, err := parseAddr(addr)
	if err == nil && len(parsed) > 0 {
		err = errors.New("options have keys of their own")
	}
	if err != nil {
		return Export{}, &OptionError{"addr", fmt.Errorf("address %q: %w", addr, err)}
	}
	return newExport(a, opts)
}

func newExport(a Addr, opts []Option) (Export, error) {
	if a.Network == "ssh" {
		return Export{}, &OptionError{Err: errNetwork}
	}
	e := Export{Addr: a}
	own := make(map[uint32][]Option) // of CIDs
	for _, o := range opts {
		var err error
		if rest, ok := strings.CutPrefix(o.Key, "cid."); ok && a.Network == "vsock" {
			n, key, _ := strings.Cut(rest, ".")
			var cid uint32
			cid, err = parseCID(n)
			if err == nil && strconv.FormatUint(uint64(cid), 10) != n {
				err = fmt.Errorf("%q is no CID", n)
			}
			own[cid] = append(own[cid], Option{key, o.Value})
		} else {
			err = e.set(o)
		}
		if err != nil {
			return Export{}, &OptionError{o.Key, err}
		}
	}
	for cid, opts := range own {
		terms := e.Terms
		// Either of them takes the place of either.
		if slices.ContainsFunc(opts, func(o Option) bool { return o.Key == "as" || o.Key == "trust" }) {
			terms.As, terms.TrustUname = "", false
		}
		for _, o := range opts {
			known, err := terms.set(o)
			if !known {
				err = errors.New("unknown option")
			}
			if err != nil {
				return Export{}, &OptionError{fmt.Sprintf("cid.%d.%s", cid, o.Key), err}
			}
		}
		e.addCID(cid, terms)
	}
	if err := e.check(); err != nil {
		return Export{}, &OptionError{Err: err}
	}
	return e, nil
}

func (e *Export) addCID(cid uint32, terms Terms) {
	if e.CIDs == nil {
		e.CIDs = make(map[uint32]Terms)
	}
	e.CIDs[cid] = terms
}

// set takes an option of the listener.
func (e *Export) set(o Option) error {
	known, err := e.Terms.set(o)
	if !known && e.Network == "tls" && o.Key != "name" {
		known, err = e.TLS.set(option{key: o.Key, value: o.Value})
	}
	switch {
	case known:
		return err
	case o.Key == "no_root_squash" && o.Value == "":
		e.NoRootSquash = true
		return nil
	case o.Key == "allow" && e.Network != "unix":
		return e.setAllow(o.Value)
	case o.Key == "users" && e.Network == "tls":
		for name := range strings.SplitSeq(o.Value, ",") {
			if !validUserName(name) {
				return fmt.Errorf("%q is no name of a user", name)
			}
			e.Users = append(e.Users, name)
		}
		return nil
	}
	return fmt.Errorf("unknown option of a %s listener", e.Network)
}

// set takes an option if it is one of Terms.
func (t *Terms) set(o Option) (known bool, err error) {
	switch o.Key {
	case "as":
		if !validUserName(o.Value) {
			err = fmt.Errorf("%q is no name of a user", o.Value)
		}
		t.As = o.Value
	case "trust":
		if o.Value != "uname" {
			err = fmt.Errorf("want uname, got %q", o.Value)
		}
		t.TrustUname = true
	case "access":
		if o.Value != "ro" && o.Value != "rw" {
			err = fmt.Errorf("want ro or rw, got %q", o.Value)
		}
		t.ReadOnly = o.Value == "ro"
	case "attach":
		t.Attach = strings.TrimPrefix(o.Value, "/")
		for name := range strings.SplitSeq(t.Attach, "/") {
			if name == "" || name == "." || name == ".." {
				err = fmt.Errorf("want the name of a hierarchy, or of a container in one, got %q", o.Value)
			}
		}
	default:
		return false, nil
	}
	return true, err
}

func (e *Export) setAllow(list string) error {
	for s := range strings.SplitSeq(list, ",") {
		if e.Network == "vsock" {
			cid, err := parseCID(s)
			if err != nil {
				return err
			}
			e.addCID(cid, Terms{})
			continue
		}
		p, err := netip.ParsePrefix(s)
		if addr, errAddr := netip.ParseAddr(s); errAddr == nil && addr.Zone() == "" {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			return fmt.Errorf("%q is no CIDR", s)
		case p.Addr().Is4In6():
			return fmt.Errorf("%q never matches: peers over IPv4 have IPv4 addresses", s)
		case p != p.Masked():
			return fmt.Errorf("%q has bits beyond the mask: %s?", s, p.Masked())
		}
		e.Allow = append(e.Allow, p)
	}
	return nil
}

// validUserName keeps what is no name of a user out of the lookups.
func validUserName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return s != "" && s[0] != '-' && len(s) <= 256
}

// check looks at the options together, and gives the CIDs of allow= their terms.
func (e *Export) check() error {
	if e.As != "" && e.TrustUname {
		return errors.New("as= and trust= exclude each other")
	}
	switch e.Network {
	case "tls":
		if len(e.Users) > 0 && (e.As != "" || e.TrustUname) {
			return errors.New("users= goes by the certificates' names, which as= and trust= do not ask for")
		}
		return e.TLS.check()
	case "vsock":
		if len(e.CIDs) == 0 {
			return errors.New("vsock needs the CIDs that are let in: allow=N,... or cid.N.as=USER")
		}
		for cid, terms := range e.CIDs {
			if terms == (Terms{}) {
				terms = e.Terms
				e.CIDs[cid] = terms
			}
			switch {
			case terms.As != "" && terms.TrustUname:
				return fmt.Errorf("as= and trust= exclude each other (CID %d)", cid)
			case terms.As == "" && !terms.TrustUname:
				return fmt.Errorf("peers on vsock have no identity: it needs as= or trust= (CID %d)", cid)
			}
		}
	}
	return nil
}

// String gives the address with its options. It can be parsed again.
func (e Export) String() string {
	opts := append(e.TLS.options(), e.Terms.options("", Terms{})...)
	if len(e.Allow) > 0 {
		allow := make([]string, len(e.Allow))
		for i, p := range e.Allow {
			allow[i] = p.String()
		}
		opts = append(opts, "allow="+strings.Join(allow, ","))
	}
	if len(e.Users) > 0 {
		opts = append(opts, "users="+strings.Join(e.Users, ","))
	}
	if e.NoRootSquash {
		opts = append(opts, "no_root_squash")
	}
	var same []string
	for _, cid := range slices.Sorted(maps.Keys(e.CIDs)) {
		if own := e.CIDs[cid].options(fmt.Sprintf("cid.%d.", cid), e.Terms); len(own) > 0 {
			opts = append(opts, own...)
		} else {
			same = append(same, strconv.FormatUint(uint64(cid), 10))
		}
	}
	if len(same) > 0 {
		opts = append(opts, "allow="+strings.Join(same, ","))
	}
	s := e.Addr.Plain().String()
	if len(opts) > 0 {
		s += "?" + strings.Join(opts, "&")
	}
	return s
}

// options are those in which the terms differ from the listener's.
func (t Terms) options(prefix string, listener Terms) (opts []string) {
	add := func(key, value string) { opts = append(opts, prefix+key+"="+escapeValue(value)) }
	if t.As != listener.As && t.As != "" {
		add("as", t.As)
	}
	if t.TrustUname && !listener.TrustUname {
		add("trust", "uname")
	}
	switch {
	case t.ReadOnly && !listener.ReadOnly:
		add("access", "ro")
	case !t.ReadOnly && listener.ReadOnly:
		add("access", "rw")
	}
	if t.Attach != listener.Attach {
		add("attach", t.Attach)
	}
	return opts
}
