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

	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

func look(t *testing.T, e *engine.Engine, partition int) engine.DoorView {
	t.Helper()
	v, err := e.Look(context.Background(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// shutEngine is an engine on an empty Redis whose door nobody keeps, and nothing repairs.
func shutEngine(t *testing.T, partitions int) (*engine.Engine, redis.UniversalClient, *stack.Stack) {
	t.Helper()
	server := stacktest.Start(t, stack.Options{NoPostgres: true, Log: slog.New(slog.DiscardHandler)})
	client, err := engine.Connect(engine.Redis{URL: server.RedisURL()}, 16, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{
		Redis: client, Partitions: partitions, Node: nodeOfTests, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, client, server
}

// claim takes a shut door for a repair with the given token.
func claim(t *testing.T, e *engine.Engine, partition int, token string) {
	t.Helper()
	if claimed, err := e.ClaimDoor(context.Background(), partition, token, ""); err != nil || !claimed {
		t.Fatalf("claiming the door: %t, %v", claimed, err)
	}
}

// held is every key of a Redis with its content; of the doors and streams none.
func held(t *testing.T, c redis.UniversalClient) map[string]string {
	t.Helper()
	all := dump(t, c)
	for key := range all {
		if _, name, _ := strings.Cut(key, "}"); name == "meta" || name == "events" || name == "" { // the last is the deployment
			delete(all, key)
		}
	}
	return all
}

// wantSameTransfers compares the records of transfers, and takes them out. An event makes each but for a lease and for what
// was settled: there the rebuilt Redis has a transfer open, which a sweeper settles once more.
func wantSameTransfers(t *testing.T, was, is map[string]string) {
	t.Helper()
	for key, record := range is {
		_, name, _ := strings.Cut(key, "}")
		switch {
		case strings.HasPrefix(name, "x:"):
			got, err1 := engine.DecodeTransfers(record)
			want, err2 := engine.DecodeTransfers(was[key])
			settled := slices.DeleteFunc(slices.Clone(got.Out), func(o engine.Outgoing) bool { return slices.Contains(want.Out, o) })
			if err := errors.Join(err1, err2); err != nil || !slices.Equal(got.In, want.In) || len(got.Out) != len(want.Out)+len(settled) {
				t.Errorf("%s is %+v, was %+v (%v)", key, got, want, err)
			}
		case name != "moving":
			continue
		}
		delete(is, key)
		delete(was, key)
	}
}

// sellEverywhere leaves orders, charges and restocks in every partition.
func sellEverywhere(t *testing.T, s *shoptest.Shop) (orders []engine.Order) {
	t.Helper()
	e, k := s.Engine, s.Engine.Keys()
	for p := range wideness {
		product := s.Product(3, 1000)
		for k.Home(product) != p {
			product = s.Product(3, 1000)
		}
		user := s.User(10_000)
		for k.OfUser(user) != p {
			user = s.User(10_000)
		}
		for i := range 10 {
			orders = append(orders, mustPlace(t, e, user, fmt.Sprint("order ", i), lines(product, int64(1+i))))
		}
		_, _, err := e.Restock(context.Background(), engine.RestockRequest{ProductID: product, Delta: -7, Reason: "broken", Key: fmt.Sprint("everywhere ", product)})
		if err != nil {
			t.Fatal(err)
		}
	}
	return orders
}

// The journal is enough to rebuild Redis: what a repair writes into an empty one is what the scripts had written.
func TestReplay_OfAllEventsBuildsTheSameRedis(t *testing.T) {
	s := wide.open(t)
	ctx := context.Background()
	orders := sellEverywhere(t, s)

	e, client, _ := shutEngine(t, wideness)
	for p := range wideness {
		entries := entriesAfter(t, s, p, engine.Position{})
		bytes := int64(0)
		for i := range entries {
			bytes += entries[i].Bytes()
		}
		// In two steps, as a long journal would be; the first is then no longer at its place.
		half := len(entries) / 2
		claim(t, e, p, "repair")
		middle := entries[half-1].Last
		for i, want := range []bool{true, false} {
			done, err := e.Replay(ctx, p, "repair", engine.Position{}, entries[:half], bytes, nil)
			if err != nil || done != want {
				t.Fatalf("first half, try %d: %t, %v", i, done, err)
			}
		}
		if done, err := e.Replay(ctx, p, "repair", middle, entries[half:], bytes, nil); err != nil || !done {
			t.Fatalf("second half: %t, %v", done, err)
		}
		v, was := look(t, e, p), look(t, s.Engine, p)
		if v.Position != was.Position || v.Bytes != was.Bytes || v.Done != bytes || v.Standing || v.Open {
			t.Errorf("partition %d after the replay: %+v, was %+v", p, v, was)
		}
	}

	was, is := held(t, s.Redis), held(t, client)
	wantSameTransfers(t, was, is)
	for _, key := range slices.Sorted(maps.Keys(was)) {
		_, name, _ := strings.Cut(key, "}")
		got, found := is[key]
		switch {
		case found && got != was[key]:
			t.Errorf("%s is %q, was %q", key, got, was[key])
		case !found && (strings.HasPrefix(name, "b:") || strings.HasPrefix(name, "s:")) && was[key] == "0":
			// An account without money and a share without units leave no event: people and catalogue bring them.
		case strings.HasPrefix(name, "v:"), strings.HasPrefix(name, "w:"):
			// How often a share has grown is compared within an epoch only, so it leaves no event.
		case !found && name != "listed" && !strings.HasPrefix(name, "c:"):
			t.Errorf("%s is missing, was %q", key, was[key])
		}
	}
	for key := range is {
		if _, found := was[key]; !found {
			t.Errorf("%s was never there", key)
		}
	}

	for p := range wideness {
		v := look(t, e, p)
		if done, err := e.MoveDoor(ctx, p, "repair", v, v.Epoch+1, v.Events(), true, time.Time{}); err != nil || !done {
			t.Fatalf("opening: %t, %v", done, err)
		}
	}
	e.Start()
	awaitReady(t, e)
	for i, order := range orders {
		item := order.Items[0]
		again, replayed, err := e.Place(ctx, engine.PlaceRequest{
			UserID: order.UserID, Key: fmt.Sprint("order ", i%10), Lines: lines(item.ProductID, item.Quantity),
		})
		if err != nil || !replayed || describe(again) != describe(order) {
			t.Errorf("asked the rebuilt Redis again: %s, %t, %v", describe(again), replayed, err)
		}
	}
}

func TestRepair_IsRefusedWhileTheDoorStandsOpen(t *testing.T) {
	s := common.open(t)
	user := s.User(100)
	p := s.Engine.Keys().OfUser(user)
	from := position(t, s.Engine, p)
	mustCharge(t, s.Engine, user, 5, "charge")
	before := look(t, s.Engine, p)
	entries := entriesAfter(t, s, p, from)
	if done, err := s.Engine.Replay(context.Background(), p, "repair", before.Position, entries, 0, nil); err != nil || done {
		t.Errorf("replayed under the feet of buyers: %t, %v", done, err)
	}
	if after := look(t, s.Engine, p); after.Position != before.Position || !after.Standing || after.Bytes != before.Bytes {
		t.Errorf("%+v, was %+v", after, before)
	}
	wantBalance(t, s.Engine, user, 105)
}

// Each fence by itself stands in every script that sells: here nobody keeps the door, and nothing repairs it.
func TestDoor_EveryFenceTurnsEveryCallAway(t *testing.T) {
	ctx := context.Background()
	e, client, server := shutEngine(t, 1)
	claim(t, e, 0, "mine")
	if done, err := e.MoveDoor(ctx, 0, "mine", look(t, e, 0), 1, 0, true, time.Time{}); err != nil || !done {
		t.Fatalf("opening: %t, %v", done, err)
	}
	number := 0
	// calls makes one call of each kind and tells how many were done.
	calls := func() (done int) {
		t.Helper()
		number++
		key := strconv.Itoa(number)
		ends := []error{
			e.Send(1, e.PlaceOp(engine.PlaceRequest{UserID: 1, Lines: lines(1, 1), Key: "place " + key}))[0].Err,
			e.Send(1, e.ChargeOp(engine.ChargeRequest{UserID: 1, Amount: 5, Key: "charge " + key}))[0].Err,
			e.Send(1, e.RestockOp(engine.RestockRequest{ProductID: 1, Delta: 1, Key: "restock " + key}))[0].Err,
		}
		for _, err := range ends {
			if err == nil {
				done++
			} else {
				wantErr(t, "a call before a shut door", err, engine.ErrUnavailable)
			}
		}
		return done
	}
	listing := engine.Listing{Product: engine.Product{ID: 1, Price: 1, Version: 1, CreatedAt: time.Now()}, InitialStock: 10}
	if err := errors.Join(e.EnrollBehind(0, 1, []int64{1}), e.ListBehind(0, 1, []engine.Listing{listing})); err != nil {
		t.Fatal(err)
	}
	e.Send(1, e.ChargeOp(engine.ChargeRequest{UserID: 1, Amount: 50, Key: "funds"}))
	if done := calls(); done != 3 {
		t.Fatalf("%d of 3 calls done before an open door", done)
	}
	meta := e.Keys().Meta(0)
	was, at := client.HGetAll(ctx, meta).Val(), look(t, e, 0)
	before := held(t, client)
	for fence, value := range map[string]string{"epoch": "2", "node": strings.Repeat("0", 40), "open": "0"} {
		if err := client.HSet(ctx, meta, fence, value).Err(); err != nil {
			t.Fatal(err)
		}
		if done := calls(); done != 0 {
			t.Errorf("%s stands otherwise: %d of 3 calls done", fence, done)
		}
		if fence != "open" {
			err := errors.Join(e.EnrollBehind(0, 1, []int64{2}), e.ListBehind(0, 1, []engine.Listing{listing}))
			wantErr(t, "a repair behind another door: "+fence, err, engine.ErrUnavailable)
		}
		if err := client.HSet(ctx, meta, was).Err(); err != nil {
			t.Fatal(err)
		}
	}
	client.Del(ctx, meta)
	if done := calls(); done != 0 {
		t.Errorf("no door at all: %d of 3 calls done", done)
	}
	client.HSet(ctx, meta, was)
	if now := look(t, e, 0); now.Position != at.Position || !maps.Equal(held(t, client), before) {
		t.Errorf("%v, was %v:\n%v\n%v", now.Position, at.Position, held(t, client), before)
	}
	// And a server that was started anew, which nobody has compared with the books.
	if err := errors.Join(server.Redis().HaltNow(within(t, patience)), server.Redis().Resume(within(t, patience))); err != nil {
		t.Fatal(err)
	}
	await(t, "the new server", func() bool { return client.Ping(ctx).Err() == nil })
	if done := calls(); done != 0 {
		t.Errorf("a new server: %d of 3 calls done", done)
	}
}

func TestMoveDoor_RefusesWhenRedisIsNotAsFound(t *testing.T) {
	ctx := context.Background()
	e, _, _ := shutEngine(t, 1)
	claim(t, e, 0, "mine")
	if done, err := e.MoveDoor(ctx, 0, "mine", look(t, e, 0), 3, 0, false, time.Time{}); err != nil || !done {
		t.Fatalf("an epoch behind the door: %t, %v", done, err)
	}
	found := look(t, e, 0)
	for what, change := range map[string]func(v *engine.DoorView){
		"another epoch":  func(v *engine.DoorView) { v.Epoch-- },
		"another event":  func(v *engine.DoorView) { v.Seq++ },
		"another server": func(v *engine.DoorView) { v.IsNode = strings.Repeat("0", 40) },
		"a restart":      func(v *engine.DoorView) { v.IsRun = strings.Repeat("0", 40) },
	} {
		stale := found
		change(&stale)
		if done, err := e.MoveDoor(ctx, 0, "mine", stale, 4, 0, true, time.Time{}); err != nil || done {
			t.Errorf("%s: moved %t, %v", what, done, err)
		}
	}
	for _, token := range []string{"", "another's"} {
		if done, err := e.MoveDoor(ctx, 0, token, found, 4, 0, true, time.Time{}); err != nil || done {
			t.Errorf("token %q: moved %t, %v", token, done, err)
		}
	}
	if now := look(t, e, 0); now.Position != found.Position || now.Standing {
		t.Errorf("%+v, was %+v", now, found)
	}
	claim(t, e, 0, "later")
	if done, err := e.MoveDoor(ctx, 0, "mine", found, 4, 0, true, time.Time{}); err != nil || done {
		t.Errorf("a repair that was replaced moved the door: %t, %v", done, err)
	}
	if done, err := e.MoveDoor(ctx, 0, "later", found, 4, 17, true, time.Time{}); err != nil || !done {
		t.Errorf("the repair that holds the door: %t, %v", done, err)
	}
	if now := look(t, e, 0); now.Position != (engine.Position{Epoch: 4}) || now.Base != 17 || !now.Standing {
		t.Errorf("%+v", now)
	}
}

func TestTrim_OfALateWriterDoesNotMoveTheMarkBack(t *testing.T) {
	s := bare.open(t) // no writer moves it meanwhile
	ctx := context.Background()
	figureRuns++
	enroll(t, s, 500+figureRuns, 5)
	v := look(t, s.Engine, 0)
	trim := func(at engine.Position, bytes int64) int64 {
		t.Helper()
		if err := s.Engine.Trim(ctx, 0, at, bytes, engine.Position{}); err != nil {
			t.Fatal(err)
		}
		return look(t, s.Engine, 0).Done
	}
	if done := trim(v.Position, v.Done+100); done != v.Done+100 {
		t.Errorf("the mark is %d, want %d", done, v.Done+100)
	}
	if done := trim(v.Position, v.Done+50); done != v.Done+100 {
		t.Errorf("a late writer moved the mark to %d", done)
	}
	if done := trim(engine.Position{Epoch: v.Epoch + 1, Seq: 1}, v.Done+200); done != v.Done+100 {
		t.Errorf("a checkpoint that this Redis has not reached moved the mark to %d", done)
	}
}
