package persist_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// servers name those of a shop, for a command of its own.
func servers(s *shoptest.Shop) shop.Config {
	return shop.Config{
		Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// restore has an empty Redis built from the books.
func restore(t testing.TB, s *shoptest.Shop) *persist.RestoreProgress {
	t.Helper()
	var watch persist.RestoreProgress
	if err := shop.Restore(t.Context(), servers(s), &watch); err != nil {
		t.Fatalf("restore: %v", err)
	}
	return &watch
}

// flush stops a shop and empties its Redis.
func flush(t testing.TB, s *shoptest.Shop) {
	t.Helper()
	s.Stop()
	if err := s.EmptyRedis(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// deeds are what a client may ask for again.
type deeds map[string]func(*engine.Engine) (answer any, replayed bool, err error)

// everything uses all that a shop can do, of which Redis keeps something, and returns what may be asked again.
func everything(t *testing.T, s *shoptest.Shop) deeds {
	t.Helper()
	orders := kinds(t, s, func() {})
	write(t, s) // orders hold on from here
	expire(t, s, orders["pending"])
	rich := s.User(1_000_000)
	s.User(0) // no event knows it
	plenty, soldOut := s.Product(11, 1000), s.Product(5, 3)
	s.Product(3, 0)
	s.Product(8, 700) // nobody buys it
	place(t, s, rich, "all of it", line(soldOut, 3))
	given := place(t, s, rich, "and back", line(plenty, 4))
	name, price := "Thing: renamed", int64(12)
	if _, err := s.Books.UpdateProduct(t.Context(), plenty, &name, &price); err != nil {
		t.Fatal(err)
	}
	addToCart(t, s, rich, soldOut, 2)
	ctx, paid := t.Context(), orders["paid"]
	all := deeds{
		"charge": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Charge(ctx, engine.ChargeRequest{UserID: rich, Amount: 77, Key: "charge"}))
		},
		"restock": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Restock(ctx, engine.RestockRequest{ProductID: plenty, Delta: 50, Reason: "delivery", Key: "restock"}))
		},
		"write-off": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Restock(ctx, engine.RestockRequest{ProductID: plenty, Delta: -7, Reason: "broken", Key: "write-off"}))
		},
		"cart": func(e *engine.Engine) (any, bool, error) {
			return answer(e.AddToCart(ctx, engine.CartAddRequest{UserID: rich, ProductID: plenty, Quantity: 3, Key: "cart"}))
		},
		"refund by an admin": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Cancel(ctx, engine.CancelRequest{UserID: paid.UserID, OrderID: paid.ID, Admin: true, Key: "admin"}))
		},
		"refund of all that a minute sold": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Cancel(ctx, engine.CancelRequest{UserID: rich, OrderID: given.ID, Reason: "too many", Key: "refund"}))
		},
		"order": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Place(ctx, engine.PlaceRequest{UserID: rich, Key: "order", Lines: []engine.Line{line(plenty, 2)}}))
		},
		"order for later": func(e *engine.Engine) (any, bool, error) {
			return answer(e.Place(ctx, engine.PlaceRequest{UserID: rich, Key: "later", Later: true, Lines: []engine.Line{line(plenty, 2)}}))
		},
	}
	for what, do := range all {
		if _, replayed, err := do(s.Engine); err != nil || replayed {
			t.Fatalf("%s: replayed %t, %v", what, replayed, err)
		}
	}
	return all
}

func answer[T any](a T, replayed bool, err error) (any, bool, error) { return a, replayed, err }

//servers:redis,postgres
func TestRestore_BringsBackWhatAFlushTook(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: shortHold})
	deeds := everything(t, s)
	answers := map[string]string{}
	for what, do := range deeds {
		was, _, err := do(s.Engine)
		if err != nil {
			t.Fatalf("%s again: %v", what, err)
		}
		answers[what] = fmt.Sprintf("%+v", was)
	}
	user := s.User(100)
	refundable := place(t, s, user, "refundable", line(s.Product(10, 5), 1))
	s.Written()
	before := holdings(t, s)
	flush(t, s)
	watch := restore(t, s)
	wantSame(t, before, holdings(t, s))
	if events, _ := watch.Phase(persist.RestoredEvents); events != number(t, conn, "SELECT events FROM checkpoints") {
		t.Errorf("%d events read", events)
	}

	s.Reopen()
	auditClean(t, s)
	for what, do := range deeds {
		again, replayed, err := do(s.Engine)
		if text := fmt.Sprintf("%+v", again); err != nil || !replayed || text != answers[what] {
			t.Errorf("%s, again: %s, replayed %t, %v; it was %s", what, text, replayed, err, answers[what])
		}
	}
	wantSame(t, before, holdings(t, s))
	cancel(t, s, refundable, "let go, and given back all the same")
	_, _, err := s.Engine.Cancel(t.Context(), engine.CancelRequest{UserID: user, OrderID: refundable.ID, Key: "twice"})
	if !errors.Is(err, engine.ErrNotCancelable) {
		t.Errorf("a second refund: %v", err)
	}
	place(t, s, user, "and it sells", line(refundable.Items[0].ProductID, 5))
	s.Written()
	auditClean(t, s)
}

