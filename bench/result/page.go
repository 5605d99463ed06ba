package result

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The page and its parts. Nothing of it comes from elsewhere: the page works from a file, without a network.
//
//go:embed page/page.html
var pageTemplate string

//go:embed page/page.css
var pageStyle string

//go:embed page/page.js
var pageScript string

// uPlot draws the charts. Its files are those of the npm package "uplot", as they are.
const uPlotVersion = "1.6.32"

//go:embed page/uPlot.iife.min.js
var uPlotScript string

//go:embed page/uPlot.min.css
var uPlotStyle string

//go:embed page/uPlot.LICENSE
var uPlotLicense string

// document is what the page is made of.
type document struct {
	*Result
	Verdict          verdict
	Failures         []string // but those that the books tell
	Tiles            [][]tile
	Charts           map[string]*chart // those that there is something to show in
	Outcomes         []outcome
	Told             []Quantile // the percentiles of the table; the chart has all
	Statuses         []statusCount
	Sizes            []outcome
	Calls            int64
	Cores            []usage
	Whys             []string // what a search found against rates
	LagMost, LagLast int64

	Styles  []template.CSS
	Scripts []template.JS
	Data    template.JS
	Policy  string
	Version string
	License string
}

// statusCount is how many answers had a status.
type statusCount struct {
	Status  int
	Name    string
	Answers int64
}

// HTML writes a page with charts. It holds all that it needs, and its policy forbids a browser to load anything else.
func (r *Result) HTML(w io.Writer) error {
	data, err := json.Marshal(r) // which escapes <, > and &: no text can end the element that holds it
	if err != nil {
		return fmt.Errorf("the page's data: %w", err)
	}
	scripts, styles := []string{uPlotScript, pageScript}, []string{uPlotStyle, pageStyle}
	d := document{
		Result: r, Verdict: r.judge(), Failures: slices.DeleteFunc(slices.Clone(r.Failures), r.Books.repeats),
		Tiles: r.tiles(), Charts: r.charts(),
		Outcomes: r.Total.outcomes(), Statuses: r.Total.statuses(), Calls: r.calls(), Cores: r.cores(),
		Data: template.JS(data), Policy: policy(scripts, styles), Version: uPlotVersion, License: uPlotLicense,
	}
	for i, name := range r.sizes() {
		d.Sizes = append(d.Sizes, outcome{name, r.Batches[i].Calls})
	}
	for _, percent := range told {
		if us, known := at(r.Latency, percent); known {
			d.Told = append(d.Told, Quantile{percent, us})
		}
	}
	for _, one := range r.Timeline {
		d.LagMost, d.LagLast = max(d.LagMost, one.Lag), max(0, one.Lag)
	}
	for _, step := range r.Search {
		if step.Why != "" {
			d.Whys = append(d.Whys, spoken(step.Rate)+" a second did not hold: "+step.Why)
		}
	}
	for _, text := range scripts {
		d.Scripts = append(d.Scripts, template.JS(text))
	}
	for _, text := range styles {
		d.Styles = append(d.Styles, template.CSS(text))
	}
	var page bytes.Buffer // so that a page is written as a whole or not at all
	if err := pageParsed.Execute(&page, d); err != nil {
		return fmt.Errorf("the page: %w", err)
	}
	_, err = w.Write(page.Bytes())
	return err
}

// policy allows these scripts and styles, by their hashes, and nothing else.
func policy(scripts, styles []string) string {
	hashes := func(texts []string) string {
		var list strings.Builder
		for _, text := range texts {
			sum := sha256.Sum256([]byte(text))
			list.WriteString(" 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'")
		}
		return list.String()
	}
	return "default-src 'none'; script-src" + hashes(scripts) + "; style-src" + hashes(styles) +
		"; img-src data:; base-uri 'none'; form-action 'none'"
}

// pageParsed is the template with the formats of its figures.
var pageParsed = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": func(n any) string { return grouped(fmt.Sprint(n)) },
	"rate":  spoken,
	"ms":    ms,
	"per":   per,
	"share": share,
	"at": func(latency []Quantile, percent float64) string {
		if us, known := at(latency, percent); known {
			return ms(us)
		}
		return "–"
	},
	"percentile": percentile,
	"seconds":    func(s float64) string { return fmt.Sprintf("%.1f s", s) },
	"stamp":      func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"cut":        cut,
}).Parse(pageTemplate))

// statuses are the answers by status, those that there were.
func (c Counts) statuses() (list []statusCount) {
	for _, status := range slices.Sorted(maps.Keys(c.Statuses)) {
		if n := c.Statuses[status]; n > 0 {
			list = append(list, statusCount{status, http.StatusText(status), n})
		}
	}
	return list
}
