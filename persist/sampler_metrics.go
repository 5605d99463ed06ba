package persist

import "github.com/prometheus/client_golang/prometheus"

// samplerMetrics are what the operator of a sampler acts on.
type samplerMetrics struct {
	violations prometheus.Gauge
	samples    map[string]prometheus.Counter // by piece
	skipped    prometheus.Counter
}

func newSamplerMetrics() *samplerMetrics {
	m := &samplerMetrics{
		violations: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stampede_audit_violations",
			Help: "Different violations that the samples of this process have found since it started, 1000 at most. Worry at any: the log names them.",
		}),
		samples: map[string]prometheus.Counter{},
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_audit_skipped_total",
			Help: "Samples given up because Redis, Postgres or the writer was not ready for them. Worry when it grows as fast as stampede_audit_samples_total for long: nothing is audited.",
		}),
	}
	for _, p := range pieces {
		m.samples[p.name] = prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "stampede_audit_samples_total",
			Help:        "Pieces of the books that were audited while the shop runs, by what was looked at.",
			ConstLabels: prometheus.Labels{"check": p.name},
		})
	}
	return m
}

func (m *samplerMetrics) collectors() []prometheus.Collector {
	all := []prometheus.Collector{m.violations, m.skipped}
	for _, p := range pieces {
		all = append(all, m.samples[p.name])
	}
	return all
}

// Describe is for the registry.
func (s *Sampler) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range s.metrics.collectors() {
		c.Describe(descs)
	}
}

// Collect is for the registry.
func (s *Sampler) Collect(samples chan<- prometheus.Metric) {
	for _, c := range s.metrics.collectors() {
		c.Collect(samples)
	}
}
