package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/persist"
)

// relocation is a shop on a cluster whose partitions move while it sells.
type relocation struct {
	*world
	buyers  []int64
	plenty  int64 // a product of which each partition has enough
	sold    atomic.Int64
	denied  []atomic.Int64 // orders that were not done at once, by partition
	stop    chan struct{}
	selling sync.WaitGroup
}

const (
	relocationBuyers = 36
	relocationStock  = 1_200_000
	relocationPause  = 50 * time.Millisecond // of a buyer between orders: the test is about moves, not about load

	failoverNodeTimeout = time.Second
)

func startRelocation(t *testing.T) *relocation {
	t.Helper()
	r := &relocation{world: &world{Shop: shoptest.Start(t, stack.Options{RedisNodes: 3}, shop.Config{}), t: t}}
	r.keys = r.Engine.Keys()
	r.connect()
	r.buyers = r.Users(relocationBuyers, 1_000_000_000)
	r.plenty = r.Product(1, relocationStock)
	r.denied = make([]atomic.Int64, r.keys.Partitions())
	r.stop = make(chan struct{})
	for _, user := range r.buyers {
		r.selling.Go(func() { r.buy(user) })
	}
	t.Cleanup(r.quiet)
	return r
}

// quiet ends the sale.
func (r *relocation) quiet() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.selling.Wait()
}

// buy orders until the sale ends. What a buyer is told is that it is done, or to ask again.
func (r *relocation) buy(user int64) {
	for n := 0; ; n++ {
		select {
		case <-r.stop:
			return
		default:
		}
		order := engine.PlaceRequest{UserID: user, Key: fmt.Sprint("order ", n), Lines: []engine.Line{line(r.plenty, 1)}}
		_, _, err := definite(func() (engine.Order, bool, error) {
			placed, replayed, err := r.Engine.Place(context.Background(), order)
			if err != nil {
				r.denied[r.keys.OfUser(user)].Add(1)
			}
			return placed, replayed, err
		})
		if err != nil {
			r.t.Errorf("user %d, order %d: %v", user, n, err)
			return
		}
		r.sold.Add(1)
		time.Sleep(relocationPause)
	}
}

// move moves a partition as the command does.
func (r *relocation) move(ctx context.Context, partition int, to string, tell func(persist.MoveStep, int64)) (persist.Moved, error) {
	addresses := []string{r.Stack.RedisURL()} // of all nodes: the first may be down
	for _, node := range r.Stack.Redises()[1:] {
		addresses = append(addresses, node.Addr)
	}
	return shop.Move(ctx, shop.Config{
		Redis: engine.Redis{URL: strings.Join(addresses, ",")}, PostgresURL: r.Stack.PostgresURL(),
	}, partition, to, tell)
}

func nobody(persist.MoveStep, int64) {}

// masterOf is the address of the master that has a partition, and another one's.
func (r *relocation) masterOf(partition int) (has, other string) {
	r.t.Helper()
	slot, err := r.Redis.ClusterKeySlot(r.t.Context(), r.keys.Meta(partition)).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	ranges, err := r.Redis.ClusterSlots(r.t.Context()).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, of := range ranges {
		if addr := of.Nodes[0].Addr; of.Start <= int(slot) && int(slot) <= of.End {
			has = addr
		}
	}
	for _, of := range ranges {
		if addr := of.Nodes[0].Addr; addr != has {
			other = addr
		}
	}
	return has, other
}

// settled ends the sale and wants that all that was sold is in the books, once.
func (r *relocation) settled() {
	r.t.Helper()
	r.awaitDoors()
	before := r.sold.Load()
	for deadline := time.Now().Add(patience); r.sold.Load() < before+relocationBuyers; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("does not sell any more")
		}
	}
	r.quiet()
	r.awaitFound()
	r.audited()
	if in := r.number("SELECT count(*) FROM orders WHERE status = 'SUCCESS'"); in != r.sold.Load() {
		r.t.Errorf("%d orders were answered, the books have %d", r.sold.Load(), in)
	}
	r.wantStock(r.plenty, relocationStock-r.sold.Load())
}

// awaitFound waits until the client finds every partition: an audit follows nothing that moves.
func (r *relocation) awaitFound() {
	r.t.Helper()
	for p := range r.keys.Partitions() {
		for deadline := time.Now().Add(patience); r.Redis.Exists(r.t.Context(), r.keys.Meta(p)).Err() != nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				r.t.Fatalf("partition %d cannot be found", p)
			}
		}
	}
}

