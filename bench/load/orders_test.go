package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"testing"
)

// sent is a request as a server of the standard library reads it.
type sent struct {
	Method, Path, Key string
	Body              struct {
		UserID string `json:"user_id"`
		Amount int64  `json:"amount"`
		Items  []struct {
			ProductID string `json:"product_id"`
			Quantity  int    `json:"quantity"`
		} `json:"items"`
		ProductID string `json:"product_id"`
		Quantity  int    `json:"quantity"`
		Payment   string `json:"payment"`
	}
}

func parse(t *testing.T, request []byte) (s sent) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(request))
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatal(err)
	}
	s.Method, s.Path, s.Key = r.Method, r.URL.Path, r.Header.Get("Idempotency-Key")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if in.Buffered() != 0 {
		t.Fatalf("not one request: %q", request)
	}
	if s.Method == http.MethodGet {
		return s
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.Body); err != nil || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %q", err, request)
	}
	return s
}

func TestOrders_AreValidAndKeysUnique(t *testing.T) {
	const hits = 1500
	keys, users, products := map[string]bool{}, map[string]int{}, map[string]int{}
	var h Hit
	source := someOrders().Source()
	for n := range int64(hits) {
		source.Next(n, &h)
		o := parse(t, h.Request)
		if o.Method != http.MethodPost || o.Path != "/order" || keys[o.Key] {
			t.Fatalf("not an order under a key of its own: %q", h.Request)
		}
		keys[o.Key] = true
		if len(o.Body.Items) != 1 || o.Body.Items[0].Quantity != 1 {
			t.Fatalf("not one line of one unit: %+v", o)
		}
		users[o.Body.UserID]++
		products[o.Body.Items[0].ProductID]++
	}
	for _, u := range someGoods.Users {
		if n := users[u]; n < hits/4 || n > hits*5/12 { // 500 expected, 6 standard deviations either way
			t.Errorf("user %s got %d of %d orders", u, n, hits)
		}
	}
	for _, p := range someGoods.Products {
		if n := products[p]; n < hits*5/12 || n > hits*7/12 { // 750 expected
			t.Errorf("product %s got %d of %d orders", p, n, hits)
		}
	}
}

func TestOrders_SellByZipf(t *testing.T) {
	const hits, exponent = 5_000, 1.5
	g := Goods{Users: []string{"1"}}
	sum := 0.0
	for k := range 50 {
		g.Products = append(g.Products, strconv.Itoa(k))
		sum += math.Pow(1+float64(k), -exponent)
	}
	sold := map[string]float64{}
	var h Hit
	source := NewOrders(g, "test", 1, exponent).Source()
	for n := range int64(hits) {
		source.Next(n, &h)
		sold[parse(t, h.Request).Body.Items[0].ProductID]++
	}
	for _, k := range []int{0, 1, 5, 20} {
		want := math.Pow(1+float64(k), -exponent) / sum
		if got := sold[g.Products[k]] / hits; math.Abs(got-want) > 6*math.Sqrt(want/hits) {
			t.Errorf("%.4f of the orders are of product %d, want %.4f", got, k, want)
		}
	}
}

func TestCharges_AreValid(t *testing.T) {
	var h Hit
	source := NewCharges(someGoods.Users, "test", 1).Source()
	for n := range int64(100) {
		source.Next(n, &h)
		c := parse(t, h.Request)
		if c.Method != http.MethodPost || c.Path != "/balance/charge" || c.Key == "" || c.Body.Amount < 1 || c.Body.Amount > chargeMax {
			t.Fatalf("not a charge: %q", h.Request)
		}
	}
	if source.Accepted(&h, []byte(placed)) || !source.Accepted(&h, []byte(`{"user_id":"1","charge_id":"2"}`)) {
		t.Error("it does not know the answer to a charge")
	}
}

// A hit is the same whichever connection sends it, and whatever was sent before.
func TestScenarios_RepeatForASeed(t *testing.T) {
	for name, scenario := range map[string]func(seed uint64) Scenario{
		"uniform": func(seed uint64) Scenario { return NewOrders(someGoods, "test", seed, 0) },
		"zipf":    func(seed uint64) Scenario { return NewOrders(someGoods, "test", seed, 1.1) },
		"charge":  func(seed uint64) Scenario { return NewCharges(someGoods.Users, "test", seed) },
	} {
		t.Run(name, func(t *testing.T) {
			const hits = 200
			draw := func(source Source, n int64) string {
				var h Hit
				source.Next(n, &h)
				return string(h.Request)
			}
			one, a, b, other := scenario(1).Source(), scenario(1), scenario(1), scenario(2).Source()
			backwards, elsewhere := a.Source(), b.Source()
			differs := 0
			for n := range int64(hits) {
				if draw(one, n) != draw(elsewhere, n) {
					t.Fatalf("hit %d is another one with the same seed", n)
				}
				if draw(one, n) != draw(other, n) {
					differs++
				}
			}
			for n := int64(hits) - 1; n >= 0; n-- {
				if draw(backwards, n) != draw(b.Source(), n) {
					t.Fatalf("hit %d depends on what was sent before", n)
				}
			}
			if differs < hits/2 {
				t.Errorf("%d of %d hits differ with another seed", differs, hits)
			}
		})
	}
}
