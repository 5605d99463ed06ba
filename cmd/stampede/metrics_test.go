package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// serveShop puts HTTP in front of a shop, in this process, as a sale does.
func serveShop(t *testing.T, s *shoptest.Shop, registry *prometheus.Registry) *server {
	t.Helper()
	h := &health{shop: s.Shop}
	h.opened.Store(true)
	api, err := (&sale{adminToken: secret}).server(&console{log: quietLog()}, h, registry)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- api.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := api.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &server{program: &program{t: t}, url: "http://" + listener.Addr().String(), token: secret}
}

// exposed are all metrics of a running shop.
var exposed = map[string]dto.MetricType{
	"stampede_build_info":                            dto.MetricType_GAUGE,
	"stampede_http_connections":                      dto.MetricType_GAUGE,
	"stampede_http_connections_refused_total":        dto.MetricType_COUNTER,
	"stampede_http_requests_total":                   dto.MetricType_COUNTER,
	"stampede_http_request_duration_seconds":         dto.MetricType_HISTOGRAM,
	"stampede_http_refusals_total":                   dto.MetricType_COUNTER,
	"stampede_partition_clock_lead_seconds":          dto.MetricType_GAUGE,
	"stampede_queue_operations":                      dto.MetricType_GAUGE,
	"stampede_queue_operations_max":                  dto.MetricType_GAUGE,
	"stampede_queue_refusals_total":                  dto.MetricType_COUNTER,
	"stampede_batch_operations":                      dto.MetricType_HISTOGRAM,
	"stampede_batch_fallbacks_total":                 dto.MetricType_COUNTER,
	"stampede_redis_call_duration_seconds":           dto.MetricType_HISTOGRAM,
	"stampede_partition_open":                        dto.MetricType_GAUGE,
	"stampede_lost_events_total":                     dto.MetricType_COUNTER,
	"stampede_orders_expired_total":                  dto.MetricType_COUNTER,
	"stampede_stock_waits_total":                     dto.MetricType_COUNTER,
	"stampede_stock_moves_total":                     dto.MetricType_COUNTER,
	"stampede_backlog_used_ratio":                    dto.MetricType_GAUGE,
	"stampede_writer_lag_events":                     dto.MetricType_GAUGE,
	"stampede_writer_lag_seconds":                    dto.MetricType_GAUGE,
	"stampede_writer_lag_failures_total":             dto.MetricType_COUNTER,
	"stampede_writer_alarm":                          dto.MetricType_GAUGE,
	"stampede_writer_partitions":                     dto.MetricType_GAUGE,
	"stampede_writer_events_total":                   dto.MetricType_COUNTER,
	"stampede_writer_batch_duration_seconds":         dto.MetricType_HISTOGRAM,
	"stampede_writer_interruptions_total":            dto.MetricType_COUNTER,
	"stampede_writer_orders_let_go_total":            dto.MetricType_COUNTER,
	"stampede_writer_events_lapsed_total":            dto.MetricType_COUNTER,
	"stampede_writer_quarantined_events_total":       dto.MetricType_COUNTER,
	"stampede_quarantined_events":                    dto.MetricType_GAUGE,
	"stampede_audit_violations":                      dto.MetricType_GAUGE,
	"stampede_audit_samples_total":                   dto.MetricType_COUNTER,
	"stampede_audit_skipped_total":                   dto.MetricType_COUNTER,
	"stampede_redis_pool_connections":                dto.MetricType_GAUGE,
	"stampede_redis_pool_hits_total":                 dto.MetricType_COUNTER,
	"stampede_redis_pool_misses_total":               dto.MetricType_COUNTER,
	"stampede_redis_pool_waits_total":                dto.MetricType_COUNTER,
	"stampede_redis_pool_wait_seconds_total":         dto.MetricType_COUNTER,
	"stampede_redis_pool_timeouts_total":             dto.MetricType_COUNTER,
	"stampede_redis_pool_stale_connections_total":    dto.MetricType_COUNTER,
	"stampede_postgres_pool_connections":             dto.MetricType_GAUGE,
	"stampede_postgres_pool_connections_max":         dto.MetricType_GAUGE,
	"stampede_postgres_pool_acquires_total":          dto.MetricType_COUNTER,
	"stampede_postgres_pool_waits_total":             dto.MetricType_COUNTER,
	"stampede_postgres_pool_wait_seconds_total":      dto.MetricType_COUNTER,
	"stampede_postgres_pool_canceled_acquires_total": dto.MetricType_COUNTER,
}

// bounded are the labels there are: each has few values, whatever clients send.
var bounded = map[string]bool{
	"route": true, "status": true, "code": true, "script": true, "partition": true, "pool": true, "state": true,
	"reason": true, "check": true, "end": true, "version": true, "commit": true, "go": true,
}

