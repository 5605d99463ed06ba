package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
	"stampede/cmd/stack/stacktest"
)

// small is a load test that is over soon.
func small(t *testing.T) loading {
	return loading{
		loadCmd: loadCmd{
			Rate: 200, Pace: paceConstant, P99: time.Second, For: 500 * time.Millisecond, Connections: 16,
			Users: 20, Products: 10, Stock: 30, Seed: 1, Stampede: buildStampede(t),
		},
		step: 100 * time.Millisecond, console: console{out: t.Output(), progress: t.Output()},
	}
}

func TestLoad_EveryScenarioOnAPrivateStack(t *testing.T) {
	tmp := stacktest.Temp(t)
	t.Setenv("TMPDIR", tmp)
	w, err := newWorkspace()
	if err != nil {
		t.Fatal(err)
	}
	private := small(t)
	if err := private.open(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := private.target.stop(); err != nil {
			t.Error(err)
		}
		if err := w.remove(); err != nil {
			t.Error(err)
		}
	}()
	measure := func(t *testing.T, l *loading) *result.Result {
		t.Helper()
		r, err := l.measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Failures) > 0 {
			t.Fatalf("failures %q", r.Failures)
		}
		c := r.Total
		if c.Accepted == 0 || c.Due != c.Accepted+c.Refused+c.Failed+c.NotSent || len(r.Timeline) < 5 || len(r.Batches) == 0 {
			t.Errorf("not a whole result: %+v", r)
		}
		return r
	}

	flash := private
	flash.Scenario = scenarioFlash
	t.Run("flash", func(t *testing.T) {
		if c := measure(t, &flash).Total; c.Due != 100 || c.Accepted != 30 || c.Statuses[409] != 70 {
			t.Errorf("of 30 units: %+v", c)
		}
	})
	t.Run("mixed", func(t *testing.T) {
		l := private
		l.Scenario, l.Rate, l.Pace = scenarioMixed, 400, pacePoisson
		r := measure(t, &l)
		for _, k := range r.Kinds {
			if k.Counts.Accepted == 0 {
				t.Errorf("%s: %+v", k.Name, k.Counts)
			}
		}
		// A cart may turn out empty, where two requests of one user crossed.
		if r.Total.Refused > r.Total.Statuses[409] || r.Total.Refused > r.Total.Due/20 {
			t.Errorf("refused: %+v", r.Total)
		}
	})
	t.Run("uniform, found", func(t *testing.T) {
		l := private
		l.Scenario, l.Find, l.Rate = scenarioUniform, true, 100
		r := measure(t, &l)
		if len(r.Search) < 2 || !slices.ContainsFunc(r.Search, func(s result.Step) bool { return s.Held }) {
			t.Errorf("searched %+v", r.Search)
		}
	})
	t.Run("charge, of a running stampede up", func(t *testing.T) {
		l := small(t)
		l.Scenario, l.Closed, l.DataDir = scenarioCharge, true, private.target.data
		if err := l.open(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		if r := measure(t, &l); l.private() || r.Loop != "closed" || r.Total.Statuses[200] != r.Total.Accepted {
			t.Errorf("not a closed loop of charges against somebody else's stack: %+v", r)
		}
	})
	t.Run("books", func(t *testing.T) {
		var r result.Result
		if err := flash.checkBooks(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Failures) > 0 || !r.Books.Closed {
			t.Errorf("failures %q, books %+v", r.Failures, r.Books)
		}
		flash.hot[0].accepted++ // an answer that nothing stands behind
		if err := flash.checkStock(t.Context(), flash.hot[0], &r); err != nil || len(r.Failures) != 1 || !strings.Contains(r.Failures[0], "oversold: 31") {
			t.Errorf("failures %q (%v)", r.Failures, err)
		}
	})
}

func TestLoad_RefusesWhatCannotBeMeant(t *testing.T) {
	for _, args := range []string{
		"--scenario panic", "--pace brisk", "--rate -1", "--for 1ms", "--connections 0", "--users 0", "--products 0", "--stock 0",
		"--zipf 0.9", "--zipf -1", "--find --closed", "--closed --rate 5", "--closed --pace poisson", "--find --pace spike", "--p99 0s", "--product-ids 1", "--addr shop",
		"--addr https://shop:443", "--addr shop:80 --data-dir .stampede", "--seed -1",
	} {
		if code := run(append([]string{"load"}, strings.Fields(args)...), t.Output(), t.Output()); code != exitUsage {
			t.Errorf("bench load %s ended with %d, want %d", args, code, exitUsage)
		}
	}
}

func TestLoad_SaysWhatToDoWhereNothingListens(t *testing.T) {
	var said strings.Builder
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"load", "--addr", addr}, t.Output(), &said); code != exitFailed || !strings.Contains(said.String(), addr+" does not answer as ready") {
		t.Errorf("ended with %d: %s", code, said.String())
	}
	said.Reset()
	dir := t.TempDir()
	if code := run([]string{"load", "--data-dir", dir, "--stampede", "x"}, t.Output(), &said); code != exitFailed || !strings.Contains(said.String(), "does `stampede up` run there?") {
		t.Errorf("ended with %d: %s", code, said.String())
	}
}

func TestMarks_SayThatTheGeneratorWasTheBottleneck(t *testing.T) {
	idle := map[string]float64{programGenerator: 0.4, programOthers: 0.1}
	r := &result.Result{Loop: "open", Connections: 8, Total: result.Counts{Due: 1000}}
	for name, c := range map[string]struct {
		dispatch load.Dispatch
		cores    map[string]float64
		notSent  int64
		want     string
	}{
		"clean":          {load.Dispatch{Late: time.Millisecond, Crowded: 5}, idle, 0, ""},
		"busy generator": {load.Dispatch{}, map[string]float64{programGenerator: 0.75}, 0, "the generator used 0.75 cores"},
		"late":           {load.Dispatch{Late: 8 * time.Millisecond}, idle, 0, "sent 8ms or more after it was due, although a connection was free"},
		"crowded":        {load.Dispatch{Crowded: 20, Wait: time.Second}, idle, 0, "20 of 1000 requests found all 8 connections busy and waited for one, up to 1 s"},
		"not sent":       {load.Dispatch{}, idle, 3, "3 requests were not sent"},
		"company":        {load.Dispatch{}, map[string]float64{programOthers: 0.5}, 0, "other programs and the kernel used 0.50 cores"},
	} {
		r.Total.NotSent = c.notSent
		found := marks(r, c.dispatch, c.cores, true)
		if c.want == "" {
			if len(found) > 0 {
				t.Errorf("%s: %q", name, found)
			}
		} else if len(found) != 1 || !strings.Contains(found[0], c.want) {
			t.Errorf("%s: %q, want %q", name, found, c.want)
		}
	}
}
