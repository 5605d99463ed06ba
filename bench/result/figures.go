package result

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// outcome is what became of some of the requests that were due.
type outcome struct {
	Name  string
	Count int64
}

// outcomes are the counts in the order in which they are told.
func (c Counts) outcomes() []outcome {
	return []outcome{
		{"accepted", c.Accepted},
		{"refused", c.Refused},
		{"failed", c.Failed},
		{"not sent", c.NotSent},
	}
}

// per is n a second; nothing happens in no time.
func per(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

// share is a part of a whole, in per cent.
func share(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// told are the percentiles that stand in tables, where they are known.
var told = []float64{50, 90, 95, 99, 99.9, 99.99, 100}

// at is the latency of a percentile, and whether it is known.
func at(latency []Quantile, percent float64) (us int64, known bool) {
	for _, q := range latency {
		if q.Percent == percent {
			return q.Us, true
		}
	}
	return 0, false
}

// percentile names one, as "p99.9".
func percentile(percent float64) string {
	switch percent {
	case 0:
		return "min"
	case 100:
		return "max"
	}
	return "p" + strconv.FormatFloat(percent, 'f', -1, 64)
}

// ms is a latency in milliseconds, with three digits that say something.
func ms(us int64) string {
	switch v := float64(us) / 1000; {
	case us == 0:
		return "0"
	case v < 1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// grouped puts commas between the thousands of a whole number.
func grouped(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// spoken is a rate with as many digits as say something.
func spoken(v float64) string {
	switch {
	case math.Abs(v) < 0.005: // an axis may have a little less than 0
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return grouped(fmt.Sprintf("%.0f", v))
	}
}

// usage is the CPU time of a program, in cores.
type usage struct {
	Program    string
	Mean, Most float64
}

// cores are the programs by name. The mean is over the intervals in which anything was measured at all.
func (r *Result) cores() []usage {
	byName := make(map[string]*usage)
	measured := 0.0
	for _, one := range r.Timeline {
		if len(one.Cores) == 0 {
			continue
		}
		measured += one.Seconds
		for program, used := range one.Cores {
			u := byName[program]
			if u == nil {
				u = &usage{Program: readable(program)}
				byName[program] = u
			}
			u.Mean += used * one.Seconds
			u.Most = max(u.Most, used)
		}
	}
	var list []usage
	for _, program := range slices.Sorted(maps.Keys(byName)) {
		u := byName[program]
		if measured > 0 {
			u.Mean /= measured
		}
		list = append(list, *u)
	}
	return list
}

func readable(program string) string { return strings.ReplaceAll(program, "_", " ") }

// sizes names the bars of the batch sizes: "1", "3 to 4", "more than 128".
func (r *Result) sizes() []string {
	names := make([]string, len(r.Batches))
	before := 0
	for i, bar := range r.Batches {
		switch bar.UpTo {
		case 0:
			names[i] = fmt.Sprintf("more than %d", before)
		case before + 1:
			names[i] = strconv.Itoa(bar.UpTo)
		default:
			names[i] = fmt.Sprintf("%d to %d", before+1, bar.UpTo)
		}
		before = bar.UpTo
	}
	return names
}

// calls is how many script calls the batch sizes are of.
func (r *Result) calls() (n int64) {
	for _, bar := range r.Batches {
		n += bar.Calls
	}
	return n
}

const violationMax = 2000 // characters of an audit's output; whoever wants all of it asks `stampede audit`

func cut(text string) string { return fmt.Sprintf("%.*s", violationMax, text) }

// text says whether the books close, and why not.
func (b Books) text() (state, why string) {
	switch {
	case b.Violations != "":
		return "do NOT close", cut(b.Violations)
	case b.Unaudited != "":
		return "not audited", cut(b.Unaudited)
	case b.Closed:
		return "closed", ""
	default:
		return "not audited", ""
	}
}

// repeats is whether a failure says no more than what the books say themselves.
func (b Books) repeats(failure string) bool {
	_, why := b.text()
	return why != "" && strings.Contains(failure, why)
}
