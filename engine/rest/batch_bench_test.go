package rest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// atOnce places every order without a shop, or refuses every one.
type atOnce struct {
	Sales
	err error
}

func (a atOnce) PlaceEach(_ context.Context, requests []engine.PlaceRequest) []engine.Placed {
	ends, now := make([]engine.Placed, len(requests)), time.Now()
	for i, r := range requests {
		if ends[i].Err = a.err; a.err != nil {
			continue
		}
		items := make([]engine.Item, len(r.Lines))
		for j, l := range r.Lines {
			items[j] = engine.Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: 1450}
		}
		ends[i].Order = engine.Order{
			ID: 43580915712086016 + int64(i), UserID: r.UserID, Status: engine.Success, Total: 2900, Items: items, CreatedAt: now,
			History: []engine.Step{{Status: engine.Pending, At: now}, {Status: engine.Success, At: now}},
		}
	}
	return ends
}

// What a batch of 1,000 orders costs beside the placing: decoding and rendering.
func BenchmarkBatch(b *testing.B) {
	const orders = 1000
	texts := make([]string, orders)
	for i := range texts {
		texts[i] = fmt.Sprintf(`{"idempotency_key":"batch-7-order-%d","user_id":"%d","items":[{"product_id":"%d","quantity":%d}]}`, i, 1000+i, i%100+1, i%9+1)
	}
	body := []byte(`{"orders":[` + strings.Join(texts, ",") + `]}`)
	for name, err := range map[string]error{
		"placed": nil, "refused": &engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: 7, Left: 1},
	} {
		s, newErr := New(Config{
			Sales: atOnce{err: err}, Registry: struct{ Registry }{}, Health: struct{ Health }{}, AdminToken: "x", Metrics: prometheus.NewRegistry(),
		})
		if newErr != nil {
			b.Fatal(newErr)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx := post(body)
				if err := s.placeBatch(ctx, caller{admin: true}); err != nil || ctx.Response.StatusCode() != fasthttp.StatusOK {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/orders, "ns/order")
		})
		b.Run(name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var in batchRequest
				if err := decode(post(body), &in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