// holdings are all that a restore brings back, and meta as far as it does, by key and by field or member of it.
func holdings(t *testing.T, s *shoptest.Shop) map[string]string {
	t.Helper()
	all := dump(t, s)
	partitions, err := s.Redis.HGet(t.Context(), engine.DeploymentKey, "partitions").Int()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := engine.NewKeys(partitions)
	if err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		key := keys.Meta(p)
		meta, err := s.Redis.HGetAll(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"bytes", "done", "minute", "open", "node", "run"} {
			all[key+" "+field] = meta[field]
		}
	}
	return all
}

// wantSame compares what Redis held before and after. What may differ: orders that have ended are in the books alone, what
// was given back as a whole need not be counted as 0.
func wantSame(t *testing.T, before, after map[string]string) {
	t.Helper()
	of := func(all map[string]string) map[string]string {
		kept := map[string]string{}
		for name, value := range all {
			_, kind, _ := strings.Cut(name, "}")
			ended := strings.HasPrefix(kind, "o:") && value[1] != byte(engine.Pending)
			given := strings.HasPrefix(kind, "m:") && value == "0"
			if !ended && !given {
				kept[name] = value
			}
		}
		return kept
	}
	want, got := of(before), of(after)
	if len(want) < 10 {
		t.Fatalf("only %d keys to compare", len(want))
	}
	for name, w := range want {
		g, found := got[name]
		if !found || g != w {
			t.Errorf("%s is %q (%t), it was %q", name, g, found, w)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s was not there before: %q", name, got[name])
	}
}

// dump reads every key but the doors, the streams and what counts the growth of shares, which begin anew: fields and members
// each by itself, and of records of transfers what came last.
func dump(t *testing.T, s *shoptest.Shop) map[string]string {
	t.Helper()
	all := map[string]string{}
	keys, err := s.Redis.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		switch kind, err := s.Redis.Type(t.Context(), key).Result(); {
		case err != nil:
			t.Fatal(err)
		case strings.HasSuffix(key, "}meta"), strings.HasSuffix(key, "}events"), strings.Contains(key, "}v:"):
		case kind == "hash":
			fields, err := s.Redis.HGetAll(t.Context(), key).Result()
			if err != nil {
				t.Fatal(err)
			}
			for field, value := range fields {
				all[key+" "+field] = value
			}
		case kind == "zset":
			members, err := s.Redis.ZRangeWithScores(t.Context(), key, 0, -1).Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range members {
				all[fmt.Sprintf("%s %q", key, m.Member)] = fmt.Sprintf("%.0f", m.Score)
			}
		default:
			value, err := s.Redis.Get(t.Context(), key).Result()
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			if strings.Contains(key, "}x:") {
				if value = cameLast(t, value); value == "[]" {
					continue
				}
			}
			all[key] = value
		}
	}
	return all
}

func TestBind_RefusesWhatDoesNotBelongTogether(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 2})
	s.Stop()
	c := shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), Partitions: 3}
	refused := func(what, want string) {
		t.Helper()
		opened, err := shop.Open(t.Context(), c)
		if err == nil {
			_ = opened.Close(t.Context())
		}
		if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "password@") {
			t.Errorf("%s: the error tells a secret: %v", what, err)
		}
	}
	refused("another number of partitions", "have 2 partitions, not 3")
	c.Partitions = 0
	exec(t, conn, "UPDATE deployment SET id = 'other'")
	refused("another deployment", "belongs to deployment")
	exec(t, conn, "DELETE FROM deployment")
	refused("books that are new", "has no books")
	c.Redis.URL = "redis://127.0.0.1:1/0"
	refused("no Redis", "Redis cannot be used")
	c.Redis.URL = strings.Replace(s.Stack.RedisURL(), "@", "x@", 1)
	refused("a wrong Redis password", "are user and password of the Redis URL right")
	c.PostgresURL = strings.Replace(s.Stack.PostgresURL(), "@", "x@", 1)
	refused("a wrong Postgres password", "Postgres")
	c.PostgresURL = "postgres://u:secret@127.0.0.1:1/db"
	refused("no Postgres", "Postgres cannot be reached")
}
