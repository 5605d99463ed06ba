package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
)

type sentOrder struct {
	UserID string `json:"user_id"`
	Items  []struct {
		ProductID string `json:"product_id"`
		Quantity  int    `json:"quantity"`
	} `json:"items"`
}

// parseOrder reads a request as a server of the standard library would.
func parseOrder(t *testing.T, request []byte) (key string, o sentOrder) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(request))
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		t.Fatal(err)
	}
	if in.Buffered() != 0 || r.Method != http.MethodPost || r.URL.Path != "/order" ||
		r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("not one POST /order: %q", request)
	}
	return r.Header.Get("Idempotency-Key"), o
}

func TestUniformOrders_AreValidAndKeysUnique(t *testing.T) {
	const each = 500
	keys := map[string]bool{}
	users, products := map[string]int{}, map[string]int{}
	for _, source := range NewUniformOrders(someGoods, "test", 1, 3) {
		var buf []byte
		for range each {
			buf = source.Next(buf[:0])
			key, o := parseOrder(t, buf)
			if keys[key] {
				t.Fatalf("the key %q came twice", key)
			}
			keys[key] = true
			if len(o.Items) != 1 || o.Items[0].Quantity != 1 {
				t.Fatalf("not one line of one unit: %+v", o)
			}
			users[o.UserID]++
			products[o.Items[0].ProductID]++
		}
	}
	for _, u := range someGoods.Users {
		if n := users[u]; n < each*3/4 || n > each*5/4 { // 500 expected, 6 standard deviations either way
			t.Errorf("user %s got %d of %d orders", u, n, 3*each)
		}
	}
	for _, p := range someGoods.Products {
		if n := products[p]; n < each*5/4 || n > each*7/4 { // 750 expected
			t.Errorf("product %s got %d of %d orders", p, n, 3*each)
		}
	}
}

func TestUniformOrders_RepeatForASeed(t *testing.T) {
	draw := func(seed uint64) (requests [][]byte) {
		for _, source := range NewUniformOrders(someGoods, "test", seed, 2) {
			for range 50 {
				requests = append(requests, source.Next(nil))
			}
		}
		return requests
	}
	if !slices.EqualFunc(draw(1), draw(1), bytes.Equal) {
		t.Error("the same seed gave other orders")
	}
	if slices.EqualFunc(draw(1), draw(2), bytes.Equal) {
		t.Error("another seed gave the same orders")
	}
}
