package result

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Table writes the result for a reader at a terminal, in no more than 80 columns where names allow it.
func (r *Result) Table(w io.Writer) error {
	var b strings.Builder
	r.head(&b)
	r.outcomes(&b)
	r.kinds(&b)
	r.latency(&b)
	r.statuses(&b)
	r.batches(&b)
	r.programs(&b)
	r.search(&b)
	r.plots(&b)
	r.verdict(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// head says what was run, against what, and on what.
func (r *Result) head(b *strings.Builder) {
	fmt.Fprintf(b, "\nScenario %s, %s loop\n", r.Scenario, r.Loop)
	if r.Pace != "" {
		fmt.Fprintf(b, "Pace: %s\n", r.Pace)
	}
	fmt.Fprintf(b, "%d connections, %d users, %d products, seed %d\n", r.Connections, r.Users, r.Products, r.Seed)
	if r.Target != "" {
		fmt.Fprintf(b, "Target: %s\n", r.Target)
	}
	line := ""
	for _, fact := range r.Machine {
		text := fact.Name + " " + fact.Value
		if line != "" && utf8.RuneCountInString(line+text) > 78 {
			fmt.Fprintf(b, "%s\n", line)
			line = ""
		}
		if line != "" {
			line += ", "
		}
		line += text
	}
	if line != "" {
		fmt.Fprintf(b, "%s\n", line)
	}
}

func (r *Result) outcomes(b *strings.Builder) {
	lines := [][]string{
		{"requests", "count", "%", "a second"},
		{"due", strconv.FormatInt(r.Total.Due, 10), "", fmt.Sprintf("%.1f", per(r.Total.Due, r.Seconds))},
	}
	for _, part := range r.Total.outcomes() {
		lines = append(lines, []string{
			part.Name, strconv.FormatInt(part.Count, 10), fmt.Sprintf("%.2f", share(part.Count, r.Total.Due)),
			fmt.Sprintf("%.1f", per(part.Count, r.Seconds)),
		})
	}
	if r.Total.Asked > 0 {
		lines = append(lines, []string{"asked again", strconv.FormatInt(r.Total.Asked, 10), "", ""})
	}
	columns(b, lines)
}

// kinds are told where there is more than one.
func (r *Result) kinds(b *strings.Builder) {
	if len(r.Kinds) < 2 {
		return
	}
	lines := [][]string{{"kind", "due", "accepted", "refused", "failed", "not sent", "p50, ms", "p99, ms", "max"}}
	for _, kind := range r.Kinds {
		line := []string{kind.Name, strconv.FormatInt(kind.Counts.Due, 10)}
		for _, part := range kind.Counts.outcomes() {
			line = append(line, strconv.FormatInt(part.Count, 10))
		}
		for _, percent := range []float64{50, 99, 100} {
			text := "-"
			if us, known := at(kind.Latency, percent); known {
				text = ms(us)
			}
			line = append(line, text)
		}
		lines = append(lines, line)
	}
	columns(b, lines)
}

func (r *Result) latency(b *strings.Builder) {
	names, values := []string{"latency, ms"}, []string{"of accepted"}
	for _, percent := range told {
		if us, known := at(r.Latency, percent); known {
			names, values = append(names, percentile(percent)), append(values, ms(us))
		}
	}
	if len(names) > 1 {
		columns(b, [][]string{names, values})
	}
}

func (r *Result) statuses(b *strings.Builder) {
	lines := [][]string{{"status", "answers"}}
	for _, status := range slices.Sorted(maps.Keys(r.Total.Statuses)) {
		if n := r.Total.Statuses[status]; n > 0 {
			lines = append(lines, []string{strconv.Itoa(status), strconv.FormatInt(n, 10)})
		}
	}
	if len(lines) > 1 {
		columns(b, lines)
	}
}

func (r *Result) batches(b *strings.Builder) {
	all := r.calls()
	if all == 0 {
		return
	}
	lines := [][]string{{"operations a script call", "calls", "%"}}
	for i, name := range r.sizes() {
		calls := r.Batches[i].Calls
		lines = append(lines, []string{name, strconv.FormatInt(calls, 10), fmt.Sprintf("%.1f", share(calls, all))})
	}
	columns(b, lines)
}

func (r *Result) programs(b *strings.Builder) {
	lines := [][]string{{"CPU cores by program", "mean", "most"}}
	for _, used := range r.cores() {
		lines = append(lines, []string{used.Program, fmt.Sprintf("%.2f", used.Mean), fmt.Sprintf("%.2f", used.Most)})
	}
	if len(lines) > 1 {
		columns(b, lines)
	}
}

// search are the rates that were tried, in their order.
func (r *Result) search(b *strings.Builder) {
	lines := [][]string{{"rate tried", "reached", "p99, ms", "held"}}
	for _, step := range r.Search {
		held := "yes"
		if !step.Held {
			held = "no"
		}
		lines = append(lines, []string{fmt.Sprintf("%.0f", step.Rate), fmt.Sprintf("%.0f", step.Reached), ms(step.P99), held})
	}
	if len(lines) == 1 {
		return
	}
	columns(b, lines)
	for _, step := range r.Search {
		if step.Why != "" {
			fmt.Fprintf(b, "%.0f a second did not hold: %s\n", step.Rate, step.Why)
		}
	}
}

// verdict says what the run is worth.
func (r *Result) verdict(b *strings.Builder) {
	state, why := r.Books.text()
	if why != "" && !slices.ContainsFunc(r.Failures, r.Books.repeats) {
		state += ": " + why
	}
	fmt.Fprintf(b, "\nBooks: %s\n", state)
	for _, mark := range r.Marks {
		fmt.Fprintf(b, "MARKED: %s\n", mark)
	}
	for _, failure := range r.Failures {
		fmt.Fprintf(b, "FAILED: %s\n", failure)
	}
	fmt.Fprintf(b, "Took %.1f s\n", r.Seconds)
}

// columns writes lines whose cells stand below each other: names to the left, figures to the right.
func columns(b *strings.Builder, lines [][]string) {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, text := range line {
			width[i] = max(width[i], utf8.RuneCountInString(text))
		}
	}
	b.WriteByte('\n')
	for _, line := range lines {
		text := fmt.Sprintf("%-*s", max(width[0], 12), line[0])
		for i, cell := range line[1:] {
			text += fmt.Sprintf("  %*s", max(width[i+1], 7), cell)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
}
