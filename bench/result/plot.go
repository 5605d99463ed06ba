package result

import (
	"fmt"
	"math"
	"strings"

	"github.com/guptarohit/asciigraph"
)

const (
	plotColumns = 60 // of the curve itself; with its axis it fits into 80
	plotRows    = 10
)

// plots draw what came of the load, and how long it took, over time.
func (r *Result) plots(b *strings.Builder) {
	if len(r.Timeline) == 0 {
		return
	}
	mean := func(count func(Interval) int64) []float64 {
		return r.bins(func(some []Interval) float64 {
			sum, seconds := int64(0), 0.0
			for _, one := range some {
				sum, seconds = sum+count(one), seconds+one.Seconds
			}
			return per(sum, seconds)
		})
	}
	accepted := mean(func(one Interval) int64 { return one.Accepted })
	refused := mean(func(one Interval) int64 { return one.Refused })
	r.plot(b, "a second: ─ accepted, ∙ refused", spoken, accepted, refused)

	worst := r.bins(func(some []Interval) float64 {
		p99 := int64(0)
		for _, one := range some {
			p99 = max(p99, one.P99)
		}
		if p99 == 0 {
			return math.NaN() // nothing was accepted: a gap, not a latency of 0
		}
		return float64(p99)
	})
	r.plot(b, "p99 of accepted, ms", func(us float64) string { return ms(int64(math.Round(us))) }, worst)
}

// bins are a figure for each column of a plot: of all intervals that fall into it, so that no peak is lost between two;
// where there are fewer intervals than columns, an interval fills several.
func (r *Result) bins(figure func([]Interval) float64) []float64 {
	n := len(r.Timeline)
	values := make([]float64, plotColumns)
	for i := range values {
		from, to := i*n/plotColumns, (i+1)*n/plotColumns
		values[i] = figure(r.Timeline[from:max(to, from+1)])
	}
	return values
}

// plot draws curves above an axis of seconds. Curves that hold nothing are not drawn.
func (r *Result) plot(b *strings.Builder, title string, unit func(float64) string, curves ...[]float64) {
	known := false
	for _, curve := range curves {
		for _, v := range curve {
			known = known || !math.IsNaN(v)
		}
	}
	if !known {
		return
	}
	last := r.Timeline[len(r.Timeline)-1]
	fmt.Fprintf(b, "\n%s\n%s\n", title, asciigraph.PlotMany(curves,
		asciigraph.Height(plotRows), asciigraph.LowerBound(0), asciigraph.UpperBound(1),
		asciigraph.YAxisValueFormatter(unit), asciigraph.SeriesChars(asciigraph.DefaultCharSet, asciigraph.CreateCharSet("∙")),
		asciigraph.XAxisRange(r.Timeline[0].At, last.At+last.Seconds),
		asciigraph.XAxisValueFormatter(func(s float64) string { return fmt.Sprintf("%.3g s", s) })))
}
