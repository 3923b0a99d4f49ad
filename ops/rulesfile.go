package ops

import (
	"fmt"

	"github.com/hugelgupf/p9/p9"
)

// rulesFile is rules: those in force, as a rules file that could be read again, with
// counts in comments (SPEC §21).
type rulesFile struct{}

func (rulesFile) qid() p9.QID                        { return fileQID(qidRules) }
func (rulesFile) drains() bool                       { return false }
func (rulesFile) attr(fs *FS) (perm, p9.Attr, error) { return fs.fixedFile(0o444) }
func (rulesFile) write(*attachment, []byte) error    { return errReadOnly }

// Matches are tasks for which the line decided in a hierarchy, failures those that
// could not be put where it says. Of templates it shows how many containers they made.
func (rulesFile) read(at *attachment, b []byte) ([]byte, error) {
	c := at.fs.rules
	set := c.set.Load()
	if set.file.Name == "" {
		return append(b, "# no rules\n"...), nil
	}
	b = fmt.Appendf(b, "# file=%q rules=%d waiting=%d overflows=%d\n",
		set.file.Name, len(set.file.Rules), c.queue.pending.Load(), c.queue.lost.Load())
	b = fmt.Appendf(b, "# placements: count=%d p50_us=%d p99_us=%d\n",
		c.placed.count.Load(), c.placed.quantile(0.5).Microseconds(), c.placed.quantile(0.99).Microseconds())
	for _, r := range set.file.Rules {
		n := set.counts[r]
		b = fmt.Appendf(b, "%s\t# line=%d matches=%d failures=%d\n", r, r.Line, n.matches.Load(), n.failures.Load())
	}
	for _, t := range set.templates {
		b = fmt.Appendf(b, "# template=%q made=%d\n", t.Path, t.made.Load())
	}
	return b, nil
}
