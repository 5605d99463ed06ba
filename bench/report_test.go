package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/bench/load"
)

// sampleReport is of three rounds each: the shop at 20, 30 and 25 orders a second, the empty handler at 100.
func sampleReport() *report {
	r := &report{Marks: []string{}, Failures: []string{}, Machine: machine{Filesystem: "ext4"}, RoundSeconds: 1}
	r.Books = books{Accepted: 75, UnitsSold: 75}
	for _, accepted := range []int64{20, 30, 25} {
		shop := load.Tally{Accepted: accepted, ReplyBytes: 334, P50: 2 * time.Millisecond, P99: 9 * time.Millisecond}
		empty := load.Tally{Accepted: 100, ReplyBytes: 330, P50: time.Millisecond, P99: 3 * time.Millisecond}
		burst := usage{programStampede: 300 * time.Millisecond, programGenerator: 200 * time.Millisecond}
		drained := usage{programStampede: 600 * time.Millisecond, programGenerator: 200 * time.Millisecond}
		r.Rounds = append(r.Rounds,
			newRound(programStampede, shop, time.Second, time.Second/2, burst, drained),
			newRound(programEmpty, empty, time.Second, 0, usage{programEmpty: time.Second}, usage{programEmpty: time.Second}))
	}
	return r
}

func TestReport_SummarizesByMedian(t *testing.T) {
	r := sampleReport()
	r.summarize()
	for _, c := range []struct {
		name      string
		got, want spread
	}{
		{"accepted a second", r.Stampede.PerSecond, spread{25, 20, 30}},
		{"ratio", r.Ratio, spread{0.25, 0.2, 0.3}},
		{"CPU, burst", r.Stampede.CPU[programStampede], spread{12_000, 10_000, 15_000}},
		{"CPU, with drain", r.Stampede.CPUDrained[programStampede], spread{24_000, 20_000, 30_000}},
		{"generator", r.Stampede.Cores[programGenerator], spread{0.2, 0.2, 0.2}},
		{"drain", r.Stampede.Drain, spread{0.5, 0.5, 0.5}},
		{"p99", r.Empty.P99, spread{3000, 3000, 3000}},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if len(r.Marks) > 0 || len(r.Failures) > 0 {
		t.Errorf("a clean run has marks %q and failures %q", r.Marks, r.Failures)
	}
	if even := spreadOf([]float64{4, 1, 3, 2}); even != (spread{2.5, 1, 4}) {
		t.Errorf("the median of an even number is %v", even)
	}
}

func TestReport_MarksAndFails(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*report)
		marks  string
		failed string
	}{
		"generator too busy": {func(r *report) { r.Rounds[2].Cores[programGenerator] = 0.51 }, "generator used up to 0.51 cores beside stampede", ""},
		"machine shared":     {func(r *report) { r.Rounds[1].Cores[programOthers] = 0.4 }, "used up to 0.40 cores beside the empty handler", ""},
		"shop not quiet":     {func(r *report) { r.Rounds[3].Cores[programPostgres] = 0.3 }, "stampede used up to 0.30 cores while", ""},
		"replies differ":     {func(r *report) { r.Rounds[1].ReplyBytes, r.Rounds[3].ReplyBytes = 20, 20 }, "334 bytes from stampede, 20 from", ""},
		"memory":             {func(r *report) { r.Machine.Filesystem = inMemory }, "set TMPDIR", ""},
		"order lost":         {func(r *report) { r.Books.UnitsSold-- }, "", "75 orders of one unit were accepted, but 74 units are sold"},
		"no audit":           {func(r *report) { r.Books.Unaudited = "no time" }, "", "not audited: no time"},
		"books":              {func(r *report) { r.Books.Violations = "users id=3" }, "", "do not close: users id=3"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleReport()
			c.spoil(r)
			r.summarize()
			told := func(lines []string, part string) bool {
				return part == "" && len(lines) == 0 ||
					part != "" && slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, part) })
			}
			if !told(r.Marks, c.marks) || !told(r.Failures, c.failed) {
				t.Errorf("marks %q and failures %q, want %q and %q", r.Marks, r.Failures, c.marks, c.failed)
			}
			var table strings.Builder
			if err := r.table(&table); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(table.String(), c.marks) || !strings.Contains(table.String(), c.failed) {
				t.Errorf("the table does not tell:\n%s", table.String())
			}
		})
	}
}

func TestReport_JSONHoldsTheSame(t *testing.T) {
	r := sampleReport()
	r.summarize()
	var text strings.Builder
	if err := r.json(&text); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal([]byte(text.String()), &back); err != nil {
		t.Fatal(err)
	}
	if back.Ratio != r.Ratio || len(back.Rounds) != 6 || back.Stampede.CPU[programStampede] != r.Stampede.CPU[programStampede] {
		t.Errorf("came back as %+v", back)
	}
}

func TestReadGauge(t *testing.T) {
	const page = "# HELP lag Events.\n# TYPE lag gauge\nlag_total 7\nlag{partition=\"0\"} 2\nlag{partition=\"1\"} 1.5e+01\nlagging 3\n"
	if got, err := readGauge(strings.NewReader(page), "lag"); err != nil || got != 17 {
		t.Errorf("got %d (%v), want 17", got, err)
	}
	// A missing measure must never be taken for a lag of 0.
	for _, page := range []string{"", "lag_total 7\n", "lag x\n"} {
		if got, err := readGauge(strings.NewReader(page), "lag"); err == nil {
			t.Errorf("%q was read as %d", page, got)
		}
	}
}
