package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// comparisonReport is the result of a comparison.
type comparisonReport struct {
	Benchmark    string        `json:"benchmark"`
	Connections  int           `json:"connections"`
	Crowd        int           `json:"connections_full_batches"`
	Users        int           `json:"users"`
	Products     int           `json:"products"`
	BurstSeconds float64       `json:"burst_round_seconds"`
	RoundSeconds float64       `json:"round_seconds"`
	Seconds      float64       `json:"seconds"` // of the whole run
	Machine      machine       `json:"machine"`
	Disk         disk          `json:"disk"`
	Rows         []measuredRow `json:"rows"`
	Memory       *memoryReport `json:"memory,omitempty"`
	Marks        []string      `json:"marks"`    // why to doubt the numbers
	Failures     []string      `json:"failures"` // what a shop did wrong
	Books        books         `json:"books"`    // of Stampede
	Rounds       []round       `json:"rounds"`

	chosen []row
}

// measuredRow is a row that was measured.
type measuredRow struct {
	Name     string  `json:"name"`
	What     string  `json:"what"`
	Unit     string  `json:"unit,omitempty"`
	Measured spread  `json:"measured"`
	Detail   string  `json:"detail"`
	Target   float64 `json:"target"`
	Moonshot float64 `json:"moonshot"`
	AtMost   bool    `json:"at_most"`
	Verdict  string  `json:"verdict"`
}

