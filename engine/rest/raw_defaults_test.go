package rest

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The limits that hold where nothing else is said; raw_limits_test.go shows with smaller ones that they do.
func TestNew_TakesTheLimitsOfTheContract(t *testing.T) {
	s, err := New(Config{
		Sales: struct{ Sales }{}, Registry: struct{ Registry }{}, Health: struct{ Health }{}, AdminToken: "x", Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if h := s.http; h.ReadTimeout != 15*time.Second || h.WriteTimeout != 15*time.Second || h.IdleTimeout != 75*time.Second {
		t.Errorf("read %s, write %s, idle %s", h.ReadTimeout, h.WriteTimeout, h.IdleTimeout)
	}
	if h := s.http; h.MaxRequestBodySize != 64<<10 || h.ReadBufferSize != 8<<10 || s.cfg.ConnsPerIP != 10_000 {
		t.Errorf("body %d, headers %d, connections an address %d", h.MaxRequestBodySize, h.ReadBufferSize, s.cfg.ConnsPerIP)
	}
}
