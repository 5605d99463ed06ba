package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
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

// answerMax bounds an answer of a shop whose Redis does not do what it is asked, whatever waits before it in the queue.
const answerMax = 3 * time.Second

// spreadShop is a shop on three masters, each with a replica. Its tests do harm to them in turn, and mend it.
type spreadShop struct {
	*shoptest.Shop
	cluster *redis.ClusterClient
	users   []int64 // one in each partition
	charges int
}

//servers:redis
func TestCluster(t *testing.T) {
	t.Parallel()
	s := &spreadShop{Shop: shoptest.Start(t, stack.Options{
		RedisNodes: 3, RedisReplicas: 1, RedisNodeTimeout: 1500 * time.Millisecond, Durability: stack.DurabilityEverySec,
	}, shop.Config{OperationTimeout: time.Second})}
	s.cluster = s.Redis.(*redis.ClusterClient)
	k := s.Engine.Keys()
	if k.Partitions() != 12 {
		t.Fatalf("%d partitions", k.Partitions())
	}
	s.users = make([]int64, k.Partitions())
	for _, user := range s.Users(60, 100) {
		s.users[k.OfUser(user)] = user
	}
	if slices.Contains(s.users, 0) {
		t.Fatal("a partition without a user")
	}
	t.Run("IsFoundByAnyOfItsURLs", s.isFound)
	t.Run("SlotOnTheMoveIsRefusedAndNothingIsLost", s.slotMoves)
	t.Run("SlotWithoutAMasterIsRefused", s.slotIsDown)
	t.Run("NothingIsAcknowledgedWithoutAReplica", s.replicaIsSilent)
	t.Run("ReplicaTakesOverAndTheOthersSellOn", s.masterDies)
	s.Written()
	s.reload(t)
	_, err := s.Books.Audit(within(t, patience), s.Redis, func(v persist.Violation) { t.Errorf("%+v", v) })
	if err != nil {
		t.Error(err)
	}
}

func (s *spreadShop) isFound(t *testing.T) {
	node, other := s.Redises()[0], s.Redises()[4]
	credentials := strings.TrimSuffix(node.URL, node.Addr+"/0")
	for url, want := range map[string]string{
		node.URL:                                 "",
		other.URL:                                "", // a replica
		credentials + "127.0.0.1:1," + node.Addr: "",
		credentials + node.Addr + "/3":           "database 0",
	} {
		client, err := engine.Connect(engine.Redis{URL: url}, 4, 5*time.Second)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", strings.TrimPrefix(url, credentials), err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !engine.IsCluster(client) {
			t.Errorf("%s is no cluster", strings.TrimPrefix(url, credentials))
		}
		if _, found, err := engine.FindDeployment(within(t, patience), client); err != nil || !found {
			t.Errorf("by %s: found %t, %v", strings.TrimPrefix(url, credentials), found, err)
		}
		_ = client.Close()
	}
}

// charge charges once in a partition, under a new key, which it returns.
func (s *spreadShop) charge(p int) (key string, err error) {
	s.charges++
	key = fmt.Sprint("charge ", s.charges)
	_, err = chargeIn(s.Engine, s.users[p], key)
	return key, err
}

func chargeIn(e *engine.Engine, user int64, key string) (replayed bool, err error) {
	began := time.Now()
	_, replayed, err = e.Charge(context.Background(), engine.ChargeRequest{UserID: user, Amount: 1, Key: key})
	if took := time.Since(began); took > answerMax {
		err = errors.Join(err, fmt.Errorf("answered after %v", took))
	}
	return replayed, err
}

// settled asks with the keys until each has its one effect.
func (s *spreadShop) settled(t *testing.T, p int, was int64, keys ...string) {
	t.Helper()
	for _, key := range keys {
		await(t, "an answer under "+key, func() bool {
			_, err := chargeIn(s.Engine, s.users[p], key)
			return err == nil
		})
		if replayed, err := chargeIn(s.Engine, s.users[p], key); err != nil || !replayed {
			t.Errorf("%s again: replayed %t, %v", key, replayed, err)
		}
	}
	wantBalance(t, s.Engine, s.users[p], was+int64(len(keys)))
}