// leave puts a key on a master that does not have its partition, as an old disk of that master may hold it.
func (r *relocation) leave(on, key string, partition int) {
	r.t.Helper()
	ctx, id := r.t.Context(), ""
	has, _ := r.masterOf(partition)
	r.at(has, func(c *redis.Client) (err error) {
		id, err = c.ClusterMyID(ctx).Result()
		return err
	})
	slot := r.Redis.ClusterKeySlot(ctx, key).Val()
	r.at(on, func(c *redis.Client) error {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			return errors.Join(p.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", id).Err(), p.Do(ctx, "ASKING").Err(), p.Set(ctx, key, "old", 0).Err())
		})
		return err
	})
}

// at runs f on a connection to one node.
func (r *relocation) at(addr string, f func(*redis.Client) error) {
	r.t.Helper()
	o, err := redis.ParseURL(r.nodeAt(addr).URL)
	if err != nil {
		r.t.Fatal(err)
	}
	client := redis.NewClient(o)
	if err := errors.Join(f(client), client.Close()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *relocation) nodeAt(addr string) stack.RedisNode {
	r.t.Helper()
	nodes := r.Stack.Redises()
	i := slices.IndexFunc(nodes, func(n stack.RedisNode) bool { return n.Addr == addr })
	if i < 0 {
		r.t.Fatalf("no node is %s", addr)
	}
	return nodes[i]
}

func TestMove_OnlyThePartitionStopsSelling(t *testing.T) {
	r := startRelocation(t)
	const partition = 3
	from, to := r.masterOf(partition)
	for n, target := range []string{to, from, to} {
		old := r.keys.Idempotency(partition, r.buyers[0], fmt.Sprint("never used ", n))
		r.leave(target, old, partition)
		done, err := r.move(t.Context(), partition, target, nobody)
		if err != nil || done.To != target || done.Already || done.Keys == 0 {
			t.Fatalf("%+v, %v", done, err)
		}
		r.awaitDoors()
		r.at(target, func(c *redis.Client) error {
			if n, err := c.Exists(t.Context(), old).Result(); err != nil || n > 0 {
				t.Errorf("what an old disk held is served: %d, %v", n, err)
			}
			return nil
		})
	}
	for p := range r.denied {
		if n := r.denied[p].Load(); p != partition && n > 0 {
			t.Errorf("%d orders of partition %d were turned away", n, p)
		}
	}
	done, err := r.move(t.Context(), partition, to, nobody)
	if err != nil || !done.Already {
		t.Errorf("a move to where it is: %+v, %v", done, err)
	}
	if epochs := r.number("SELECT count(*) FROM epochs WHERE partition = $1 AND reason = 'moved to another master'", partition); epochs != 3 {
		t.Errorf("%d epochs began with a move, want 3", epochs)
	}
	node := r.nodeAt(to)
	if err := errors.Join(node.HaltNow(t.Context()), node.Resume(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.settled()
}

// A move that dies anywhere is finished by the next one.
//
//servers:redis
func TestMove_DiesAnywhereAndIsMadeAgain(t *testing.T) {
	r := startRelocation(t)
	random := seeded(t, 0)
	steps := []persist.MoveStep{persist.MoveCloses, persist.MoveCopies, persist.MoveHandsOn, persist.MoveHandsOn, persist.MoveHandsOn, persist.MoveOpens}
	died := map[persist.MoveStep]int{}
	for n := range counted(6, 200) {
		partition := random.IntN(r.keys.Partitions())
		_, to := r.masterOf(partition)
		if err := r.cut(random, partition, to, steps[n%len(steps)]); err == nil {
			continue
		}
		died[steps[n%len(steps)]]++
		if n%3 == 0 { // other processes look at it meanwhile
			time.Sleep(100 * time.Millisecond)
		}
		done, err := r.move(t.Context(), partition, to, nobody)
		if err != nil {
			t.Fatalf("move of partition %d to %s, made again: %v", partition, to, err)
		}
		if has, _ := r.masterOf(partition); has != to {
			t.Fatalf("partition %d is on %s: %+v", partition, has, done)
		}
	}
	t.Logf("died: %v", died)
	r.settled()
}

// cut begins a move and ends it within a moment after it has begun a step.
func (r *relocation) cut(random *rand.Rand, partition int, to string, at persist.MoveStep) error {
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	after := time.Duration(random.Int64N(int64(4 * time.Millisecond)))
	_, err := r.move(ctx, partition, to, func(step persist.MoveStep, _ int64) {
		if step == at {
			time.AfterFunc(after, cancel)
		}
	})
	return err
}

func TestMove_RefusesWhatCannotBe(t *testing.T) {
	r := startRelocation(t)
	_, to := r.masterOf(0)
	for _, c := range []struct {
		partition int
		to        string
	}{{12, to}, {-1, to}, {0, "127.0.0.1:1"}, {0, "nonsense"}} {
		if _, err := r.move(t.Context(), c.partition, c.to, nobody); err == nil || errors.Is(err, engine.ErrUnknown) {
			t.Errorf("partition %d to %s: %v", c.partition, c.to, err)
		}
	}
	r.settled()
	for p := range r.denied {
		if n := r.denied[p].Load(); n > 0 {
			t.Errorf("%d orders of partition %d were turned away", n, p)
		}
	}
}

// A master that failed stays in the cluster's list, beside the replica that took its place: since Redis 7.2 in one shard with it.
//
//servers:redis
func TestMove_AfterAFailover(t *testing.T) {
	r := &relocation{world: &world{Shop: shoptest.Start(t, stack.Options{
		RedisNodes: 3, RedisReplicas: 1, RedisNodeTimeout: failoverNodeTimeout,
	}, shop.Config{}), t: t}}
	r.keys = r.Engine.Keys()
	r.connect()
	users := r.Users(relocationBuyers, 1_000_000)
	r.Written()

	const partition = 3
	failed, live := r.masterOf(partition)
	var ofFailed, ofLive []int // partitions
	for p := range r.keys.Partitions() {
		switch has, _ := r.masterOf(p); has {
		case failed:
			ofFailed = append(ofFailed, p)
		case live:
			ofLive = append(ofLive, p)
		}
	}
	node := r.nodeAt(failed)
	r.at(failed, func(c *redis.Client) error { return c.Wait(t.Context(), 1, patience).Err() })
	if err := node.HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	successor := stacktest.AwaitPromotion(t, r.Stack, node).Addr
	r.awaitDoors()

	for _, to := range []string{failed, r.idOf(live, failed)} {
		if _, err := r.move(t.Context(), ofLive[0], to, nobody); err == nil || !strings.Contains(err.Error(), to+" is marked as failed") {
			t.Errorf("move to the master that failed: %v", err)
		}
	}
	for _, step := range []struct {
		partition int
		to        string
	}{{ofFailed[0], live}, {ofLive[0], successor}, {ofFailed[0], successor}} {
		if done, err := r.move(t.Context(), step.partition, step.to, nobody); err != nil || done.To != step.to || done.Already {
			t.Fatalf("move partition %d to %s: %+v, %v", step.partition, step.to, done, err)
		}
	}
	r.awaitDoors()
	for _, user := range users {
		if _, _, err := definite(func() (engine.Charged, bool, error) {
			return r.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: 1, Key: "after the moves"})
		}); err != nil {
			t.Errorf("charge user %d: %v", user, err)
		}
	}
	r.awaitFound()
	r.audited()
}

// idOf is the id of a node as another one knows it.
func (r *relocation) idOf(known, addr string) (id string) {
	r.t.Helper()
	r.at(known, func(c *redis.Client) error {
		text, err := c.ClusterNodes(r.t.Context()).Result()
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); strings.HasPrefix(fields[1], addr+"@") {
				id = fields[0]
			}
		}
		return err
	})
	return id
}

