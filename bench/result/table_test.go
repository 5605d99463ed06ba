package result

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// tableOf is the table with every run of spaces as one.
func tableOf(t *testing.T, r *Result) string {
	t.Helper()
	var text strings.Builder
	if err := r.Table(&text); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(` +`).ReplaceAllString(text.String(), " ")
}

func TestTable_TellsWhatCameOfIt(t *testing.T) {
	r := sample(120)
	r.Search = sampleSearch()
	r.Failures = []string{"3 orders were accepted twice"}
	table := tableOf(t, r)
	for _, want := range []string{
		"Scenario flash-sale, open loop\nPace: spike, 500 a second, at 20 s 24000",
		"256 connections, 100000 users, 20 products, seed 42",
		"Target: stampede up, in a data directory of its own",
		"Cores 2, Kernel 6.1.0, Filesystem ext4, Go go1.26.0, Redis 7.0.15",
		"accepted 200000 55.38 3333.3",
		"asked again 30",
		"kind due accepted refused failed not sent p50, ms p99, ms max\norder 240744 133334 ",
		"browse 120372 66666 ",
		"latency, ms p50 p90 p95 p99 p99.9 p99.99 max\nof accepted 2.10 3.53 4.41 7.41 15.6 32.7 115\n",
		"status answers\n201 200000\n409 ",
		"operations a script call calls %\n1 8200 43.1\n2 3100 16.3\n3 to 4 2400 ",
		"more than 256 4 0.0",
		"CPU cores by program mean most\ngenerator 0.2",
		"rate tried reached p99, ms held\n4000 4000 4.10 yes\n",
		"16000 a second did not hold: p99 of 184 ms is above 20 ms",
		"a second: ─ accepted, ∙ refused\n",
		"p99 of accepted, ms\n",
		"Books: closed\nMARKED: the generator used up to 0.62 cores (more than 0.5)\nFAILED: 3 orders were accepted twice\nTook 60.0 s\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(table)
	}
}

func TestTable_FitsATerminal(t *testing.T) {
	r := sample(300)
	r.Kinds, r.Pace, r.Target = nil, "", "" // as wide as their names are
	var text strings.Builder
	if err := r.Table(&text); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 {
			t.Errorf("more than 80 columns: %q", line)
		}
	}
}

func TestTable_LeavesOutWhatIsNotKnown(t *testing.T) {
	for name, r := range map[string]*Result{
		"nothing at all":       {},
		"intervals of nothing": {Timeline: []Interval{{Lag: -1}, {Lag: -1}}, Seconds: 2, Batches: []Bucket{{UpTo: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			table := tableOf(t, r)
			for _, no := range []string{"NaN", "Inf", "p99", "latency", "script call", "by program", "kind", "status"} {
				if strings.Contains(table, no) {
					t.Errorf("there is none, and yet it says %s:\n%s", no, table)
				}
			}
			if !strings.Contains(table, "accepted 0 0.00 0.0") || !strings.Contains(table, "Books: not audited\n") {
				t.Errorf("it does not say that nothing was accepted and audited:\n%s", table)
			}
		})
	}
}

// A curve has to be drawn whatever there is: asciigraph panics on what it does not expect.
func TestTable_PlotsWhatThereIs(t *testing.T) {
	quiet, gap := sample(30), sample(30)
	for i := range gap.Timeline {
		if i != 7 {
			gap.Timeline[i].P99 = 0
		}
	}
	for i := range quiet.Timeline {
		quiet.Timeline[i] = Interval{At: float64(i), Seconds: 1}
	}
	for name, c := range map[string]struct {
		r       *Result
		latency bool
	}{
		"one interval":             {sample(1), true},
		"two":                      {sample(2), true},
		"more than columns":        {sample(1000), true},
		"a latency in one":         {gap, true},
		"nothing ever":             {quiet, false},
		"intervals without an end": {&Result{Timeline: []Interval{{Accepted: 3}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			table := tableOf(t, c.r)
			if !strings.Contains(table, "─ accepted") || !strings.Contains(table, "┤") || !strings.Contains(table, "└") {
				t.Errorf("no plot:\n%s", table)
			}
			if strings.Contains(table, "p99 of accepted, ms") != c.latency {
				t.Errorf("a plot of latency should be there: %v\n%s", c.latency, table)
			}
		})
	}
}

func TestTable_SaysWhatTheBooksAreWorth(t *testing.T) {
	for want, books := range map[string]Books{
		"Books: closed\n":                           {Closed: true},
		"Books: do NOT close: users id=3\n":         {Violations: "users id=3"},
		"Books: not audited: no time\n":             {Unaudited: "no time"},
		"Books: do NOT close: a doubt is no pass\n": {Closed: true, Violations: "a doubt is no pass"},
	} {
		if table := tableOf(t, &Result{Books: books}); !strings.Contains(table, want) {
			t.Errorf("want %q:\n%s", want, table)
		}
	}
	long := tableOf(t, &Result{Books: Books{Violations: strings.Repeat("x", 1<<20)}})
	if len(long) > 4000 {
		t.Errorf("%d bytes of a table", len(long))
	}
}

func TestJSON_ComesBackTheSame(t *testing.T) {
	for _, r := range []*Result{{}, sample(3)} {
		r.Search = sampleSearch()
		var text strings.Builder
		if err := r.JSON(&text); err != nil {
			t.Fatal(err)
		}
		var back Result
		if err := json.Unmarshal([]byte(text.String()), &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&back, r) {
			t.Errorf("came back as %+v, was %+v", back, r)
		}
		if !strings.Contains(text.String(), "\n  \"scenario\": ") {
			t.Errorf("not indented: %.80s", text.String())
		}
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestResult_ReportsThatItCannotWrite(t *testing.T) {
	r := sample(2)
	for name, err := range map[string]error{"table": r.Table(full{}), "JSON": r.JSON(full{})} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