func (s *spreadShop) balance(t *testing.T, p int) int64 {
	t.Helper()
	balance, err := s.Engine.Balance(t.Context(), s.users[p])
	if err != nil {
		t.Fatal(err)
	}
	return balance
}

// master is the node that holds a partition, and a client of nothing but that node.
func (s *spreadShop) master(t *testing.T, p int) (stack.RedisNode, *redis.Client) {
	t.Helper()
	s.reload(t)
	client, err := s.cluster.MasterForKey(t.Context(), s.Engine.Keys().Meta(p))
	if err != nil {
		t.Fatal(err)
	}
	all := s.Redises()
	at := slices.IndexFunc(all, func(n stack.RedisNode) bool { return n.Addr == client.Options().Addr })
	return all[at], client
}

// reload has the test's own client learn who holds what now.
func (s *spreadShop) reload(t *testing.T) {
	t.Helper()
	if err := s.cluster.ForEachMaster(t.Context(), func(context.Context, *redis.Client) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func (s *spreadShop) Redises() []stack.RedisNode { return s.Stack.Redises() }

// on runs a command on a node.
func on(t *testing.T, node *redis.Client, command ...any) {
	t.Helper()
	if err := node.Do(t.Context(), command...).Err(); err != nil {
		t.Fatalf("%v: %v", command[:min(3, len(command))], err)
	}
}

func (s *spreadShop) slotMoves(t *testing.T) {
	const p = 5
	k, user := s.Engine.Keys(), s.users[p]
	was := s.balance(t, p)
	before, err := s.charge(p)
	if err != nil {
		t.Fatal(err)
	}
	_, from := s.master(t, p)
	target, to := s.master(t, 11)
	slot, err := s.cluster.ClusterKeySlot(t.Context(), k.Meta(p)).Result()
	if err != nil {
		t.Fatal(err)
	}
	fromID, toID := from.Do(t.Context(), "cluster", "myid").Val(), to.Do(t.Context(), "cluster", "myid").Val()
	on(t, to, "cluster", "setslot", slot, "importing", fromID)
	on(t, from, "cluster", "setslot", slot, "migrating", toID)

	if replayed, err := chargeIn(s.Engine, user, before); err != nil || !replayed {
		t.Errorf("a key whose record has not moved: replayed %t, %v", replayed, err)
	}
	refused, err := s.charge(p) // a record that is not there yet may be at the other node
	wantErr(t, "a new key while the slot moves", err, engine.ErrUnavailable)
	if _, err := s.charge(0); err != nil {
		t.Errorf("another partition: %v", err)
	}
	host, port, _ := net.SplitHostPort(target.Addr)
	move := func(keys ...string) {
		t.Helper()
		command := []any{"migrate", host, port, "", 0, 5000, "auth", from.Options().Password, "keys"}
		for _, key := range keys {
			command = append(command, key)
		}
		on(t, from, command...)
	}
	move(k.Balance(p, user))
	_, err = s.Engine.Balance(t.Context(), user)
	wantErr(t, "a balance that has moved ahead", err, engine.ErrUnavailable)
	_, err = chargeIn(s.Engine, user, before)
	wantErr(t, "a key whose balance has moved ahead", err, engine.ErrUnavailable)

	for {
		keys, err := from.ClusterGetKeysInSlot(t.Context(), int(slot), 1000).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		move(keys...)
	}
	for _, node := range []*redis.Client{to, from} {
		on(t, node, "cluster", "setslot", slot, "node", toID)
	}
	// The door names the node that it was opened on, so another one is compared with the books first.
	s.settled(t, p, was, before, refused)
	awaitReady(t, s.Engine)
	if node, _ := s.master(t, p); node.Addr != target.Addr {
		t.Errorf("the partition is at %s, not %s", node.Addr, target.Addr)
	}
}

func (s *spreadShop) slotIsDown(t *testing.T) {
	const p = 10
	was := s.balance(t, p)
	_, master := s.master(t, p)
	slot, err := s.cluster.ClusterKeySlot(t.Context(), s.Engine.Keys().Meta(p)).Result()
	if err != nil {
		t.Fatal(err)
	}
	on(t, master, "cluster", "delslots", slot)
	key, err := s.charge(p)
	wantErr(t, "a charge without a master", err, engine.ErrUnavailable)
	_, err = s.Engine.Balance(t.Context(), s.users[p])
	wantErr(t, "a balance without a master", err, engine.ErrUnavailable)
	if err := s.Engine.CheckDoors(t.Context()); err == nil || !strings.Contains(err.Error(), "partition 10: ") {
		t.Errorf("doors: %v", err)
	}
	if _, err := s.charge(3); err != nil {
		t.Errorf("another partition: %v", err)
	}
	on(t, master, "cluster", "addslots", slot)
	s.settled(t, p, was, key)
	awaitReady(t, s.Engine)
}

func (s *spreadShop) replicaIsSilent(t *testing.T) {
	const p = 7
	was := s.balance(t, p)
	careful, err := shop.Open(within(t, patience), shop.Config{
		Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), NoWriter: true, Replica: true,
		OperationTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := careful.Close(within(t, patience)); err != nil {
			t.Error(err)
		}
	}()
	awaitReady(t, careful.Engine)
	e, user := careful.Engine, s.users[p]
	if _, err := chargeIn(e, user, "with a replica"); err != nil {
		t.Fatal(err)
	}
	if got := e.Durability(t.Context()); got != engine.DurabilityReplica {
		t.Errorf("durability %s", got)
	}
	master, _ := s.master(t, p)
	all := s.Redises()
	replica := all[(slices.IndexFunc(all, func(n stack.RedisNode) bool { return n.Addr == master.Addr })+3)%6]
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 { // done the first time, and not told the second time either
		_, err = chargeIn(e, user, "without a replica")
		wantErr(t, "a charge that no replica has", err, engine.ErrUnknown)
	}
	_, _, err = e.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: engine.BalanceMax, Key: "too much"})
	wantErr(t, "a charge that is refused", err, engine.ErrBalanceLimit)
	other := 0
	for m, _ := s.master(t, other); m.Addr == master.Addr; m, _ = s.master(t, other) {
		other++
	}
	if _, err := chargeIn(e, s.users[other], "where there is a replica"); err != nil {
		t.Errorf("another master: %v", err)
	}
	if err := replica.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, "the replica", func() bool {
		replayed, err := chargeIn(e, user, "without a replica")
		return err == nil && replayed
	})
	wantBalance(t, e, user, was+2)
}

func (s *spreadShop) masterDies(t *testing.T) {
	const p = 0
	was := s.balance(t, p)
	dying, _ := s.master(t, p)
	s.Written()

	stop := make(chan struct{})
	var others sync.WaitGroup
	for n := range s.users {
		if node, _ := s.master(t, n); node.Addr == dying.Addr {
			continue
		}
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				if _, err := chargeIn(s.Engine, s.users[n], fmt.Sprint("meanwhile ", i)); err != nil {
					t.Errorf("partition %d, which is elsewhere: %v", n, err)
					return
				}
			}
		})
	}
	if err := dying.HaltNow(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	var keys []string
	await(t, "a sale from the replica", func() bool {
		key, err := s.charge(p)
		keys = append(keys, key)
		if err != nil && !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrUnknown) {
			t.Errorf("without a master: %v", err)
		}
		return err == nil
	})
	close(stop)
	others.Wait()
	stacktest.AwaitPromotion(t, s.Stack, dying)
	s.settled(t, p, was, keys...)
	if err := dying.Resume(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, s.Engine)
}
