package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"stampede/bench/load"
)

// report is the result of a run.
type report struct {
	Benchmark    string   `json:"benchmark"`
	Loop         string   `json:"loop"`
	Connections  int      `json:"connections"`
	Users        int      `json:"users"`
	Products     int      `json:"products"`
	RoundSeconds float64  `json:"round_seconds"`
	Seconds      float64  `json:"seconds"` // of the whole run
	Machine      machine  `json:"machine"`
	Stampede     summary  `json:"stampede"`
	Empty        summary  `json:"empty_handler"`
	Ratio        spread   `json:"ratio"`    // of accepted a second, round by round
	Marks        []string `json:"marks"`    // why to doubt the numbers
	Failures     []string `json:"failures"` // what the shop did wrong
	Books        books    `json:"books"`
	Rounds       []round  `json:"rounds"`
}

// books is whether what was answered is what happened.
type books struct {
	Accepted   int64  `json:"accepted"`   // orders answered with 201, warm-up included
	UnitsSold  int64  `json:"units_sold"` // what the products say
	Violations string `json:"violations,omitempty"`
	Unaudited  string `json:"unaudited,omitempty"` // why nobody knows whether they close
}

// check compares the stock with the answers, and has the books audited.
func (b *books) check(ctx context.Context, s *shop, g load.Goods) (err error) {
	if b.UnitsSold, err = s.sold(ctx, g); err != nil {
		return err
	}
	if b.Violations, err = s.audit(ctx); err != nil {
		b.Unaudited = err.Error() // what was measured is worth telling all the same
	}
	return ctx.Err()
}

// When a run is marked.
const (
	generatorCoresMax = 0.5  // of one processor; above, the generator takes what the servers would need
	othersCoresMax    = 0.25 // other programs, and the kernel's own threads with the disk's work
	shopIdleCoresMax  = 0.05 // of the shop, while the empty handler is measured
	replyBytesMax     = 0.1  // by how much the empty handler's replies may differ in length
)

// summarize fills in what follows from the rounds.
func (r *report) summarize() {
	shop, empty := r.roundsOf(programStampede), r.roundsOf(programEmpty)
	r.Stampede, r.Empty = summarize(shop), summarize(empty)
	ratios := make([]float64, min(len(shop), len(empty)))
	for i := range ratios {
		ratios[i] = shop[i].PerSecond / max(1, empty[i].PerSecond)
	}
	r.Ratio = spreadOf(ratios)
	r.mark(shop, empty)
	r.judge()
}

func (r *report) roundsOf(server string) []round {
	var rounds []round
	for _, one := range r.Rounds {
		if one.Server == server {
			rounds = append(rounds, one)
		}
	}
	return rounds
}

// mark looks for what speaks against the numbers.
func (r *report) mark(shop, empty []round) {
	note := func(format string, args ...any) { r.Marks = append(r.Marks, fmt.Sprintf(format, args...)) }
	for _, side := range []struct {
		name string
		summary
	}{{"stampede", r.Stampede}, {"the empty handler", r.Empty}} {
		if high := side.Cores[programGenerator].High; high > generatorCoresMax {
			note("the generator used up to %.2f cores beside %s (more than %.2g)", high, side.name, generatorCoresMax)
		}
		if high := side.Cores[programOthers].High; high > othersCoresMax {
			note("other programs and the kernel used up to %.2f cores beside %s", high, side.name)
		}
	}
	if high := over(empty, round.shopCores).High; high > shopIdleCoresMax {
		note("stampede used up to %.2f cores while the empty handler was measured", high)
	}
	length := func(one round) float64 { return one.ReplyBytes }
	ours, theirs := over(shop, length).Median, over(empty, length).Median
	if math.Abs(ours-theirs) > replyBytesMax*ours {
		note("the replies differ: %.0f bytes from stampede, %.0f from the empty handler", ours, theirs)
	}
	if r.Machine.Filesystem == inMemory {
		note("the data lie in memory, where a sync costs nothing: set TMPDIR to a directory on a disk")
	}
}

