package result

import (
	"fmt"
	"strings"
)

// verdict is what a run is worth, at the head of the page.
type verdict struct {
	Level string // good, doubt or bad
	Sign  string // the same to the eye, also without colours
	Title string
	Text  string
}

// judge weighs the books first, then what went wrong, then what makes the figures doubtful.
func (r *Result) judge() verdict {
	switch {
	case r.Books.Violations != "":
		return verdict{"bad", "✕", "The books do NOT close", "What was answered is not what happened."}
	case len(r.Failures) > 0:
		return verdict{"bad", "✕", "The load test failed", "What happened is not what has to happen: " + many(len(r.Failures), "failure") + "."}
	case r.Books.Unaudited != "" || !r.Books.Closed:
		return verdict{"doubt", "!", "The books were not audited", "Nobody knows whether what was answered is what happened."}
	case len(r.Marks) > 0:
		return verdict{
			"doubt", "!", "The books are closed, the figures are marked",
			"What was answered is what happened. There is reason to doubt how fast it was: " + many(len(r.Marks), "mark") + ".",
		}
	default:
		return verdict{"good", "✓", "The books are closed", "What was answered is what happened, and nothing speaks against the figures."}
	}
}

func many(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// tile is a key figure.
type tile struct {
	Name, Value, Unit, Note string
	Class                   string
}

// tiles are what came of the requests, and how long those took that were accepted.
func (r *Result) tiles() [][]tile {
	t := &r.Total
	requests := []tile{{
		Name: "Accepted", Value: spoken(r.AcceptedPerSecond()), Unit: "/s", Note: grouped(fmt.Sprint(t.Accepted)) + " requests",
	}}
	if len(r.Search) > 0 {
		requests = append(requests, tile{Name: "Highest rate held", Value: spoken(r.held()), Unit: "/s", Note: many(len(r.Search), "rate") + " tried"})
	}
	for _, part := range t.outcomes()[1:] {
		one := tile{
			Name: strings.ToUpper(part.Name[:1]) + part.Name[1:], Value: fmt.Sprintf("%.2f", share(part.Count, t.Due)), Unit: "%",
			Note: fmt.Sprintf("%s of %s due", grouped(fmt.Sprint(part.Count)), grouped(fmt.Sprint(t.Due))),
		}
		switch {
		case part.Count == 0:
			one.Value = "0"
		case one.Value == "0.00":
			one.Value = "< 0.01"
		}
		switch {
		case part.Count > 0 && part.Name == "failed":
			one.Class = "bad"
		case part.Count > 0 && part.Name == "not sent":
			one.Class = "doubt"
		}
		requests = append(requests, one)
	}
	var latencies []tile
	for _, percent := range []float64{50, 99, 99.9, 100} {
		if us, known := at(r.Latency, percent); known {
			note := fmt.Sprintf("%v %% stayed below", percent)
			if percent == 100 {
				note = "the slowest"
			}
			latencies = append(latencies, tile{Name: "Latency " + percentile(percent), Value: ms(us), Unit: "ms", Note: note})
		}
	}
	if len(latencies) == 0 {
		return [][]tile{requests}
	}
	return [][]tile{requests, latencies}
}

// held is the highest rate that a search has seen hold.
func (r *Result) held() (best float64) {
	for _, step := range r.Search {
		if step.Held {
			best = max(best, step.Rate)
		}
	}
	return best
}

// chart is a place for one on the page, whose script draws it by its id.
type chart struct {
	ID, Title, Unit string
	Label           string // what it shows, for whoever does not see it
}

// charts are those that there is something to show in, by id.
func (r *Result) charts() map[string]*chart {
	all := make(map[string]*chart)
	add := func(known bool, id, title, unit, label string, args ...any) {
		if known {
			all[id] = &chart{id, title, unit, fmt.Sprintf(label, args...)}
		}
	}
	most := r.most()
	length := r.length()
	add(len(r.Timeline) > 0, "requests", "Requests over time", "a second, by what became of them",
		"Line chart of requests a second over %.3g seconds. At the most %s due, %s accepted, %s refused, %s failed and %s not sent a second.",
		length, spoken(most.due), spoken(most.accepted), spoken(most.refused), spoken(most.failed), spoken(most.notSent))
	add(most.latency > 0, "latency", "Latency over time", "of accepted requests, log scale",
		"Line chart of the median, p99, p99.9 and slowest latency over %.3g seconds. The highest p99 of an interval is %s ms, the slowest request took %s ms.",
		length, ms(most.p99), ms(most.latency))
	worst := int64(0)
	for _, q := range r.Latency {
		worst = max(worst, q.Us)
	}
	add(worst > 0, "percentiles", "Latency by percentile", "each line to the right is ten times as rare",
		"Line chart of latency against percentile, from 0 to 100 per cent. The figures stand in the table beside it.")
	add(most.batch > 0, "batch", "Mean batch over time", "operations a script call",
		"Line chart of the mean number of operations a script call over %.3g seconds, at the most %.1f.", length, most.batch)
	add(r.calls() > 0, "sizes", "Batch sizes", "script calls by how many operations they held, up to",
		"Bar chart of %s script calls by the number of their operations. The figures stand in the table beside it.", grouped(fmt.Sprint(r.calls())))
	var used []string
	for _, one := range r.cores() {
		used = append(used, fmt.Sprintf("%s %.2f", one.Program, one.Mean))
	}
	add(len(used) > 0, "cores", "CPU over time", "cores by program",
		"Line chart of the cores that each program used over %.3g seconds. Means: %s.", length, strings.Join(used, ", "))
	add(most.lag >= 0, "lag", "Writer's lag over time", "changes that PostgreSQL lacked",
		"Line chart of the changes that PostgreSQL lacked over %.3g seconds, at the most %s.", length, grouped(fmt.Sprint(most.lag)))
	tried := false
	for _, step := range r.Search {
		tried = tried || step.P99 > 0
	}
	add(tried, "search", "Rates tried", "requests a second against p99, log scale",
		"Dots for %s tried against the p99 latency at each, by whether it held. The figures stand in the table beside it.", many(len(r.Search), "rate"))
	return all
}

// length is from the start of the first interval to the end of the last, in seconds.
func (r *Result) length() float64 {
	if len(r.Timeline) == 0 {
		return 0
	}
	last := r.Timeline[len(r.Timeline)-1]
	return last.At + last.Seconds - r.Timeline[0].At
}

// peaks are the highest figures of all intervals.
type peaks struct {
	due, accepted, refused, failed, notSent float64 // a second
	p99, latency                            int64   // µs
	batch                                   float64
	lag                                     int64 // -1 where it is never known
}

func (r *Result) most() peaks {
	m := peaks{lag: -1}
	for _, one := range r.Timeline {
		m.due = max(m.due, per(one.Due, one.Seconds))
		m.accepted = max(m.accepted, per(one.Accepted, one.Seconds))
		m.refused = max(m.refused, per(one.Refused, one.Seconds))
		m.failed = max(m.failed, per(one.Failed, one.Seconds))
		m.notSent = max(m.notSent, per(one.NotSent, one.Seconds))
		m.p99, m.latency = max(m.p99, one.P99), max(m.latency, one.P50, one.P99, one.P999, one.Max)
		m.batch, m.lag = max(m.batch, one.Batch), max(m.lag, one.Lag)
	}
	return m
}
