package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stampede/cmd/shop"
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
	watched := []prometheus.Collector{newLagCollector(s.Books.Lag)}
	if s.Writer != nil {
		watched = append(watched, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_writer_alarm", Help: "1 where the writer stopped before events it must not pass.",
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
// counted: any number would be believed, 0 most of all.
type lagCollector struct {
	measure  func(context.Context) (int64, error)
	lag      *prometheus.Desc
	failures prometheus.Counter
}

func newLagCollector(measure func(context.Context) (int64, error)) *lagCollector {
	return &lagCollector{
		measure: measure,
		lag: prometheus.NewDesc("stampede_writer_lag_events",
			"Events in Redis that Postgres lacks, measured now: at 0 every change answered before is in the tables.", nil, nil),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_writer_lag_failures_total", Help: "Times that the writer's lag could not be measured.",
		}),
	}
}

// Describe is for the registry.
func (c *lagCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.lag
	c.failures.Describe(descs)
}

// Collect measures.
func (c *lagCollector) Collect(samples chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), lookMax)
	defer cancel()
	if lag, err := c.measure(ctx); err != nil {
		c.failures.Inc()
	} else {
		samples <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, float64(lag))
	}
	c.failures.Collect(samples)
}
