package result

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const hostile = "users id=3</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`${1}{{.}}<!--\u2028&amp;\x00"

// samples are results of every shape.
func samples() map[string]*Result {
	full := sample(120)
	full.Search = sampleSearch()
	full.Failures = []string{"3 orders were accepted twice"}
	bad := sample(60)
	bad.Scenario, bad.Pace, bad.Target, bad.Loop = hostile, hostile, hostile, hostile
	bad.Books = Books{Violations: hostile, Unaudited: hostile}
	bad.Marks, bad.Failures = []string{hostile}, []string{hostile}
	bad.Machine = []Fact{{hostile, hostile}}
	bad.Kinds[0].Name = hostile
	bad.Search = []Step{{Rate: 1, P99: 1, Why: hostile}}
	bad.Timeline[0].Cores[hostile] = 1
	quiet := sample(30)
	for i := range quiet.Timeline {
		quiet.Timeline[i] = Interval{At: float64(i), Seconds: 1, Lag: -1}
	}
	quiet.Latency, quiet.Batches, quiet.Kinds = nil, nil, nil
	return map[string]*Result{"full": full, "hostile": bad, "quiet": quiet, "one interval": sample(1), "nothing at all": {}}
}

func pageOf(t *testing.T, r *Result) string {
	t.Helper()
	var text strings.Builder
	if err := r.HTML(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

var opening = regexp.MustCompile(`<(script|style)\b[^>]*>`)

// split takes the texts of scripts and styles out of a page. They stand by their tags.
func split(page string) (markup string, texts map[string][]string) {
	texts = make(map[string][]string)
	for {
		at := opening.FindStringSubmatchIndex(page)
		if at == nil {
			return markup + page, texts
		}
		tag, name := page[at[0]:at[1]], page[at[2]:at[3]]
		text, rest, _ := strings.Cut(page[at[1]:], "</"+name+">")
		texts[tag] = append(texts[tag], text)
		markup += page[:at[1]] + "</" + name + ">"
		page = rest
	}
}

const dataTag = `<script type="application/json" id="result">`

func TestHTML_IsWellFormed(t *testing.T) {
	for name, r := range samples() {
		t.Run(name, func(t *testing.T) {
			markup, _ := split(pageOf(t, r))
			// As XML, so that each element has to be closed where it was opened; the two that HTML never closes apart.
			void := regexp.MustCompile(`<(?:meta|link)\b[^>]*`)
			decoder := xml.NewDecoder(strings.NewReader(void.ReplaceAllString(markup, "$0/")))
			headings, elements := 0, 0
			for {
				token, err := decoder.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					line, column := decoder.InputPos()
					t.Fatalf("line %d, column %d: %v", line, column, err)
				}
				start, ok := token.(xml.StartElement)
				if !ok {
					continue
				}
				elements++
				if start.Name.Local == "h1" {
					headings++
				}
				for _, a := range start.Attr {
					if name := a.Name.Local; strings.HasPrefix(name, "on") || name == "style" {
						t.Errorf("<%s> has %s=%q, which the policy forbids", start.Name.Local, name, a.Value)
					}
				}
			}
			if headings != 1 || elements < 40 {
				t.Errorf("%d elements, %d of them h1", elements, headings)
			}
			if strings.Contains(markup, "NaN") || strings.Contains(markup, "ZgotmplZ") {
				t.Error("it tells of what is no figure")
			}
		})
	}
}

// Whatever the shop or an audit said, it is told as text.
func TestHTML_TextCannotBreakOut(t *testing.T) {
	r := samples()["hostile"]
	page := pageOf(t, r)
	if n := strings.Count(strings.ToLower(page), "<script"); n != 3 {
		t.Errorf("%d scripts, want the data, uPlot and the page's own", n)
	}
	if strings.Contains(page, "<img") {
		t.Error("an element got in")
	}
	if !strings.Contains(page, html.EscapeString("</script><script>alert(1)</script>")) {
		t.Error("the violation is not told")
	}
	// Lawful, and yet a script element whose text has it would swallow the one behind it.
	_, texts := split(page)
	if data := texts[dataTag]; len(data) != 1 || strings.ContainsAny(data[0], "<>&\u2028") {
		t.Errorf("the data hold characters of markup: %.300q", data)
	}
}

func TestHTML_HoldsTheResult(t *testing.T) {
	for name, r := range samples() {
		t.Run(name, func(t *testing.T) {
			_, texts := split(pageOf(t, r))
			data := texts[dataTag]
			if len(data) != 1 {
				t.Fatalf("%d elements with data", len(data))
			}
			var back Result
			if err := json.Unmarshal([]byte(data[0]), &back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(&back, r) {
				t.Errorf("came back as %+v, was %+v", back, r)
			}
		})
	}
}

func TestHTML_LoadsNothing(t *testing.T) {
	reference := regexp.MustCompile(`\b(?:src|srcset|href|action|poster|data)\s*=\s*["']?([^"'\s>]*)`)
	for name, r := range samples() {
		markup, texts := split(pageOf(t, r))
		if len(texts["<script>"]) != 2 || len(texts["<style>"]) != 2 {
			t.Errorf("%s: it has other scripts or styles than those that are looked into here", name)
		}
		for _, found := range reference.FindAllStringSubmatch(html.UnescapeString(markup), -1) {
			if found[1] != "data:," && found[1] != "x" { // "x" is of the hostile text
				t.Errorf("%s: it refers to %q", name, found[0])
			}
		}
	}
	for _, text := range []string{uPlotScript, pageScript, uPlotStyle, pageStyle} {
		for _, load := range []string{
			"@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "EventSource", "sendBeacon", "importScripts", "import(", ".src",
		} {
			if strings.Contains(text, load) {
				t.Errorf("%.60q uses %s", text, load)
			}
		}
	}
}

// The policy is as narrow as it can be, and yet it lets through what the page is made of: by hashes that are right.
func TestHTML_PolicyNamesWhatIsInThePage(t *testing.T) {
	page := pageOf(t, sample(2))
	found := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)
	if found == nil {
		t.Fatal("no policy")
	}
	policy := html.UnescapeString(found[1])
	_, texts := split(page)
	hashes := func(tag string) (list string) {
		for _, text := range texts[tag] {
			sum := sha256.Sum256([]byte(text))
			list += " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
		}
		return list
	}
	want := "default-src 'none'; script-src" + hashes("<script>") + "; style-src" + hashes("<style>") +
		"; img-src data:; base-uri 'none'; form-action 'none'"
	if policy != want || strings.Count(policy, "sha256-") != 4 {
		t.Errorf("the policy is\n%s\nwant\n%s", policy, want)
	}
}

func TestHTML_ShowsWhatIsKnown(t *testing.T) {
	shown := regexp.MustCompile(`data-chart="(\w+)"`)
	overTime := []string{"requests"}
	for name, want := range map[string][]string{
		"full":           {"batch", "cores", "lag", "latency", "percentiles", "requests", "search", "sizes"},
		"one interval":   {"batch", "cores", "lag", "latency", "percentiles", "requests", "sizes"},
		"quiet":          overTime,
		"nothing at all": nil,
	} {
		page := pageOf(t, samples()[name])
		var ids []string
		for _, found := range shown.FindAllStringSubmatch(page, -1) {
			ids = append(ids, found[1])
			if !strings.Contains(pageScript, "\n    "+found[1]+"() {\n") {
				t.Errorf("nothing draws %s", found[1])
			}
		}
		if strings.Count(page, `role="img" aria-label="`) != len(ids) {
			t.Errorf("%s: a chart has no label", name)
		}
		if slices.Sort(ids); !slices.Equal(ids, want) {
			t.Errorf("%s: charts %q, want %q", name, ids, want)
		}
	}
}

func TestHTML_TellsTheFigures(t *testing.T) {
	page, _ := split(pageOf(t, samples()["full"]))
	for _, want := range []string{
		`<h1>flash-sale</h1>`, `<li>100,000 users</li>`, `<li>2026-05-01 11:59:40 UTC</li>`,
		`<dt>Accepted</dt><dd><b>3,333</b> /s<small>200,000 requests</small></dd>`,
		`<dt>Highest rate held</dt><dd><b>13,000</b> /s<small>6 rates tried</small></dd>`,
		`<div class="bad"><dt>Failed</dt><dd><b>&lt; 0.01</b> %<small>15 of 361,116 due</small></dd></div>`,
		`<dt>Latency p99.9</dt><dd><b>15.6</b> ms`,
		`<th scope="row">p99.99</th><td>32.7</td>`,
		`<th scope="row">accepted</th><td>200,000</td><td>55.38</td><td>3,333</td>`,
		`<th scope="row">order</th><td>240,744</td><td>133,334</td>`,
		`<th scope="row">409 <span class="soft">Conflict</span></th>`,
		`<th scope="row">3 to 4</th><td>2,400</td><td>12.6</td>`,
		`<th scope="row">at the most</th><td>71,243</td>`,
		`16,000 a second did not hold: p99 of 184 ms is above 20 ms`,
		`At the most 24,386 due, 16,000 accepted,`,
		`<li>3 orders were accepted twice</li>`, `<li>the generator used up to 0.62 cores (more than 0.5)</li>`,
		`<dt>Redis</dt><dd>7.0.15</dd>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("it does not say %s", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestHTML_VerdictIsTheWorstOfAll(t *testing.T) {
	closed := Books{Closed: true}
	for want, r := range map[string]*Result{
		`"verdict good"`:             {Books: closed},
		`The books are closed</h2>`:  {Books: closed},
		`"verdict doubt"`:            {Books: closed, Marks: []string{"shared"}},
		`the figures are marked</h2`: {Books: closed, Marks: []string{"shared"}},
		`not audited</h2>`:           {Books: Books{Unaudited: "no time"}, Marks: []string{"shared"}},
		`"verdict bad"`:              {Books: closed, Failures: []string{"lost"}, Marks: []string{"shared"}},
		`The load test failed</h2>`:  {Books: closed, Failures: []string{"lost"}},
		`do NOT close</h2>`:          {Books: Books{Closed: true, Violations: "users id=3"}, Failures: []string{"lost"}},
	} {
		if page := pageOf(t, r); !strings.Contains(page, want) {
			t.Errorf("%+v: it does not say %s", r, want)
		}
	}
}

// What the books say is not told twice, where it stands among the failures too.
func TestResult_BooksAreToldOnce(t *testing.T) {
	for _, books := range []Books{{Violations: "users id=3"}, {Unaudited: "no time"}} {
		_, why := books.text()
		r := &Result{Books: books, Failures: []string{"the books: " + why, "oversold"}}
		markup, _ := split(pageOf(t, r))
		for name, text := range map[string]string{"table": tableOf(t, r), "page": markup} {
			if n := strings.Count(text, why); n != 1 {
				t.Errorf("the %s says %q %d times:\n%s", name, why, n, text)
			}
			if !strings.Contains(text, "oversold") {
				t.Errorf("the %s lacks the other failure:\n%s", name, text)
			}
		}
	}
}

func TestHTML_IsSmall(t *testing.T) {
	if page := pageOf(t, sample(300)); len(page) > 250<<10 {
		t.Errorf("%d bytes for 300 intervals", len(page))
	}
}

func TestHTML_WritesAllOrNothing(t *testing.T) {
	if err := sample(2).HTML(full{}); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
	r := sample(2)
	r.Seconds = math.NaN()
	var page bytes.Buffer
	if err := r.HTML(&page); err == nil || page.Len() > 0 {
		t.Errorf("%d bytes of what is no figure (%v)", page.Len(), err)
	}
}

func TestUPlot_IsTheVersionThatIsNamed(t *testing.T) {
	if !strings.Contains(uPlotScript[:100], "(v"+uPlotVersion+")") {
		t.Errorf("the file says %.60q", uPlotScript)
	}
	page := pageOf(t, &Result{})
	if !strings.Contains(page, "uPlot "+uPlotVersion) || !strings.Contains(page, "Permission is hereby granted") {
		t.Error("the page does not name it and its licence")
	}
}

// A browser draws every chart, asks for nothing but the page, and has nothing to say on its console.
func TestHTML_InABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium to look at the page with")
	}
	r := samples()["full"]
	page := pageOf(t, r)
	var mu sync.Mutex
	asked := make(map[string]int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		mu.Lock()
		asked[request.URL.Path]++
		mu.Unlock()
		_, _ = io.WriteString(w, page)
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--enable-logging=stderr", "--user-data-dir="+t.TempDir(), "--dump-dom", server.URL)
	var dom, log strings.Builder
	cmd.Stdout, cmd.Stderr = &dom, &log
	if err := cmd.Run(); !strings.Contains(dom.String(), "<h1>flash-sale</h1>") {
		t.Skipf("chromium does not work here: %v\n%.2000s", err, log.String())
	}
	if drawn, want := strings.Count(dom.String(), "<canvas"), len(r.charts()); drawn != want {
		t.Errorf("%d charts are drawn, want %d", drawn, want)
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			t.Error(line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["/"] == 0 || len(asked) != 1 {
		t.Errorf("it asked for %q", slices.Collect(maps.Keys(asked)))
	}
}
