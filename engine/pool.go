package engine

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// poolCollector reads a Redis client's pool of connections when it is asked.
type poolCollector struct {
	client redis.UniversalClient

	connections, hits, misses, waits, waited, timeouts, stale *prometheus.Desc
}

// NewPoolCollector returns a collector of a client's pool statistics, under the pool's name.
func NewPoolCollector(pool string, client redis.UniversalClient) prometheus.Collector {
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("stampede_redis_pool_"+name, help, variable, prometheus.Labels{"pool": pool})
	}
	return &poolCollector{
		client:      client,
		connections: desc("connections", "Connections to Redis, in_use or idle.", "state"),
		hits:        desc("hits_total", "Times that a free connection was there."),
		misses:      desc("misses_total", "Times that none was free: one was opened, or waited for."),
		waits:       desc("waits_total", "Times that a caller waited because the pool was at its limit."),
		waited:      desc("wait_seconds_total", "Time that callers waited because the pool was at its limit."),
		timeouts:    desc("timeouts_total", "Times that a caller waited in vain. Worry at any: Redis hangs, or this process is short of CPU."),
		stale:       desc("stale_connections_total", "Connections that were found broken or too old. Worry when it climbs steadily: something cuts them."),
	}
}

// Describe is for the registry.
func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.hits, c.misses, c.waits, c.waited, c.timeouts, c.stale} {
		descs <- d
	}
}

// Collect reads.
func (c *poolCollector) Collect(samples chan<- prometheus.Metric) {
	s := c.client.PoolStats()
	gauge := func(state string, value uint32) {
		samples <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(value), state)
	}
	idle := min(s.IdleConns, s.TotalConns) // the two are not read at one instant
	gauge("idle", idle)
	gauge("in_use", s.TotalConns-idle)
	for desc, value := range map[*prometheus.Desc]float64{
		c.hits: float64(s.Hits), c.misses: float64(s.Misses), c.waits: float64(s.WaitCount),
		c.waited:   time.Duration(s.WaitDurationNs).Seconds(),
		c.timeouts: float64(s.Timeouts), c.stale: float64(s.StaleConns),
	} {
		samples <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value)
	}
}