// cells are all that the chosen rows need, each once.
func (r *comparisonReport) cells() []cell {
	var cells []cell
	for _, row := range r.chosen {
		for _, c := range row.cells {
			if !slices.Contains(cells, c) {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// servers are those of the cells, Stampede first: others get its goods.
func (r *comparisonReport) servers() []string {
	var servers []string
	for _, c := range r.cells() {
		if !slices.Contains(servers, c.server) {
			servers = append(servers, c.server)
		}
	}
	return servers
}

// cellsByLoop tells apart the closed loops, and the open loops whose rates follow from them.
func (r *comparisonReport) cellsByLoop() (closed, half, steady []cell) {
	for _, c := range r.cells() {
		switch c.load {
		case loadHalf:
			half = append(half, c)
		case loadSteady:
			steady = append(steady, c)
		default:
			closed = append(closed, c)
		}
	}
	return closed, half, steady
}

// of are the rounds of a cell.
func (r *comparisonReport) of(c cell) []round {
	var rounds []round
	for _, one := range r.Rounds {
		if one.Server == c.server && one.Load == c.load {
			rounds = append(rounds, one)
		}
	}
	return rounds
}

// ratio is how many orders a second one cell had for one of another, round by round.
func (r *comparisonReport) ratio(a, b cell) (ratio spread, detail string) {
	return r.paired(a, b, perSecond, perSecond)
}

// paired divides a figure of one cell by one of another, round by round: rounds of the same number ran side by side.
func (r *comparisonReport) paired(a, b cell, ours, theirs func(round) float64) (ratio spread, detail string) {
	x, y := r.of(a), r.of(b)
	ratios := make([]float64, min(len(x), len(y)))
	for i := range ratios {
		if below := theirs(y[i]); below > 0 {
			ratios[i] = ours(x[i]) / below
		}
	}
	digits := 0
	if over(x, ours).Median < 1000 {
		digits = 2
	}
	return spreadOf(ratios), fmt.Sprintf("%.*f against %.*f", digits, over(x, ours).Median, digits, over(y, theirs).Median)
}

// conclude fills in what follows from the rounds.
func (r *comparisonReport) conclude() {
	for _, row := range r.chosen {
		figure, detail := row.figure(r)
		r.Rows = append(r.Rows, measuredRow{
			Name: row.name, What: row.what, Unit: row.unit, Measured: figure, Detail: detail,
			Target: row.target, Moonshot: row.moonshot, AtMost: row.atMost, Verdict: row.verdict(figure.Median),
		})
	}
	note := func(format string, args ...any) { r.Marks = append(r.Marks, fmt.Sprintf(format, args...)) }
	for _, c := range r.cells() {
		rounds := r.of(c)
		where := fmt.Sprintf("beside %s, %s", readable(c.server), c.load)
		if high := over(rounds, coresOf(programGenerator)).High; high > generatorCoresMax {
			note("the generator used up to %.2f cores %s (more than %.2g)", high, where, generatorCoresMax)
		}
		if high := over(rounds, coresOf(programOthers)).High; high > othersCoresMax {
			note("other programs and the kernel used up to %.2f cores %s", high, where)
		}
	}
	if r.Machine.Filesystem == inMemory {
		note("the data lie in memory, where a sync costs nothing: set TMPDIR to a directory on a disk")
	}
}

func coresOf(program string) func(round) float64 {
	return func(r round) float64 { return r.Cores[program] }
}

// write writes the report as JSON.
func (r *comparisonReport) write(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(file)
	encoder.SetIndent("", "  ")
	return errors.Join(encoder.Encode(r), file.Close())
}

// table prints the report, in tables that can be copied into a document.
func (r *comparisonReport) table(to io.Writer) error {
	var b strings.Builder
	if m := r.Machine; m.Cores > 0 {
		fmt.Fprintf(&b, "\n%d cores for all, the generator included; %s, data on %s, %s; %s, PostgreSQL %s, durability %s\n",
			m.Cores, m.Kernel, m.Filesystem, m.Go, m.Redis, m.Postgres, m.Durability)
		fmt.Fprintf(&b, "%s (%s)\n", m.Stampede, m.Binary)
		fmt.Fprintf(&b, "POST /order, one line of one unit, by %d users on %d products; closed loop, %d connections (%d for full batches)\n",
			r.Users, r.Products, r.Connections, r.Crowd)
		fmt.Fprintf(&b, "Rounds of %.3g s (bursts) and %.3g s, in turns; medians (lowest to highest) of ratios round by round\n",
			r.BurstSeconds, r.RoundSeconds)
		fmt.Fprintf(&b, "A sync of 4 KiB takes the disk %.0f µs (p50), %.0f µs (p99)\n", r.Disk.P50, r.Disk.P99)
	}
	r.promises(&b)
	r.costs(&b)
	writeVerdict(&b, r.Books, r.Marks, r.Failures, r.Seconds)
	_, err := io.WriteString(to, b.String())
	return err
}

// promises are the rows beside what they should be.
func (r *comparisonReport) promises(b *strings.Builder) {
	lines := [][]string{{"what", "measured", "target", "moonshot", "reached", "of"}}
	for _, row := range r.Rows {
		bound := "≥ "
		if row.AtMost {
			bound = "≤ "
		}
		unit := ""
		if row.Unit != "" {
			unit = " " + row.Unit
		}
		digits := 2
		if row.Measured.Median >= 100 {
			digits = 0
		}
		lines = append(lines, []string{
			row.What, row.Measured.text(digits) + unit, fmt.Sprintf("%s%g", bound, row.Target), fmt.Sprintf("%s%g", bound, row.Moonshot),
			row.Verdict, row.Detail,
		})
	}
	writeTable(b, lines)
}

// costs are rate, latency and CPU time by program of every cell.
func (r *comparisonReport) costs(b *strings.Builder) {
	if len(r.Rounds) == 0 {
		return
	}
	lines := [][]string{{
		"server, load", "a second", "p50 / p99, ms", "batch", "CPU µs an order: server", "redis", "postgres", "generator", "others",
	}}
	for _, c := range r.cells() {
		rounds := r.of(c)
		cpu := func(program string) string {
			used := over(rounds, func(r round) float64 { return r.CPUDrained[program] })
			if used.Median == 0 {
				return "-"
			}
			return fmt.Sprintf("%.2f", used.Median)
		}
		ms := func(figure func(round) int64) float64 {
			return over(rounds, func(r round) float64 { return float64(figure(r)) / 1000 }).Median
		}
		latency, batch := "-", "-"
		if p99 := ms(func(r round) int64 { return r.P99 }); p99 > 0 {
			latency = fmt.Sprintf("%.1f / %.1f", ms(func(r round) int64 { return r.P50 }), p99)
		}
		if size := over(rounds, func(r round) float64 { return r.Batch }).Median; size > 0 {
			batch = fmt.Sprintf("%.0f", size)
		}
		lines = append(lines, []string{
			readable(c.server) + ", " + c.load, over(rounds, perSecond).text(0), latency, batch,
			cpu(c.server), cpu(programRedis), cpu(programPostgres), cpu(programGenerator), cpu(programOthers),
		})
	}
	writeTable(b, lines)
}

// writeTable writes a table of Markdown whose columns line up.
func writeTable(b *strings.Builder, lines [][]string) {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			width[i] = max(width[i], len([]rune(text)))
		}
	}
	b.WriteByte('\n')
	for n, line := range lines {
		for i, text := range line {
			fmt.Fprintf(b, "| %-*s ", width[i], text)
		}
		b.WriteString("|\n")
		if n == 0 {
			for i := range line {
				b.WriteString("|" + strings.Repeat("-", width[i]+2))
			}
			b.WriteString("|\n")
		}
	}
	b.WriteByte('\n')
}
