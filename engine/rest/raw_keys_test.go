package rest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// keyed are the takers that want an idempotency key.
func (b *battery) keyed() (all []taker) {
	for _, k := range b.takers() {
		switch k.path {
		case "/users", "/products", "/cart/add", fmt.Sprintf("/products/%d", b.product), "/cart/remove":
		default:
			all = append(all, k)
		}
	}
	return all
}

// notKeys are header values that are no idempotency keys, though HTTP can carry them.
func notKeys() []string {
	return []string{
		strings.Repeat("k", 256), strings.Repeat(mark, 200), strings.Repeat("\u00fc", 256), "a\tb", mark + "\t" + mark, "a\u00a0b", "a\u0085b",
		"a\u00adb", "a\u200bb", "a\u2028b", "\u202ea", "\ufeffa", "\ue000", "\xff", "\x80", "a\xc3", "\xc0\x80", "\xed\xa0\x80",
	}
}

func (b *battery) badKeys() {
	add := b.taker("POST /cart/add")
	for _, k := range append(b.keyed(), add) {
		var rows, broken []row
		for _, key := range notKeys() {
			rows = append(rows, row{k.with(k.body, "Idempotency-Key: "+key), 400, "validation_failed", "1 to 255 printable characters|printable characters only"})
		}
		for _, keys := range [][]string{{"a", "a"}, {"a", "b"}, {"a", ""}} {
			rows = append(rows, row{k.with(k.body, "Idempotency-Key: "+keys[0], "idempotency-key: "+keys[1]), 400, "validation_failed", "Idempotency-Key .* more than once"})
		}
		for _, key := range []string{"a\x00b", "a\x01b", "\x1b[31m", "a\x7fb", "a\rb", "\x00"} {
			broken = append(broken, row{k.with(k.body, "Idempotency-Key: "+key), 400, "validation_failed", "HTTP"})
		}
		b.refused(rows...)
		b.refusedAndClosed(broken...)
		code, detail := "missing_idempotency_key", "send an Idempotency-Key header of 1 to 255 printable characters"
		if k.path == add.path {
			code, detail = "validation_failed", "Idempotency-Key is empty"
		} else {
			b.refused(row{k.with(k.body, "Idempotency-Key"), 400, code, detail})
		}
		for _, key := range []string{"", " ", "\t", " \t "} {
			b.refused(row{k.with(k.body, "Idempotency-Key:"+key), 400, code, detail})
		}
	}
}

