package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// key is what a result is of.
type key struct {
	part    *part
	row     *row
	load    load
	network string
	target  string
}

// part is a comparison that has tables of its own.
type part struct {
	note   string         // in their headings
	rows   *regexp.Regexp // that it has, by their short names; nil: all
	judged bool           // by the goals
}

var (
	peers    = &part{judged: true}
	moves    = &part{note: "beside a floor that has the kernel move the task", rows: regexp.MustCompile("^(move|stay)$"), judged: true}
	variants = &part{note: "containerfs in other ways"}
)

// book is where results are kept.
type book struct {
	*settings
	began   time.Time
	results map[key][]result

	loadTables []loadTable
	text       strings.Builder // of the other parts, as Markdown
}

// loadTable is what was measured at one place under one load.
type loadTable struct {
	part    *part
	network string
	load    load
	targets []string
	rows    []*row
}

// key is what the results of a row of the table are kept by.
func (t *loadTable) key(r *row, target string) key { return key{t.part, r, t.load, t.network, target} }

// measureAll measures a part's rows under some loads at a place, the targets in turn.
func (b *book) measureAll(p *part, targets []*target, at int, loads []load) error {
	if b.results == nil {
		b.results = make(map[key][]result)
	}
	for _, l := range loads {
		if !b.loads.MatchString(fmt.Sprintf("%dx%d", l.conns, l.depth)) {
			continue
		}
		t := loadTable{part: p, network: targets[0].places[at].network, load: l}
		clients := make(map[*target][]*client)
		for _, t1 := range targets {
			t.targets = append(t.targets, t1.name)
			k, err := newClients(t1.places[at], t1, l)
			if err != nil {
				return err
			}
			defer closeClients(k)
			clients[t1] = k
		}
		do := func() error { return b.measureRows(&t, targets, clients) }
		var err error
		if l == (load{1, 1}) {
			err = b.onOneCPU(targets, clients, do)
		} else {
			err = do()
		}
		if err != nil {
			return err
		}
		b.loadTables = append(b.loadTables, t)
	}
	return nil
}

// settling is the time after which a Go program that is busy has seen that it has
// other CPUs.
const settling = 1500 * time.Millisecond

// onOneCPU does something while all targets and this program share one CPU, and have
// seen that.
func (b *book) onOneCPU(targets []*target, clients map[*target][]*client, do func() error) error {
	var pids []int
	for _, t := range targets {
		pids = append(pids, t.process)
	}
	return pinned(pids, func() error {
		for _, t := range targets {
			if _, err := measure(t, clients[t], &rows[0], settling); err != nil {
				return err
			}
		}
		return do()
	})
}

// measureRows measures a table's rows.
func (b *book) measureRows(t *loadTable, targets []*target, clients map[*target][]*client) error {
	for i := range rows {
		r := &rows[i]
		if !b.rows.MatchString(r.short) || t.part.rows != nil && !t.part.rows.MatchString(r.short) {
			continue
		}
		t.rows = append(t.rows, r)
		fmt.Fprintf(os.Stderr, "%s %v %s\n", t.network, t.load, r.name)
		for rep := range b.reps {
			for n := range targets {
				t1 := targets[(n+rep)%len(targets)]
				res, err := measure(t1, clients[t1], r, b.time)
				if err != nil {
					return err
				}
				k := t.key(r, t1.name)
				b.results[k] = append(b.results[k], res)
			}
		}
	}
	return nil
}

// median of what was measured of one target.
func (b *book) median(t *loadTable, r *row, name string) (m result) {
	all := b.results[t.key(r, name)]
	return result{
		rate: median(all, func(r result) float64 { return r.rate }),
		p50:  time.Duration(median(all, func(r result) float64 { return float64(r.p50) })),
		p99:  time.Duration(median(all, func(r result) float64 { return float64(r.p99) })),
		cpu:  time.Duration(median(all, func(r result) float64 { return float64(r.cpu) })),
	}
}

