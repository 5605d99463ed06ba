package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

func TestCompare_MeasuresEveryRowAndLeavesNothing(t *testing.T) {
	tmp := stacktest.Temp(t)
	t.Setenv("TMPDIR", tmp)
	// The memory has a test of its own.
	only := slices.DeleteFunc(rowNames(), func(name string) bool { return name == rowMemory })
	x := comparison{
		connections: 16, crowd: 32, users: 20, products: 4,
		rounds: 1, burst: 200 * time.Millisecond, steady: 200 * time.Millisecond, other: 200 * time.Millisecond, warmUp: 50 * time.Millisecond,
		only: only, binary: buildStampede(t), console: console{out: t.Output(), progress: t.Output()},
	}
	r, err := x.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Failures) > 0 {
		t.Errorf("the run failed: %q", r.Failures)
	}
	if r.Books.Accepted == 0 || r.Books.UnitsSold != r.Books.Accepted {
		t.Errorf("books: %+v", r.Books)
	}
	for _, c := range r.cells() {
		rounds := r.of(c)
		if c == steadyStampede && len(rounds) == 0 {
			continue // so short a round may see no rate at which the lag is flat
		}
		if len(rounds) != 1 || rounds[0].Accepted == 0 {
			t.Errorf("%s, %s: %+v", c.server, c.load, rounds)
		}
	}
	if batch := r.of(cell{programEvalsha, loadMany, false})[0].Batch; batch != 1 {
		t.Errorf("a call of the baseline with one EVALSHA a request carried %v orders", batch)
	}
	if len(r.Rows) != len(r.chosen) || len(r.Rows) < len(only) {
		t.Errorf("%d rows of %q", len(r.Rows), only)
	}
	if err := r.table(t.Output()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}

// sampleComparison has two rounds of each cell: Stampede at 40 and 50 orders a second, others at 100.
func sampleComparison() *comparisonReport {
	r := &comparisonReport{chosen: rows, Memory: &memoryReport{BytesAnOrder: 200, BytesAUser: 80}, Books: books{Accepted: 5, UnitsSold: 5}}
	for _, c := range r.cells() {
		for i := range 2 {
			one := round{
				Server: c.server, Load: c.load, Seconds: 1, Accepted: 100, PerSecond: 100, P99: 8000,
				Cores:      map[string]float64{programGenerator: 0.3},
				CPUDrained: map[string]float64{c.server: 3, programRedis: 4, programPostgres: 5},
			}
			if c.server == programStampede {
				one.PerSecond = 40 + 10*float64(i)
				one.CPUDrained[programRedis] = 20
			}
			r.Rounds = append(r.Rounds, one)
		}
	}
	return r
}

func TestCompare_HoldsFiguresAgainstWhatIsPromised(t *testing.T) {
	r := sampleComparison()
	r.conclude()
	if len(r.Marks) > 0 {
		t.Errorf("a clean run is marked: %q", r.Marks)
	}
	got := make(map[string]measuredRow)
	for _, row := range r.Rows {
		if _, seen := got[row.Name]; !seen {
			got[row.Name] = row
		}
	}
	for name, want := range map[string]struct {
		measured spread
		verdict  string
	}{
		"burst":    {spread{0.45, 0.4, 0.5}, "target"},
		"refusals": {spread{0.45, 0.4, 0.5}, "short of target"},
		"evalsha":  {spread{0.45, 0.4, 0.5}, "short of target"},
		"redis":    {spread{5, 5, 5}, "target"},
		"hot":      {spread{}, "moonshot"},
		"p99":      {spread{8, 8, 8}, "target"},
		"writer":   {spread{5, 5, 5}, "target, in this part"},
		rowMemory:  {spread{200, 200, 200}, "target"},
	} {
		if row := got[name]; row.Measured != want.measured || row.Verdict != want.verdict {
			t.Errorf("%s: %v %q, want %v %q", name, row.Measured, row.Verdict, want.measured, want.verdict)
		}
	}
}

func TestCompare_MarksABusyGenerator(t *testing.T) {
	r := sampleComparison()
	r.Rounds[1].Cores[programGenerator] = 0.6
	r.Rounds[2].Cores[programOthers] = 0.7
	r.conclude()
	if len(r.Marks) != 2 || !strings.Contains(r.Marks[0], "generator used up to 0.60 cores beside stampede, many products") ||
		!strings.Contains(r.Marks[1], "up to 0.70 cores beside empty handler") {
		t.Errorf("marks %q", r.Marks)
	}
}

func TestCompare_TablesAreMarkdownAndJSONHoldsTheSame(t *testing.T) {
	r := sampleComparison()
	r.Machine.Cores = 2
	r.conclude()
	var table strings.Builder
	if err := r.table(&table); err != nil {
		t.Fatal(err)
	}
	pipes := 0
	for line := range strings.Lines(table.String()) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		pipes++
		if columns := strings.Count(line, "|"); columns != 7 && columns != 10 {
			t.Errorf("%d columns in %q", columns-1, line)
		}
	}
	if want := 2 + len(r.Rows) + 2 + len(r.cells()); pipes != want {
		t.Errorf("%d lines of tables, want %d", pipes, want)
	}
	path := filepath.Join(t.TempDir(), "compare.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back comparisonReport
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Rows, r.Rows) || len(back.Rounds) != len(r.Rounds) {
		t.Errorf("came back as %+v", back)
	}
}

func TestCompareCmd_RefusesUnknownRows(t *testing.T) {
	for _, args := range [][]string{{"compare", "--only", "speed"}, {"compare", "--connections", "0"}} {
		if code := run(args, t.Output(), t.Output()); code != exitUsage {
			t.Errorf("bench %q ended with %d, want %d", args, code, exitUsage)
		}
	}
}
