package load

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func someMixed(seed uint64) Scenario { return NewMixed(someGoods, "test", seed, 1.1) }

// answerTo answers a mixed scenario as a shop does, with ids that count up.
func answerTo(n int64, path string) string {
	switch {
	case strings.HasPrefix(path, "/order"), path == "/cart/order":
		return fmt.Sprintf(`{"id":"%d"}`, n)
	case path == "/balance/charge":
		return `{"charge_id":"1"}`
	}
	return `{"items":[{"stock":3}]}`
}

func TestMixed_KeepsItsSharesAndFollowsUp(t *testing.T) {
	const hits = 10_000
	s := someMixed(1)
	source := s.Source()
	counts := make(map[string]float64)
	holds, paid := map[string]string{}, map[string]string{} // orders and their users
	carts, keys := map[string]bool{}, map[string]bool{}
	var h Hit
	for n := range int64(hits) {
		source.Next(n, &h)
		r := parse(t, h.Request)
		kind := s.Kinds()[h.Kind]
		counts[kind]++
		if r.Method == http.MethodPost && (r.Key == "" || keys[r.Key] || r.Body.UserID == "") {
			t.Fatalf("a POST without a buyer or a key of its own: %q", h.Request)
		}
		keys[r.Key] = true
		id := fmt.Sprint(n)
		switch parts := strings.Split(r.Path, "/"); {
		case kind == "cart" && r.Path == "/cart/add":
			carts[r.Body.UserID] = true
		case kind == "order" && r.Path == "/cart/order":
			if !carts[r.Body.UserID] {
				t.Fatalf("user %s orders an empty cart", r.Body.UserID)
			}
			carts[r.Body.UserID] = false
			paid[id] = r.Body.UserID
		case kind == "order" && r.Path == "/order" && r.Body.Payment == "later":
			holds[id] = r.Body.UserID
		case kind == "order" && r.Path == "/order":
			paid[id] = r.Body.UserID
		case kind == "pay" && strings.HasSuffix(r.Path, "/payment"):
			if id = parts[2]; holds[id] != r.Body.UserID {
				t.Fatalf("user %s pays order %s of user %q", r.Body.UserID, id, holds[id])
			}
			delete(holds, id)
			paid[id] = r.Body.UserID
		case kind == "refund" && strings.HasSuffix(r.Path, "/cancel"):
			if id = parts[2]; paid[id] != r.Body.UserID {
				t.Fatalf("user %s gives back order %s of user %q", r.Body.UserID, id, paid[id])
			}
			delete(paid, id)
		case kind == "browse" && r.Method == http.MethodGet, kind == "charge" && r.Body.Amount > 0:
			id = ""
		default:
			t.Fatalf("%s is %q", kind, h.Request)
		}
		if strings.HasPrefix(r.Path, "/order/") {
			if !source.Accepted(&h, fmt.Appendf(nil, `{"id":"%s"}`, id)) {
				t.Fatal("an answer is refused")
			}
		} else if !source.Accepted(&h, []byte(answerTo(n, r.Path))) {
			t.Fatalf("an answer is refused: %q", h.Request)
		}
	}
	for kind, percent := range map[string]float64{"browse": 45, "cart": 20, "order": 23, "pay": 6, "refund": 3, "charge": 3} {
		if got := 100 * counts[kind] / hits; math.Abs(got-percent) > 2 {
			t.Errorf("%.1f %% are %s, want %v", got, kind, percent)
		}
	}
	if shares := MixedShares(); shares != "45 % browse, 20 % cart, 23 % order, 6 % pay, 3 % refund, 3 % charge" {
		t.Errorf("it tells %q", shares)
	}
}

func TestMixed_WithoutAnswersDoesWhatComesFirst(t *testing.T) {
	s := someMixed(1)
	source := s.Source()
	var h Hit
	for n := range int64(1000) {
		source.Next(n, &h)
		if kind := s.Kinds()[h.Kind]; kind == "pay" || kind == "refund" || strings.Contains(string(h.Request), "/cart/order") {
			t.Fatalf("hit %d follows up on nothing: %q", n, h.Request)
		}
	}
}

func TestMixed_RepeatsForASeedAndEqualAnswers(t *testing.T) {
	draw := func(seed uint64) (requests []string) {
		// Two connections in turns, as if every answer came at once.
		s := someMixed(seed)
		sources := []Source{s.Source(), s.Source()}
		var h Hit
		for n := range int64(500) {
			source := sources[n%2]
			source.Next(n, &h)
			requests = append(requests, string(h.Request))
			source.Accepted(&h, []byte(answerTo(n, parse(t, h.Request).Path)))
		}
		return requests
	}
	if !slices.Equal(draw(1), draw(1)) {
		t.Error("the same seed gave other requests")
	}
	if slices.Equal(draw(1), draw(2)) {
		t.Error("another seed gave the same requests")
	}
}

func TestMixed_KnowsAnswersThatAreNone(t *testing.T) {
	source := someMixed(1).Source()
	for s := range stepCount {
		if source.Accepted(&Hit{step: s}, []byte(`{"what":1}`)) {
			t.Errorf("step %d takes any answer", s)
		}
	}
}

func TestMemory_IsBounded(t *testing.T) {
	m := newMemory(3)
	for i := range 2 * rememberedMax {
		m.putCart(i % 3)
		m.held.put(i%3, fmt.Sprint(i))
	}
	if len(m.carts) != 3 || len(m.held.orders) != rememberedMax {
		t.Errorf("%d carts and %d orders are remembered", len(m.carts), len(m.held.orders))
	}
	if user, id, ok := m.held.take(0); !ok || id != fmt.Sprint(rememberedMax) || user != rememberedMax%3 {
		t.Errorf("the oldest of the newest is %s of user %d", id, user)
	}
}
