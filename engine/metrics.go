package engine

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are resolved once, so that the hot path only adds.
type metrics struct {
	batch     map[*kind]prometheus.Observer
	seconds   map[*kind]prometheus.Observer
	fallbacks prometheus.Counter
	expired   prometheus.Counter
	waited    map[waitEnd]prometheus.Counter
	moved     prometheus.Counter
}

// waitEnd is how an order ended that found its partition's share of a product too small.
type waitEnd string

// The ends.
const (
	waitSupplied waitEnd = "supplied"
	waitShort    waitEnd = "out_of_stock"
	waitLate     waitEnd = "late"
	waitOther    waitEnd = "other"
)

func newMetrics(e *Engine, reg prometheus.Registerer) (*metrics, error) {
	batch := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "stampede_batch_operations",
		Help:    "Operations in a script call. Near 256 all the time, the queues are about to fill.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 10),
	}, []string{"script"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "stampede_redis_call_duration_seconds",
		Help:    "Time of a script call, from sending it to its reply. Worry above 0.25 s: disk, network or CPU of Redis; at 2 s answers become 504.",
		Buckets: prometheus.ExponentialBuckets(0.000125, 2, 16),
	}, []string{"script"})
	m := &metrics{
		batch: map[*kind]prometheus.Observer{}, seconds: map[*kind]prometheus.Observer{},
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_batch_fallbacks_total",
			Help: "Batches whose script failed and that were sent one by one. Worry at any: the log names the script and why.",
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_orders_expired_total",
			Help: "Unpaid orders that this process ended at their deadline, their stock given back.",
		}),
	}
	waits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stampede_stock_waits_total",
		Help: "Orders and write-offs that found their partition's share of a product too small, by how they ended: supplied from other " +
			"partitions, out_of_stock in all of them, late (503, the units did not come in 2 s), or other. Worry at late: the writer or " +
			"Postgres is slow, or a partition is shut.",
	}, []string{"end"})
	m.waited = map[waitEnd]prometheus.Counter{}
	for _, end := range []waitEnd{waitSupplied, waitShort, waitLate, waitOther} {
		m.waited[end] = waits.WithLabelValues(string(end))
	}
	m.moved = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "stampede_stock_moves_total",
		Help: "Transfers of units between partitions' shares that this process has begun.",
	})
	for _, k := range kinds {
		m.batch[k] = batch.WithLabelValues(k.script.Name)
		m.seconds[k] = seconds.WithLabelValues(k.script.Name)
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{batch, seconds, m.fallbacks, m.expired, waits, m.moved, NewPoolCollector("calls", e.redis)}
	for _, p := range e.partitions {
		collectors = append(collectors, p.collectors()...)
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) called(k *kind, operations int, took time.Duration) {
	m.batch[k].Observe(float64(operations))
	m.seconds[k].Observe(took.Seconds())
}

// collectors read a partition when they are asked.
func (p *partition) collectors() []prometheus.Collector {
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"partition": strconv.Itoa(p.number)},
		}, read)
	}
	refusals := func(reason string, read func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stampede_queue_refusals_total",
			Help: "Operations and reads answered 503 for lack of time or room, not done. full: no place in the queue. " +
				"late: the deadline passed in the queue. Worry at any: more comes in than Redis takes.",
			ConstLabels: prometheus.Labels{"partition": strconv.Itoa(p.number), "reason": reason},
		}, func() float64 { return float64(read()) })
	}
	return []prometheus.Collector{
		gauge("stampede_queue_operations", "Operations waiting in a partition's queue. Worry at half of stampede_queue_operations_max.",
			func() float64 { return float64(p.queue.depth()) }),
		gauge("stampede_queue_operations_max", "Operations that a partition's queue takes; what comes beyond is answered 503.",
			func() float64 { return float64(p.queue.max) }),
		refusals("full", func() int64 { return p.queue.refused() + p.reads.refused() }),
		refusals("late", p.late.Load),
		gauge("stampede_partition_open", "1 where a partition sells. Worry at 0 for a minute: GET /readyz says why.",
			func() float64 {
				if p.door.state.Load().open {
					return 1
				}
				return 0
			}),
		gauge("stampede_partition_clock_lead_seconds", "By how much a partition's clock leads the TIME of Redis, which was set back. Worry "+
			"above 1: check NTP on the server of Redis; unpaid orders are held for up to twice their time meanwhile.",
			func() float64 { return time.Duration(p.lead.Load()).Seconds() }),
	}
}
