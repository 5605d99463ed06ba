package persist_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

func TestRestore_BringsBackWhatAFlushTook(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		s, _ := start(t, shop.Config{Partitions: partitions})
		users := []int64{s.User(100_000), s.User(50), s.User(0)}
		products := []int64{s.Product(100, 1000), s.Product(7, 0)}
		for _, key := range []string{"a", "b", "c"} {
			for _, user := range users {
				_, _, _ = s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: key, Lines: []engine.Line{line(products[0], 2)}})
			}
		}
		s.Written()
		before := dump(t, s)
		s.Stop()
		s.Redis.FlushAll(t.Context())

		c := shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), Restore: true, NoWriter: true}
		restored, err := shop.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := restored.Engine.AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := restored.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := dump(t, s)
		for key, value := range before {
			if after[key] != value {
				t.Errorf("P=%d: %s is %q, it was %q", partitions, key, after[key], value)
			}
			delete(after, key)
		}
		for key := range after {
			t.Errorf("P=%d: %s was not there before", partitions, key)
		}
		s.Reopen()
		auditClean(t, s)
	}
}

// dump reads every key but the doors and the streams, which begin anew.
func dump(t *testing.T, s *shoptest.Shop) map[string]string {
	t.Helper()
	all := map[string]string{}
	keys, err := s.Redis.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		switch {
		case strings.HasSuffix(key, "}meta"), strings.HasSuffix(key, "}events"):
		case strings.Contains(key, "}m:"):
			fields, err := s.Redis.HGetAll(t.Context(), key).Result()
			if err != nil {
				t.Fatal(err)
			}
			for field, value := range fields {
				all[key+" "+field] = value
			}
		case key == engine.DeploymentKey:
			all[key] = strings.Join(s.Redis.HVals(t.Context(), key).Val(), " ")
		case strings.HasSuffix(key, "}holds"), strings.HasSuffix(key, "}top"):
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
			all[key] = value
		}
	}
	return all
}

func TestBind_RefusesWhatDoesNotBelongTogether(t *testing.T) {
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