// One key means one request: any other under it is refused, and the same one has the same answer.
func TestAPI_OneKeyIsOneRequest(t *testing.T) {
	b := newBattery(t)
	const key = "Idempotency-Key: the one"
	conn := b.dial()
	ask := func(request string) rawAnswer {
		t.Helper()
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		a, err := conn.answer(methodOf(request))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	order := b.taker("POST /order")
	first := ask(order.with(order.body, key))
	if first.status != 201 || first.headers["idempotent-replayed"] != "" {
		t.Fatalf("the first answer is %q", first.all)
	}
	for _, same := range []string{ // as it is decoded
		order.with(order.body, key),
		order.with(" "+strings.ReplaceAll(order.body, ",", " ,\n\t")+" ", key),
		order.with(set(set(order.body, "user_id", fmt.Sprintf(`"%d"`, b.buyer)), "product_id", fmt.Sprintf(`"%d"`, b.product)), key),
		order.with(strings.Replace(order.body, `,"payment":"now"`, "", 1), key),
		order.with(strings.Replace(order.body, `"quantity"`, `"quantit\u0079"`, 1), key),
		order.with(fmt.Sprintf(`{"payment":"now","items":[{"quantity":2,"product_id":%d}]}`, b.product), key),
		strings.Replace(order.with(order.body, key), "Idempotency-Key", "IDEMPOTENCY-KEY", 1),
	} {
		if a := ask(same); a.status != 201 || a.body != first.body || a.headers["idempotent-replayed"] != "true" {
			t.Errorf("%q has another answer than the first one: %q", same, a.all)
		}
	}
	const detail = "another method, path or body"
	var rows []row
	for _, body := range []string{
		set(order.body, "quantity", "1"), set(order.body, "quantity", "3"), set(order.body, "product_id", fmt.Sprint(b.another)),
		set(order.body, "payment", `"later"`), strings.Replace(order.body, "}]", fmt.Sprintf(`},{"product_id":%d,"quantity":1}]`, b.another), 1),
		set(order.body, "product_id", "99999"), // what is under the key is looked up first
	} {
		rows = append(rows, row{order.with(body, key), 422, "idempotency_key_reused", detail})
	}
	for _, k := range append(b.keyed(), b.taker("POST /cart/add")) {
		if k.path != order.path && !strings.HasPrefix(k.as, "Authorization") { // an admin's keys have a scope of their own
			rows = append(rows, row{k.with(k.body, key), 422, "idempotency_key_reused", detail})
		}
	}
	b.refused(rows...)

	other := ask(call("POST", "/order", set(order.body, "user_id", fmt.Sprint(b.other)), key))
	if other.status != 201 || other.headers["idempotent-replayed"] != "" || other.body == first.body {
		t.Errorf("another user's order under an equal key: %q", other.all)
	}
	stock := b.taker("POST /products/{id}/stock")
	if a := ask(stock.with(stock.body, key)); a.status != 200 || a.headers["idempotent-replayed"] != "" {
		t.Errorf("an admin's change under an equal key: %q", a.all)
	}
	b.refused(row{stock.with(set(stock.body, "delta", "6"), key), 422, "idempotency_key_reused", detail})
	b.wantLeft(b.buyer, 1000-30, b.product, 100-2-2-2+5)
	b.auditClean()
}

// A hundred times at once, on a hundred connections and as a hundred requests in a row on one: one effect, and equal
// answers, on every route that takes a key.
func TestAPI_OneKeyAHundredTimesIsOneEffect(t *testing.T) {
	b := newBattery(t)
	for _, k := range append(b.keyed(), b.taker("POST /cart/add")) {
		b.Written()
		before, request := b.events(), k.with(k.body, "Idempotency-Key: "+freshKey())
		answers := b.atOnceOn(100, request, 1)
		answers = append(answers, b.atOnceOn(2, request, 100)...)
		fresh := 0
		for _, a := range answers {
			if a.status != k.status || a.body != answers[0].body {
				t.Fatalf("%s %s: one answer is %q, another %q", k.method, k.path, a.all, answers[0].all)
			}
			if a.headers["idempotent-replayed"] == "" {
				fresh++
			}
		}
		b.Written()
		effects := b.events() - before
		if k.path == "/cart/order" {
			effects-- // its order, and its cart
		}
		if len(answers) != 300 || fresh != 1 || effects != 1 {
			t.Errorf("%s %s: of %d answers %d are no replay; %d events", k.method, k.path, len(answers), fresh, effects)
		}
	}
	b.auditClean()
}

// atOnceOn sends a request over several connections at once, so many times in a row on each.
func (b *battery) atOnceOn(connections int, request string, times int) (answers []rawAnswer) {
	b.t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	begin := make(chan struct{})
	for range connections {
		conn := b.dial()
		all.Go(func() {
			defer conn.Close() //nolint:errcheck // all is read
			<-begin
			if _, err := conn.Write([]byte(strings.Repeat(request, times))); err != nil {
				b.t.Error(err)
			}
			for range times {
				a, err := conn.answer(methodOf(request))
				if err != nil {
					b.t.Errorf("%q: %v", request, err)
				}
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			}
		})
	}
	close(begin)
	all.Wait()
	return answers
}

// events is how many changes the books hold, but for those of units that went from a partition to another.
func (b *battery) events() (n int) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.Stack.PostgresURL())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing is pending
	if err := conn.QueryRow(b.t.Context(), `SELECT coalesce(sum(last_seq - first_seq + 1), 0)::int
		- (SELECT count(*) FROM stock_ledger WHERE kind IN ('sent', 'received'))::int FROM events`).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}
