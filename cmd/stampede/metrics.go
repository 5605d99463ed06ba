package main

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stampede/cmd/shop"
	"stampede/persist"
)

// newRegistry returns a registry with what is true of any Go process, and which one this is.
func newRegistry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go": runtime.Version()},
	})
	build.Set(1)
	return registry, registerAll(registry, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// watchWriter registers the measures of the way from Redis into Postgres.
func watchWriter(registry prometheus.Registerer, s *shop.Shop) error {
	watched := []prometheus.Collector{newLagCollector(s.Books.Lag, s.Books.LagAge)}
	if s.Writer != nil {
		watched = append(watched, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_writer_alarm", Help: "1 where the writer stopped before events it must not pass. Worry at 1: GET /readyz says why.",
		}, func() float64 {
			if s.Writer.Alarm() != nil {
				return 1
			}
			return 0
		}))
	}
	return registerAll(registry, watched...)
}

func registerAll(registry prometheus.Registerer, all ...prometheus.Collector) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, registry.Register(c))
	}
	return errors.Join(errs...)
}

// lagCollector measures the writer's lag when it is asked. Where it cannot, the sample is missing and a failure
// counted: any number would be believed, 0 most of all. The age is never missing: this process has seen how long events
// wait, and an alert on it must fire while Postgres is silent.
type lagCollector struct {
	measure              func(context.Context) (persist.Lag, error)
	waited               func() time.Duration
	events, age, backlog *prometheus.Desc
	quarantined          *prometheus.Desc
	failures             prometheus.Counter
}

func newLagCollector(measure func(context.Context) (persist.Lag, error), waited func() time.Duration) *lagCollector {
	return &lagCollector{
		measure: measure, waited: waited,
		events: prometheus.NewDesc("stampede_writer_lag_events",
			"Events in Redis that Postgres lacks, measured now: at 0 every change answered before is in the tables.", nil, nil),
		age: prometheus.NewDesc("stampede_writer_lag_seconds",
			"Age of the oldest event that Postgres lacks, or how long this process has seen it wait, whichever is longer; 0 when it lacks none. Worry above 60.", nil, nil),
		backlog: prometheus.NewDesc("stampede_backlog_used_ratio",
			"Share of its cap that the backlog of events uses, in the fullest partition, measured now. Worry above 0.5: at 1 orders are answered 503.", nil, nil),
		quarantined: prometheus.NewDesc("stampede_quarantined_events",
			"Events of which nothing could be derived, measured now. Worry at any: see the table quarantine, and run `stampede rebuild-reports` once the cause is gone.", nil, nil),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_writer_lag_failures_total",
			Help: "Times that the writer's lag could not be measured, and its samples were left out. Worry when it climbs: Redis or Postgres does not answer.",
		}),
	}
}

// Describe is for the registry.
func (c *lagCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.events
	descs <- c.age
	descs <- c.backlog
	descs <- c.quarantined
	c.failures.Describe(descs)
}

// Collect measures.
func (c *lagCollector) Collect(samples chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	lag, err := c.measure(ctx)
	if err == nil {
		samples <- prometheus.MustNewConstMetric(c.events, prometheus.GaugeValue, float64(lag.Events))
		samples <- prometheus.MustNewConstMetric(c.backlog, prometheus.GaugeValue, lag.Backlog)
		samples <- prometheus.MustNewConstMetric(c.quarantined, prometheus.GaugeValue, float64(lag.Quarantined))
	}
	if err != nil {
		lag.Age = c.waited()
		c.failures.Inc()
	}
	samples <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, lag.Age.Seconds())
	c.failures.Collect(samples)
}
