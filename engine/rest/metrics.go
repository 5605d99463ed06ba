package rest

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
)

type metrics struct {
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	exposition fasthttp.RequestHandler
}

func newMetrics(cfg Config) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_requests_total", Help: "Requests answered.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stampede_http_request_seconds", Help: "Time from a request read to its answer ready.",
			Buckets: prometheus.ExponentialBuckets(0.000125, 2, 16),
		}, []string{"route"}),
		exposition: exposition(cfg),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds} {
		if err := cfg.Metrics.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// route returns what observes a route. Labels are resolved once a status, not on each request.
func (m *metrics) route(name string) func(status int, took time.Duration) {
	const statuses = 600
	var counters [statuses]atomic.Pointer[prometheus.Counter]
	seconds := m.seconds.WithLabelValues(name)
	return func(status int, took time.Duration) {
		seconds.Observe(took.Seconds())
		if status < 0 || status >= statuses {
			return
		}
		c := counters[status].Load()
		if c == nil {
			resolved := m.requests.WithLabelValues(name, strconv.Itoa(status))
			c = &resolved
			counters[status].Store(c)
		}
		(*c).Inc()
	}
}