func TestMetrics_OfARunningShop(t *testing.T) {
	t.Parallel()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Metrics: registry, Hold: 100 * time.Millisecond})
	api := serveShop(t, s, registry)
	walk(api)
	for deadline := time.Now().Add(patience); gather(t, registry)["stampede_orders_expired_total"] == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the unpaid order never expires")
		}
	}
	s.Written()

	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		name := f.GetName()
		if found[name] = true; !strings.HasPrefix(name, "stampede_") {
			continue
		}
		if kind, listed := exposed[name]; !listed || f.GetType() != kind || f.GetHelp() == "" {
			t.Errorf("%s: a %v, listed %t as a %v, help %q", name, f.GetType(), listed, kind, f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !bounded[l.GetName()] {
					t.Errorf("%s: label %s", name, l.GetName())
				}
			}
		}
	}
	for name := range exposed {
		if !found[name] {
			t.Errorf("%s is not there", name)
		}
	}
	if !found["process_cpu_seconds_total"] {
		t.Error("nothing about the process")
	}
	wantSamples(t, registry, map[string]float64{
		"stampede_http_requests_total{route=POST /order,status=201}":     2,
		"stampede_http_requests_total{route=POST /order,status=409}":     3,
		"stampede_http_requests_total{route=GET /order/{id},status=404}": 1,
		"stampede_http_requests_total{route=none,status=404}":            2,
		"stampede_http_request_duration_seconds{route=POST /order}":      5,
		"stampede_http_refusals_total{code=out_of_stock}":                3,
		"stampede_http_refusals_total{code=order_not_found}":             1,
		"stampede_http_refusals_total{code=not_found}":                   2,
		"stampede_http_refusals_total{code=overloaded}":                  0,
		"stampede_partition_open{partition=0}":                           1,
		"stampede_queue_operations{partition=0}":                         0,
		"stampede_queue_operations_max{partition=0}":                     16_384,
		"stampede_queue_refusals_total{partition=0,reason=full}":         0,
		"stampede_queue_refusals_total{partition=0,reason=late}":         0,
		"stampede_orders_expired_total":                                  1,
		"stampede_writer_lag_events":                                     0,
		"stampede_writer_lag_seconds":                                    0,
		"stampede_backlog_used_ratio":                                    0,
		"stampede_writer_partitions":                                     1,
		"stampede_writer_events_total":                                   5, // charge, first stock, order, hold, expiry
		"stampede_writer_interruptions_total":                            0,
		"stampede_audit_violations":                                      0,
		"stampede_postgres_pool_canceled_acquires_total":                 0,
		"stampede_redis_pool_timeouts_total{pool=calls}":                 0,
		"stampede_redis_pool_timeouts_total{pool=stream}":                0,
	})
	samples := gather(t, registry)
	for _, name := range []string{
		"stampede_redis_pool_misses_total{pool=calls}", "stampede_redis_pool_misses_total{pool=stream}",
		"stampede_postgres_pool_connections{state=acquired}", "stampede_postgres_pool_connections_max",
		"stampede_writer_batch_duration_seconds", "stampede_batch_operations{script=charge}",
	} {
		if samples[name] < 1 {
			t.Errorf("%s is %v after a walk through the shop", name, samples[name])
		}
	}
}

// walk goes through the shop: an order, one that is held until it expires, refusals, and what is not there.
func walk(api *server) {
	api.t.Helper()
	bought := api.buy("walk@example.com")
	want := func(status int, method, path, key string, body any) {
		api.t.Helper()
		if got := api.call(method, path, key, body, nil); got != status {
			api.t.Errorf("%s %s: %d, want %d", method, path, got, status)
		}
	}
	order := func(quantity int) map[string]any {
		items := []map[string]any{{"product_id": bought.product, "quantity": quantity}}
		return map[string]any{"user_id": bought.user, "items": items, "payment": "later"}
	}
	want(201, "POST", "/order", "held", order(1))
	for i := range 3 {
		want(409, "POST", "/order", fmt.Sprint("sold out ", i), order(100))
	}
	want(404, "GET", "/order/1?user_id="+bought.user, "", nil)
	want(404, "GET", "/no/such/path", "", nil)
	want(404, "GET", "/debug/pprof/", "", nil)
	want(200, "GET", "/readyz", "", nil)
}

func wantSamples(t *testing.T, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	samples := gather(t, registry)
	for name, value := range want {
		if got, there := samples[name]; !there || got != value {
			t.Errorf("%s is %v (%t), want %v", name, got, there, value)
		}
	}
}

func TestMetrics_LagGrowsUntilAWriterComes(t *testing.T) {
	t.Parallel()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Metrics: registry, NoWriter: true})
	if err := watchWriter(registry, s.Shop); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, registry, map[string]float64{"stampede_writer_lag_events": 0, "stampede_writer_lag_seconds": 0, "stampede_backlog_used_ratio": 0})
	s.User(100)
	first := gather(t, registry)
	if first["stampede_writer_lag_events"] != 1 || first["stampede_backlog_used_ratio"] <= 0 {
		t.Errorf("after a charge: %v events, backlog %v", first["stampede_writer_lag_events"], first["stampede_backlog_used_ratio"])
	}
	s.User(100)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		next := gather(t, registry)
		if next["stampede_writer_lag_events"] == 2 && next["stampede_writer_lag_seconds"] > first["stampede_writer_lag_seconds"]+0.05 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the lag does not grow: %v events, %v s", next["stampede_writer_lag_events"], next["stampede_writer_lag_seconds"])
		}
	}
	writing, err := shop.Open(within(t), shop.Config{
		Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), Log: quietLog(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Written()
	wantSamples(t, registry, map[string]float64{"stampede_writer_lag_events": 0, "stampede_writer_lag_seconds": 0, "stampede_backlog_used_ratio": 0})
	if err := writing.Close(within(t)); err != nil {
		t.Error(err)
	}
}
