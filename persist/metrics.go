package persist

import (
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// writerMetrics are what the operator of a writer acts on.
type writerMetrics struct {
	leads         prometheus.Gauge
	events        prometheus.Counter
	seconds       prometheus.Histogram
	interruptions prometheus.Counter
	letGo         prometheus.Counter
	lapsed        prometheus.Counter
	quarantined   prometheus.Counter
	stream        prometheus.Collector
}

func newWriterMetrics(stream redis.UniversalClient) *writerMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &writerMetrics{
		leads: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stampede_writer_partitions",
			Help: "Partitions that this process writes. Worry when the sum over all processes stays below the number of partitions.",
		}),
		events: counter("stampede_writer_events_total", "Events that this process brought into Postgres."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "stampede_writer_batch_duration_seconds",
			Help:    "Time of a transaction of the writer. Worry above 1 s: disk, locks or CPU of Postgres.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		interruptions: counter("stampede_writer_interruptions_total",
			"Times that writing a partition broke off and was begun anew. Worry when it climbs: the log says why."),
		quarantined: counter("stampede_writer_quarantined_events_total",
			"Events of which nothing could be derived: they stand in the journal and in quarantine. Worry at any: the log says why."),
		letGo:  counter("stampede_writer_orders_let_go_total", "Ended orders that left Redis, since Postgres has them."),
		lapsed: counter("stampede_writer_events_lapsed_total", "Events whose idempotency records left Redis, since their time had passed."),
		stream: engine.NewPoolCollector("stream", stream),
	}
}

func (m *writerMetrics) wrote(events int64, quarantined int, took time.Duration) {
	m.events.Add(float64(events))
	m.quarantined.Add(float64(quarantined))
	m.seconds.Observe(took.Seconds())
}

func (m *writerMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.leads, m.events, m.seconds, m.interruptions, m.letGo, m.lapsed, m.quarantined, m.stream}
}

// Describe is for the registry.
func (w *Writer) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range w.metrics.collectors() {
		c.Describe(descs)
	}
}

// Collect is for the registry.
func (w *Writer) Collect(samples chan<- prometheus.Metric) {
	for _, c := range w.metrics.collectors() {
		c.Collect(samples)
	}
}

// poolCollector reads the pool of connections to Postgres when it is asked.
type poolCollector struct {
	pool *pgxpool.Pool

	connections, most, acquires, waits, waited, canceled *prometheus.Desc
}

// PoolCollector returns a collector of the pool's statistics.
func (b *Books) PoolCollector() prometheus.Collector {
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("stampede_postgres_pool_"+name, help, variable, nil)
	}
	return &poolCollector{
		pool:        b.pool,
		connections: desc("connections", "Connections to Postgres: acquired, idle or being opened (opening).", "state"),
		most:        desc("connections_max", "Connections that the pool opens at most."),
		acquires:    desc("acquires_total", "Times that a caller got a connection."),
		waits:       desc("waits_total", "Times that a caller waited for one, or for it to be opened."),
		waited:      desc("wait_seconds_total", "Time that callers waited. Worry when it grows by a second a second: Postgres is slow, or the pool too small."),
		canceled:    desc("canceled_acquires_total", "Times that a caller waited in vain. Worry at any: Postgres hangs, or the pool is too small."),
	}
}

// Describe is for the registry.
func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.most, c.acquires, c.waits, c.waited, c.canceled} {
		descs <- d
	}
}

// Collect reads.
func (c *poolCollector) Collect(samples chan<- prometheus.Metric) {
	s := c.pool.Stat()
	gauge := func(desc *prometheus.Desc, value int32, state ...string) {
		samples <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), state...)
	}
	counter := func(desc *prometheus.Desc, value float64) {
		samples <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value)
	}
	gauge(c.connections, s.AcquiredConns(), "acquired")
	gauge(c.connections, s.IdleConns(), "idle")
	gauge(c.connections, s.ConstructingConns(), "opening")
	gauge(c.most, s.MaxConns())
	counter(c.acquires, float64(s.AcquireCount()))
	counter(c.waits, float64(s.EmptyAcquireCount()))
	counter(c.waited, s.EmptyAcquireWaitTime().Seconds())
	counter(c.canceled, float64(s.CanceledAcquireCount()))
}