func median[T any](all []T, value func(T) float64) float64 {
	var v []float64
	for _, x := range all {
		v = append(v, value(x))
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// publish prints the tables, and writes them and the plot where that was asked for.
func (b *book) publish() error {
	var out strings.Builder
	for i := range b.loadTables {
		b.table(&out, &b.loadTables[i])
	}
	out.WriteString(b.text.String())
	fmt.Print(plain(out.String()))
	fmt.Printf("(%v)\n", time.Since(b.began).Round(time.Second))
	if b.settings.table != "" {
		if err := os.WriteFile(b.settings.table, []byte(out.String()), 0o644); err != nil {
			return err
		}
	}
	if b.plot != "" {
		return os.WriteFile(b.plot, b.draw(), 0o644)
	}
	return nil
}

// table is one of Markdown.
func (b *book) table(out *strings.Builder, t *loadTable) {
	what := t.network
	if t.load == (load{1, 1}) {
		what += ", server and client on one CPU"
	}
	if t.part.note != "" {
		what += ", " + t.part.note
	}
	fmt.Fprintf(out, "\n%v over %s:\n\n", t.load, what)
	first := t.targets[0]
	head := "| operation |"
	for _, name := range t.targets {
		head += " " + name + " /s |"
	}
	for _, name := range t.targets[1:] {
		head += " to " + name + " |"
	}
	if t.part.judged {
		head += " goal |"
	}
	head += " p50, p99 µs |"
	for _, name := range t.targets[1:] {
		head += " p50, p99 " + name + " |"
	}
	head += " CPU µs/op |"
	for _, name := range t.targets[1:] {
		head += " CPU " + name + " |"
	}
	fmt.Fprintf(out, "%s\n|%s\n", head, strings.Repeat("---|", strings.Count(head, "|")-1))
	for _, r := range t.rows {
		own := b.median(t, r, first)
		var rates, ratios, times, cpu string
		for _, name := range t.targets {
			m := b.median(t, r, name)
			rates += fmt.Sprintf(" %.0f |", m.rate)
			times += fmt.Sprintf(" %s, %s |", micros(m.p50), micros(m.p99))
			cpu += fmt.Sprintf(" %s |", micros(m.cpu))
			if name != first {
				ratios += fmt.Sprintf(" %.2f |", own.rate/m.rate)
			}
		}
		if t.part.judged {
			ratios += " " + b.judge(t, r) + " |"
		}
		fmt.Fprintf(out, "| %s |%s%s%s%s\n", r.name, rates, ratios, times, cpu)
	}
}

// judge says what of the goals is missed.
func (b *book) judge(t *loadTable, r *row) string {
	own, diod, floor := b.median(t, r, "containerfs"), b.median(t, r, "diod"), b.median(t, r, "floor")
	goal := r.goals.pinned
	switch t.load {
	case load{1, 32}:
		goal = r.goals.deep
	case load{8, 8}:
		goal = r.goals.wide
	}
	verdict := fmt.Sprintf("%g", goal)
	if own.rate < goal*diod.rate {
		verdict += " **missed**"
	}
	if t.load != (load{1, 1}) && 3*own.cpu > diod.cpu {
		verdict += fmt.Sprintf(", CPU 1/%.1f", float64(diod.cpu)/float64(own.cpu))
	}
	if r.short == "getattr" && own.rate < 0.6*floor.rate {
		verdict += ", floor **missed**"
	}
	return verdict
}

func micros(d time.Duration) string {
	us := float64(d) / 1000
	if us < 10 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

// plain is a table of Markdown for a terminal.
func plain(markdown string) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for line := range strings.Lines(markdown) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "|---") {
			continue
		}
		if strings.HasPrefix(line, "|") {
			line = strings.ReplaceAll(strings.Trim(line, "| "), " |", "\t")
		}
		fmt.Fprintln(w, line)
	}
	w.Flush()
	return out.String()
}
