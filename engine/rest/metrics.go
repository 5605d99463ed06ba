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
	refusals   *prometheus.CounterVec
	byCode     map[string]prometheus.Counter // refusals of the codes below; never written to again
	exposition fasthttp.RequestHandler
}

// codes are those of all problems there are. Each is counted from 0 on: an alert on the growth of a counter does not see
// the first of what was not there before.
var codes = []string{
	"validation_failed", "missing_idempotency_key", "invalid_json", "unauthorized", "insufficient_balance", "forbidden",
	"user_not_found", "product_not_found", "order_not_found", "not_found", "method_not_allowed", "request_timeout",
	"out_of_stock", "order_not_payable", "order_not_cancelable", "cart_empty", "email_taken", "balance_limit",
	"payload_too_large", "unsupported_media_type", "idempotency_key_reused", "headers_too_large", "rate_limited",
	"overloaded", "timeout", "internal",
}

func newMetrics(cfg Config) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_requests_total", Help: "Requests answered. Worry when more than 1 in 100 has status 503 or 504.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "stampede_http_request_duration_seconds",
			Help:    "Time from a request read to its answer ready. Worry when one in a hundred of POST /order takes over 0.5 s.",
			Buckets: prometheus.ExponentialBuckets(0.000125, 2, 16),
		}, []string{"route"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stampede_http_refusals_total",
			Help: "Problems answered, by code. Worry at any internal or timeout, and when overloaded grows: GET /readyz says why.",
		}, []string{"code"}),
		byCode:     map[string]prometheus.Counter{},
		exposition: exposition(cfg),
	}
	for _, code := range codes {
		m.byCode[code] = m.refusals.WithLabelValues(code)
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refusals} {
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

// refused counts a problem that was answered. The map takes no lock, nobody writes to it.
func (m *metrics) refused(code string) {
	counter, listed := m.byCode[code]
	if !listed {
		counter = m.refusals.WithLabelValues(code)
	}
	counter.Inc()
}

// unreadable counts what was answered without having become a request.
func (m *metrics) unreadable(status int) {
	m.requests.WithLabelValues(noRoute, strconv.Itoa(status)).Inc()
}
