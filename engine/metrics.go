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
}

func newMetrics(e *Engine, reg prometheus.Registerer) (*metrics, error) {
	batch := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "stampede_batch_operations", Help: "Operations in a script call.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 10),
	}, []string{"script"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "stampede_redis_call_seconds", Help: "Time of a script call, from sending it to its reply.",
		Buckets: prometheus.ExponentialBuckets(0.000125, 2, 16),
	}, []string{"script"})
	m := &metrics{
		batch: map[*kind]prometheus.Observer{}, seconds: map[*kind]prometheus.Observer{},
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stampede_batch_fallbacks_total", Help: "Batches whose script failed and that were sent one by one.",
		}),
	}
	for _, k := range kinds {
		m.batch[k] = batch.WithLabelValues(k.script.Name)
		m.seconds[k] = seconds.WithLabelValues(k.script.Name)
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{batch, seconds, m.fallbacks}
	for _, p := range e.partitions {
		labels := prometheus.Labels{"partition": strconv.Itoa(p.number)}
		collectors = append(collectors,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "stampede_queue_operations", Help: "Operations waiting in a partition's queue.", ConstLabels: labels,
			}, func() float64 { return float64(p.queue.depth()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "stampede_door_open", Help: "1 where a partition sells.", ConstLabels: labels,
			}, func() float64 {
				if p.door.state.Load().open {
					return 1
				}
				return 0
			}))
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
