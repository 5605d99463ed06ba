package engine_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/engine"
)

func TestEnroll_AgainKeepsTheBalance(t *testing.T) {
	s := common.open(t)
	user := s.User(77)
	for range 2 {
		if err := s.Engine.Enroll(context.Background(), user); err != nil {
			t.Fatal(err)
		}
	}
	wantBalance(t, s.Engine, user, 77)
	wantErr(t, "an account of nobody", s.Engine.Enroll(context.Background(), 0), engine.ErrInvalid)
}

func TestProducts_ComeInOrderPageByPage(t *testing.T) {
	s := common.open(t)
	ctx := context.Background()
	var want []int64
	for i := range int64(20) {
		want = append(want, s.Product(i, 2*i))
	}
	for _, limit := range []int{1, 7, 20, 50} {
		var got []int64
		for after, more := want[0]-1, true; more; after = got[len(got)-1] {
			page, further, err := s.Engine.Products(ctx, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if more = further; len(page) > limit || (more && len(page) < limit) {
				t.Errorf("a page of %d, limit %d, more %t", len(page), limit, more)
			}
			for _, p := range page {
				if at := int64(len(got)); p.Price != at || p.Stock != 2*at || p.Name == "" || p.CreatedAt.IsZero() {
					t.Errorf("product %+v", p)
				}
				got = append(got, p.ID)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: products %v, want %v", limit, got, want)
		}
	}
	page, more, err := s.Engine.Products(ctx, want[19], 5)
	if err != nil || more || len(page) != 0 {
		t.Errorf("behind the last: %v, %t, %v", page, more, err)
	}
	_, err = s.Engine.Product(ctx, -1)
	wantErr(t, "product -1", err, engine.ErrInvalid)
	_, err = s.Engine.Product(ctx, want[19]+1000)
	wantRefusal(t, "a product that is not there", err, engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: want[19] + 1000})
}

// figures reads every metric of a registry: value, or number of observations.
func figures(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += " " + l.GetName() + "=" + l.GetValue()
			}
			all[f.GetName()+labels] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

func TestMetrics_CountWhatWasDone(t *testing.T) {
	s := common.open(t)
	registry := prometheus.NewRegistry()
	e := furtherEngine(t, s, engine.Config{Metrics: registry})
	user, product := s.User(100), s.Product(1, 100)
	of := fmt.Sprint(" partition=", e.Keys().OfUser(user))
	if open := figures(t, registry)["stampede_partition_open"+of]; open != 0 {
		t.Errorf("door open %v before the start", open)
	}
	e.Start()
	awaitReady(t, e)
	mustPlace(t, e, user, "key", lines(product, 1))
	got := figures(t, registry)
	for name, want := range map[string]float64{
		"stampede_partition_open" + of: 1, "stampede_queue_operations" + of: 0, "stampede_batch_fallbacks_total": 0,
	} {
		if value, found := got[name]; !found || value != want {
			t.Errorf("%s is %v (%t), want %v", name, value, found, want)
		}
	}
	if got["stampede_batch_operations script=place"] < 1 || got["stampede_redis_call_duration_seconds script=place"] < 1 {
		t.Errorf("calls of place: %v", got)
	}
}
