package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"stampede/bench/load"
)

const (
	batchConnections = 8   // each with one request under way
	batchOrders      = 250 // a request
)

// batched is a closed loop of POST /orders/batch: the orders of the other loads, many in a request.
type batched struct {
	http  *http.Client
	url   string
	token string
	goods load.Goods
	name  string // begins every idempotency key
	seed  uint64

	mu    sync.Mutex
	tally load.Tally
}

func newBatched(c *contender, w workload) *batched {
	return &batched{
		http: &http.Client{
			Timeout:   callMax,
			Transport: &http.Transport{MaxIdleConnsPerHost: batchConnections, DisableCompression: true},
		},
		url: c.api.base + "/orders/batch", token: c.api.token, goods: c.goods,
		name: fmt.Sprintf("%s-%d-", w.name, w.round), seed: uint64(w.round),
		tally: load.Tally{Refused: make(map[int]int64)},
	}
}

// run sends one request after the other on every connection for a while, and returns when every reply is in.
func (b *batched) run(ctx context.Context, d time.Duration) time.Duration {
	start := time.Now()
	var workers sync.WaitGroup
	for i := range batchConnections {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(b.seed, uint64(i)))
			var body []byte
			for n := 0; time.Since(start) < d && ctx.Err() == nil; n++ {
				body = b.orders(body[:0], rng, b.name+strconv.Itoa(i)+"-"+strconv.Itoa(n)+"-")
				b.send(ctx, body)
			}
		})
	}
	workers.Wait()
	return time.Since(start)
}

// orders writes the body of a request.
func (b *batched) orders(body []byte, rng *rand.Rand, key string) []byte {
	body = append(body, `{"orders":[`...)
	for i := range batchOrders {
		if i > 0 {
			body = append(body, ',')
		}
		body = strconv.AppendInt(append(append(body, `{"idempotency_key":"`...), key...), int64(i), 10)
		body = append(append(body, `","user_id":"`...), b.goods.Users[rng.IntN(len(b.goods.Users))]...)
		body = append(append(body, `","items":[{"product_id":"`...), b.goods.Products[rng.IntN(len(b.goods.Products))]...)
		body = append(body, `","quantity":1}]}`...)
	}
	return append(body, `]}`...)
}

// accepted is what stands in an answer once for each order that was placed.
var accepted = []byte(`"status":201`)

// send counts the orders of an answer.
func (b *batched) send(ctx context.Context, body []byte) {
	status, text, err := b.post(ctx, body)
	b.mu.Lock()
	defer b.mu.Unlock()
	placed := int64(bytes.Count(text, accepted))
	b.tally.Accepted += placed
	switch {
	case err != nil:
		b.tally.Failed += batchOrders
		b.complain(err.Error())
	case placed < batchOrders:
		b.tally.Refused[status] += batchOrders - placed
		b.complain(fmt.Sprintf("%d %.300s", status, text))
	}
}

func (b *batched) complain(text string) {
	if b.tally.Complaint == "" {
		b.tally.Complaint = text
	}
}

func (b *batched) post(ctx context.Context, body []byte) (status int, text []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+b.token)
	response, err := b.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it is read to its end
	text, err = io.ReadAll(response.Body)
	return response.StatusCode, text, err
}
