package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

// lab is a Redis without Postgres whose databases are shops of their own. Nobody repairs their doors, and nothing writes
// their events away. Tests of it take whole databases and leave them dirty.
var lab packageLab

type packageLab struct {
	packageLife
	stack *stack.Stack
}

func (p *packageLab) open(t *testing.T) *packageLab {
	t.Helper()
	p.test = t
	p.start.Do(func() {
		p.stack = stacktest.Start(p, stack.Options{
			NoPostgres: true, Durability: stack.DurabilityEverySec, Log: slog.New(slog.NewTextHandler(p.Output(), nil)),
		})
	})
	if p.stack == nil {
		t.Fatal("the Redis of this test did not start")
	}
	return p
}

// room is one of the lab's databases, with an engine on it that does not run by itself.
type room struct {
	e     *engine.Engine
	redis redis.UniversalClient
	at    time.Time // at which calls of the room are made; zero: now
}

// room empties a database and opens its doors.
func (p *packageLab) room(t *testing.T, number int, c engine.Config) *room {
	t.Helper()
	r := &room{}
	r.e = p.engine(t, number, c)
	client, err := engine.Connect(engine.Redis{URL: p.url(number)}, 4, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	r.redis = client
	r.empty(t)
	return r
}

func (p *packageLab) url(number int) string {
	return strings.TrimSuffix(p.stack.RedisURL(), "/0") + "/" + strconv.Itoa(number)
}

// engine is one more on a room, which does not run before its Start.
func (p *packageLab) engine(t *testing.T, number int, c engine.Config) *engine.Engine {
	t.Helper()
	if c.OperationTimeout == 0 {
		c.OperationTimeout = 5 * time.Second
	}
	client, err := engine.Connect(engine.Redis{URL: p.url(number)}, 16, c.OperationTimeout)
	if err != nil {
		t.Fatal(err)
	}
	nodes++
	c.Redis, c.Node, c.Partitions = client, nodes%engine.NodesMax, max(c.Partitions, 1)
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	e, err := engine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

var nodes int // numbers the lab's engines

// empty makes the room as new: nothing in it but open doors in epoch 1.
func (r *room) empty(t rapid.TB) {
	t.Helper()
	ctx := context.Background()
	if err := r.redis.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for p := range r.e.Keys().Partitions() {
		claimed, err := r.e.ClaimDoor(ctx, p, "lab", "")
		if err != nil || !claimed {
			t.Fatalf("claiming the door: %t, %v", claimed, err)
		}
		v, err := r.e.Look(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		if done, err := r.e.MoveDoor(ctx, p, "lab", v, 1, 0, true, time.Time{}); err != nil || !done {
			t.Fatalf("opening the door: %t, %v", done, err)
		}
	}
}

// run starts the room's engine.
func (r *room) run(t *testing.T) *engine.Engine {
	t.Helper()
	r.e.Start()
	awaitReady(t, r.e)
	return r.e
}

// send makes a call at the room's time, or now where none is set.
func (r *room) send(t rapid.TB, op *engine.Op) {
	t.Helper()
	var got engine.Outcome
	if r.at.IsZero() {
		got = r.e.Send(1, op)[0]
	} else {
		got = r.e.SendAt(1, r.at, op)[0]
	}
	if got.Err != nil {
		t.Fatal(got.Err)
	}
}

// stock lists products in every partition, with their units at home.
func (r *room) stock(t rapid.TB, products ...engine.Listing) {
	t.Helper()
	for p := range r.e.Keys().Partitions() {
		for _, l := range products {
			r.send(t, r.e.ListOp(l, p))
		}
	}
}

// fund opens accounts of users 1, 2, ... with balances.
func (r *room) fund(t rapid.TB, balances ...int64) {
	t.Helper()
	for i, balance := range balances {
		user := int64(i + 1)
		if err := r.e.EnrollBehind(r.e.Keys().OfUser(user), 1, []int64{user}); err != nil {
			t.Fatal(err)
		}
		if balance > 0 {
			op := r.e.ChargeOp(engine.ChargeRequest{UserID: user, Amount: balance, Key: "funds"})
			op.SetID(user)
			r.send(t, op)
		}
	}
}

// listing is a product of the lab.
func listing(id, price, stock int64) engine.Listing {
	return engine.Listing{
		Product:      engine.Product{ID: id, Name: fmt.Sprint("Thing ", id), Price: price, Version: 1, CreatedAt: time.UnixMilli(1_795_000_000_000)},
		InitialStock: stock,
	}
}

// dump is every key of a database with its content, whatever its type.
func dump(t rapid.TB, c redis.UniversalClient) map[string]string {
	t.Helper()
	ctx := context.Background()
	var names []string
	for keys := c.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		names = append(names, keys.Val())
	}
	pipe := c.Pipeline()
	types := make([]*redis.StatusCmd, len(names))
	for i, name := range names {
		types[i] = pipe.Type(ctx, name)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	pipe = c.Pipeline()
	contents := make([]redis.Cmder, len(names))
	for i, name := range names {
		switch types[i].Val() {
		case "hash":
			contents[i] = pipe.HGetAll(ctx, name)
		case "zset":
			contents[i] = pipe.ZRangeWithScores(ctx, name, 0, -1)
		case "stream":
			contents[i] = pipe.XRange(ctx, name, "-", "+")
		case "list":
			contents[i] = pipe.LRange(ctx, name, 0, -1)
		default:
			contents[i] = pipe.Get(ctx, name)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	all := make(map[string]string, len(names))
	for i, name := range names {
		switch c := contents[i].(type) {
		case *redis.MapStringStringCmd:
			all[name] = fmt.Sprintf("%q", c.Val()) // sorted by field
		case *redis.StringCmd:
			all[name] = c.Val()
		case *redis.ZSliceCmd:
			all[name] = fmt.Sprint(c.Val())
		case *redis.XMessageSliceCmd:
			all[name] = fmt.Sprint(c.Val())
		case *redis.StringSliceCmd:
			all[name] = fmt.Sprintf("%q", c.Val())
		}
	}
	return all
}

// differences are the keys in which two dumps differ, with both contents.
func differences(a, b map[string]string) string {
	var text strings.Builder
	both := maps.Clone(a)
	maps.Copy(both, b)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		if was, is := a[key], b[key]; was != is {
			fmt.Fprintf(&text, "%s:\n\t%q\n\t%q\n", key, was, is)
		}
	}
	return text.String()
}
