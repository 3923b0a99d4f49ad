package hostsim

// Rows is a state store in memory, for what subsystems keep of tasks.
type Rows struct {
	M      map[string][]byte
	Fail   error // of Write
	Writes int   // that did not fail
}

// NewRows makes an empty one.
func NewRows() *Rows { return &Rows{M: make(map[string][]byte)} }

// Write sets rows, those with nil values are removed.
func (r *Rows) Write(rows map[string][]byte) error {
	if r.Fail != nil {
		return r.Fail
	}
	r.Writes++
	for k, v := range rows {
		if v == nil {
			delete(r.M, k)
		} else {
			r.M[k] = v
		}
	}
	return nil
}

// All yields what there is.
func (r *Rows) All(f func(key string, value []byte)) error {
	for k, v := range r.M {
		f(k, v)
	}
	return nil
}
