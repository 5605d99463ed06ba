package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
)

func TestHealth_SaysWhatIsWrongAndNeverGuessesTheLag(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog()})
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	if err := watchWriter(registry, s.Shop); err != nil {
		t.Fatal(err)
	}
	h := &health{shop: s.Shop}
	if _, problems := h.Check(t.Context()); len(problems) != 1 || !errors.Is(problems[0], errOpening) {
		t.Errorf("problems before it is open: %v", problems)
	}
	h.opened.Store(true)
	s.Written()
	if lag, problems := h.Check(t.Context()); lag != 0 || len(problems) > 0 {
		t.Errorf("lag %d, problems %v of a shop that is well", lag, problems)
	}
	if samples := gather(t, registry); samples["stampede_writer_lag_events"] != 0 || samples["stampede_build_info"] != 1 || samples["stampede_writer_alarm"] != 0 {
		t.Errorf("measures of a shop that is well: %v", samples)
	}

	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	lag, problems := h.Check(t.Context())
	if took := time.Since(start); took > lookMax+time.Second {
		t.Errorf("a look took %s", took)
	}
	if lag != lagUnknown || !mentions(problems, "Postgres does not answer") || mentions(problems, "door") {
		t.Errorf("lag %d, problems %v without PostgreSQL", lag, problems)
	}
	samples := gather(t, registry)
	if _, there := samples["stampede_writer_lag_events"]; there || samples["stampede_writer_lag_failures_total"] != 1 {
		t.Errorf("measures without PostgreSQL: %v", samples)
	}

	if err := errors.Join(s.Stack.Postgres().Resume(within(t)), s.Stack.Redis().HaltNow(within(t))); err != nil {
		t.Fatal(err)
	}
	if lag, problems := h.Check(t.Context()); lag != lagUnknown || !mentions(problems, "partition 0") {
		t.Errorf("lag %d, problems %v without Redis", lag, problems)
	}
	if err := s.Stack.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
}

func mentions(problems []error, text string) bool {
	for _, p := range problems {
		if strings.Contains(p.Error(), text) {
			return true
		}
	}
	return false
}

// gather scrapes the gauges and counters that carry no more than constant labels.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			samples[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if _, there := samples["go_goroutines"]; !there {
		t.Error("nothing about the Go process")
	}
	return samples
}