// judge holds the answers against the books.
func (r *report) judge() { r.Failures = append(r.Failures, r.Books.failures()...) }

// failures says what speaks against the books.
func (b *books) failures() (found []string) {
	if b.Accepted != b.UnitsSold {
		found = append(found, fmt.Sprintf("%d orders of one unit were accepted, but %d units are sold", b.Accepted, b.UnitsSold))
	}
	if b.Unaudited != "" {
		found = append(found, "the books were not audited: "+b.Unaudited)
	}
	if b.Violations != "" {
		found = append(found, fmt.Sprintf("the books do not close: %.2000s", b.Violations))
	}
	return found
}

func (r *report) json(to io.Writer) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// table prints the report for a reader at a terminal.
func (r *report) table(to io.Writer) error {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "\nPOST /order, one line of one unit, uniform over %d users and %d products\n", r.Users, r.Products)
	fmt.Fprintf(&b, "Closed loop, %d connections; %d rounds of %.3g s in turns; medians (lowest to highest)\n\n",
		r.Connections, len(r.Rounds)/2, r.RoundSeconds)
	fmt.Fprintf(&b, "%d cores, %s, data on %s, %s, GOMAXPROCS %d\n", m.Cores, m.Kernel, m.Filesystem, m.Go, m.GoMaxProcs)
	fmt.Fprintf(&b, "%s, PostgreSQL %s, durability %s\n", m.Redis, m.Postgres, m.Durability)
	fmt.Fprintf(&b, "%s (%s)\n\n", m.Stampede, m.Binary)
	r.figures(&b)
	writeVerdict(&b, r.Books, r.Marks, r.Failures, r.Seconds)
	_, err := io.WriteString(to, b.String())
	return err
}

func (r *report) figures(b *strings.Builder) {
	row := func(name string, cells ...string) {
		line := fmt.Sprintf("%-26s", name)
		for _, cell := range cells {
			line += fmt.Sprintf("%-26s", cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	shop, empty := r.Stampede, r.Empty
	row("", "stampede", "empty handler")
	row("accepted a second", shop.PerSecond.text(0), empty.PerSecond.text(0))
	row("ratio", r.Ratio.text(3), "1")
	row("latency p50, ms", shop.P50.in(1000).text(2), empty.P50.in(1000).text(2))
	row("latency p99, ms", shop.P99.in(1000).text(2), empty.P99.in(1000).text(2))
	for _, program := range []string{programGenerator, programOthers} {
		row(program+", cores", shop.Cores[program].text(2), empty.Cores[program].text(2))
	}
	b.WriteByte('\n')
	row("CPU µs an order", "stampede, burst", "with drain", "empty handler")
	for _, program := range programs {
		if shop.CPU[program] == (spread{}) && empty.CPU[program] == (spread{}) {
			continue // not of this run
		}
		row("  "+readable(program), shop.CPU[program].text(1),
			shop.CPUDrained[program].text(1), empty.CPU[program].text(1))
	}
	fmt.Fprintf(b, "Drain: %s s from the last reply until the writer's lag is 0\n\n", shop.Drain.text(2))
}

// writeVerdict says what a run is worth.
func writeVerdict(b *strings.Builder, found books, marks, failures []string, seconds float64) {
	if len(failures) == 0 && found.Accepted > 0 {
		fmt.Fprintf(b, "Books: closed; %d orders accepted, as many units sold\n", found.Accepted)
	}
	for _, mark := range marks {
		fmt.Fprintf(b, "MARKED: %s\n", mark)
	}
	for _, failure := range failures {
		fmt.Fprintf(b, "FAILED: %s\n", failure)
	}
	fmt.Fprintf(b, "Took %.1f s\n", seconds)
}

// in converts to a larger unit.
func (s spread) in(unit float64) spread {
	return spread{Median: s.Median / unit, Low: s.Low / unit, High: s.High / unit}
}

func (s spread) text(digits int) string {
	if s == (spread{}) {
		return "-"
	}
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, s.Median, digits, s.Low, digits, s.High)
}