// rights are those that README.md gives to who serves, and besides to who moves partitions.
func rights(t *testing.T) (serves, moves []string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if of, found := strings.CutPrefix(line, "user stampede on >PASSWORD "); found {
			serves = append(strings.Fields(of), "+cluster|slots")
		}
		if strings.HasPrefix(line, "`+asking ") {
			moves = strings.Fields(strings.Trim(line, "`\n"))
		}
	}
	return serves, moves
}

//servers:redis
func TestMove_WithTheRightsOfReadme(t *testing.T) {
	r := startRelocation(t)
	serves, moves := rights(t)
	for _, user := range []struct {
		name   string
		rights []string
	}{{"server", serves}, {"mover", slices.Concat(serves, moves)}} {
		command := []any{"ACL", "SETUSER", user.name, "on", ">secret"}
		for _, right := range user.rights {
			command = append(command, right)
		}
		for _, node := range r.Stack.Redises() {
			r.at(node.Addr, func(c *redis.Client) error { return c.Do(t.Context(), command...).Err() })
		}
	}
	as := func(name string) error {
		_, to := r.masterOf(5)
		u, err := url.Parse(r.Stack.Redises()[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(name, "secret")
		_, err = shop.Move(t.Context(), shop.Config{Redis: engine.Redis{URL: u.String()}, PostgresURL: r.Stack.PostgresURL()}, 5, to, nobody)
		return err
	}
	if err := as("server"); err == nil || !strings.Contains(err.Error(), "`stampede move` in README.md") {
		t.Errorf("without the rights: %v", err)
	}
	if err := as("mover"); err != nil {
		t.Error(err)
	}
	r.settled()
}
