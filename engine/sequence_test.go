package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"stampede/engine"
)

// A call with N operations must equal the N run one after another (invariant 6), and the events must be enough to build
// the same Redis again. The same random operations run in two empty databases, at times that stand still: in one as calls
// of N, in the other one by one. Then both must hold the same, byte by byte: ids, times and keys are the same. In a third
// one a repair replays the events, and must end with the same too.

// world is what a random run starts from, and what it has come to.
type world struct {
	together, oneByOne, replayed *room
	at                           time.Time
	nextID                       int64
	orders                       []int64 // that were placed or held
	archive                      map[int64]engine.Order
	met                          map[string]int
	shape                        shape
}

// shape is what both databases start as: users, products and funds beside one user and one product that do not exist.
type shape struct {
	Balances []int64
	Prices   []int64
	Stocks   []int64
}

const (
	sequenceUsers    = 3
	sequenceProducts = 4
	sequenceKeys     = 26
	sequenceHold     = 10 * time.Minute
	sequenceRefund   = 24 * time.Hour
)

var sequenceStart = time.UnixMilli(1_795_000_000_123).UTC()

func (w *world) begin(t *rapid.T, sh shape) {
	w.shape, w.at, w.nextID, w.orders, w.archive = sh, sequenceStart, 1000, nil, map[int64]engine.Order{}
	for _, r := range []*room{w.together, w.oneByOne, w.replayed} {
		r.empty(t)
		// Counting begins long before the times of a run, whatever the clock of the machine says.
		if err := r.redis.HSet(context.Background(), r.e.Keys().Meta(0), "rolled", w.minute()-5000).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*room{w.together, w.oneByOne} {
		r.at = w.at
		r.fund(t, sh.Balances...)
		for i, price := range sh.Prices {
			r.stock(t, listing(int64(i+1), price, sh.Stocks[i]))
		}
	}
}

func (w *world) minute() int64 { return w.at.Unix() / 60 }

// run sends the steps as one call and as many, and compares what came of each.
func (w *world) run(t *rapid.T, steps []step) {
	for i := range steps {
		w.read(t, &steps[i])
	}
	var replies [2][]engine.Outcome
	for i, r := range []*room{w.together, w.oneByOne} {
		n := len(steps)
		if r == w.oneByOne {
			n = 1
		}
		for part := range slices.Chunk(steps, n) {
			ops := make([]*engine.Op, len(part))
			for j := range part {
				ops[j] = part[j].op(r.e)
			}
			replies[i] = append(replies[i], r.e.SendAt(1, w.at, ops...)...)
		}
	}
	for i := range steps {
		a, b := describeOutcome(&replies[0][i]), describeOutcome(&replies[1][i])
		outcome, _, _ := strings.Cut(a, ":")
		w.met[steps[i].Kind+": "+outcome]++
		if o := &replies[0][i]; o.Err == nil && !o.Replayed && o.RefID == steps[i].ID && o.Order.ID != 0 {
			w.orders = append(w.orders, o.RefID)
		}
		if a != b {
			t.Fatalf("operation %d, %+v:\ntogether:   %s\none by one: %s", i, steps[i], a, b)
		}
	}
}

func describeOutcome(o *engine.Outcome) string {
	var refusal *engine.Refusal
	switch {
	case errors.As(o.Err, &refusal):
		return fmt.Sprintf("%v: product %d, left %d, balance %d, status %v",
			refusal.Reason, refusal.ProductID, refusal.Left, refusal.Balance, refusal.Status)
	case o.Err != nil:
		return o.Err.Error()
	case o.Replayed:
		return fmt.Sprintf("replay: of %d, %v, after %d, answer %q", o.RefID, o.Status, o.After, o.Answer)
	}
	status := ""
	if o.Status != 0 {
		status = " " + o.Status.String()
	}
	return fmt.Sprintf("done%s: %d, after %d, order %+v, cart %v, answer %q", status, o.RefID, o.After, o.Order, o.Cart, o.Answer)
}

// letGo drops the orders that have ended, as a writer does; the books then hold them.
func (w *world) letGo(t *rapid.T) {
	ctx := context.Background()
	v, err := w.together.e.Look(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ended []engine.Ended
	for _, id := range w.orders {
		if o, found := w.stored(t, id); found && o.Status != engine.Pending {
			ended = append(ended, engine.Ended{OrderID: id, Status: o.Status})
			w.archive[id] = o
		}
	}
	for _, r := range []*room{w.together, w.oneByOne} {
		if done, err := r.e.LetGo(ctx, 0, 1, engine.Mark{Position: v.Position, Events: v.Events()}, ended); err != nil || !done {
			t.Fatalf("letting go: %t, %v", done, err)
		}
	}
}

// stored is an order as Redis has it.
func (w *world) stored(t *rapid.T, id int64) (engine.Order, bool) {
	record, err := w.together.redis.Get(context.Background(), w.together.e.Keys().Order(0, id)).Result()
	if errors.Is(err, redis.Nil) {
		return engine.Order{}, false
	}
	if err != nil {
		t.Fatal(err)
	}
	o, err := engine.DecodeOrder(id, record)
	if err != nil {
		t.Fatal(err)
	}
	return o, true
}

// content is what a database holds and what it wrote, in a form that does not say how many calls it took.
func content(t rapid.TB, r *room) (keys map[string]string, events string) {
	t.Helper()
	ctx := context.Background()
	keys = dump(t, r.redis)
	entries := entriesOf(t, r)
	for i := range entries {
		events += string(entries[i].Payload)
	}
	delete(keys, r.e.Keys().Events(0))
	meta, err := r.redis.HGetAll(ctx, r.e.Keys().Meta(0)).Result()
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := strconv.Atoi(meta["bytes"])
	if err != nil {
		t.Fatal(err)
	}
	meta["bytes"] = strconv.Itoa(bytes - 96*len(entries)) // as lua/door.lua counts them
	keys[r.e.Keys().Meta(0)] = fmt.Sprint(meta)
	return keys, events
}

func entriesOf(t rapid.TB, r *room) []engine.Entry {
	t.Helper()
	messages, err := r.redis.XRange(context.Background(), r.e.Keys().Events(0), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return parseEntries(t, messages, engine.Position{Epoch: 1})
}

func (w *world) compare(t *rapid.T) {
	keys, events := content(t, w.together)
	otherKeys, otherEvents := content(t, w.oneByOne)
	if d := differences(keys, otherKeys); d != "" {
		t.Fatalf("the states differ, together and one by one:\n%s", d)
	}
	if events != otherEvents {
		t.Fatalf("the events differ:\ntogether:\n%q\none by one:\n%q", events, otherEvents)
	}
}

// replay builds a third database from the events, in some steps, and compares it with the first. With letGo it leaves out
// what has ended, as if Redis had let it go.
func (w *world) replay(t *rapid.T, steps int, letGo bool) {
	ctx := context.Background()
	if letGo {
		w.letGo(t)
	}
	entries := entriesOf(t, w.together)
	e, k := w.replayed.e, w.replayed.e.Keys()
	e.SetClockOffset(time.Until(w.at))
	if err := w.replayed.redis.HSet(ctx, k.Meta(0), "open", 0, "epoch", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if claimed, err := e.ClaimDoor(ctx, 0, "repair", ""); err != nil || !claimed {
		t.Fatalf("claiming the door: %t, %v", claimed, err)
	}
	at := engine.Position{}
	for part := range slices.Chunk(entries, max(1, (len(entries)+steps-1)/steps)) {
		last := part[len(part)-1].Last
		var mark *engine.Mark
		if letGo {
			mark = &engine.Mark{Position: last, Events: last.Seq}
		}
		if done, err := e.Replay(ctx, 0, "repair", at, part, 0, mark); err != nil || !done {
			t.Fatalf("replay from %v: %t, %v", at, done, err)
		}
		at = last
	}
	v, err := e.Look(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := e.MoveDoor(ctx, 0, "repair", v, max(v.Epoch, 1), 0, true, time.Time{}); err != nil || !done {
		t.Fatalf("opening: %t, %v", done, err)
	}
	for _, r := range []*room{w.together, w.replayed} {
		if _, err := r.e.RollAt(1, w.at, 0, sequenceStart.Unix()/60-5000, 4000, nil); err != nil {
			t.Fatal(err)
		}
	}
	was, is := w.comparable(t, w.together), w.comparable(t, w.replayed)
	if letGo {
		v, err := w.together.e.Look(ctx, 0)
		if now, nowErr := e.Look(ctx, 0); err != nil || nowErr != nil || now.LetGo != v.LetGo {
			t.Fatalf("let go up to %+v, want %+v (%v, %v)", now.LetGo, v.LetGo, err, nowErr)
		}
	}
	for id, o := range w.archive { // a replay brings back what was let go
		key := k.Order(0, id)
		if letGo {
			break
		}
		if _, there := was[key]; there {
			continue
		}
		if got, err := engine.DecodeOrder(id, is[key]); err != nil || !got.Equal(&o) {
			t.Fatalf("order %d: %+v, %v, want %+v", id, got, err, o)
		}
		delete(is, key)
	}
	if d := differences(was, is); d != "" {
		t.Fatalf("the replay of the events differs:\n%s", d)
	}
}

// comparable is what a database holds beside what events do not say: catalogue, door, and that a count of 0 was once more.
func (w *world) comparable(t *rapid.T, r *room) map[string]string {
	all := dump(t, r.redis)
	for key, value := range all {
		_, name, _ := strings.Cut(key, "}")
		switch {
		case name == "meta", name == "events", name == "listed", strings.HasPrefix(name, "c:"):
			delete(all, key)
		case (strings.HasPrefix(name, "b:") || strings.HasPrefix(name, "s:")) && value == "0":
			delete(all, key)
		case strings.HasPrefix(name, "m:"):
			sold, err := r.redis.HGetAll(context.Background(), key).Result()
			if err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(sold, func(_, units string) bool { return units == "0" })
			if all[key] = fmt.Sprint(sold); len(sold) == 0 {
				delete(all, key)
			}
		}
	}
	return all
}

// testSequence runs operations of some kinds; of those in must, every outcome there is has to be met.
func testSequence(t *testing.T, must []string, others ...string) {
	kinds := slices.Concat(must, others)
	l := lab.open(t)
	c := engine.Config{Hold: sequenceHold, RefundWindow: sequenceRefund, IdempotencyTTL: 10_000 * time.Hour}
	w := &world{together: l.room(t, 0, c), oneByOne: l.room(t, 1, c), replayed: l.room(t, 2, c), met: map[string]int{}}
	rapid.Check(t, func(t *rapid.T) {
		w.begin(t, genShape().Draw(t, "shape"))
		earlier := map[string][]step{}
		for range rapid.SampledFrom([]int{2, 3 * len(kinds), 5 * len(kinds)}).Draw(t, "runs") {
			turn := rapid.SampledFrom([]time.Duration{0, 0, 0, 0, 0, 0, 0, 0, time.Millisecond, time.Millisecond, 61 * time.Second, sequenceHold - time.Millisecond, sequenceHold, sequenceRefund, 72*time.Hour - time.Minute})
			w.at = w.at.Add(turn.Draw(t, "turn"))
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			if kind == "let go" {
				w.letGo(t)
				continue
			}
			behind := rapid.IntRange(0, 4).Draw(t, "behind") == 4
			var run []step
			for range rapid.SampledFrom([]int{2, 5, 12, 25}).Draw(t, "steps") {
				st := w.genStep(kind).Draw(t, "step")
				if before := earlier[kind]; len(before) > 0 && rapid.IntRange(0, 3).Draw(t, "again") == 3 {
					st = rapid.SampledFrom(before).Draw(t, "earlier step")
				}
				st.ID, st.Behind = w.nextID, behind
				w.nextID++
				earlier[kind] = append(earlier[kind], st)
				run = append(run, st)
			}
			w.run(t, run)
		}
		w.compare(t)
		w.replay(t, rapid.IntRange(1, 3).Draw(t, "parts of the replay"), rapid.Bool().Draw(t, "without what has ended"))
	})
	t.Logf("met: %v", w.met)
	for _, kind := range must {
		wantMet(t, w.met, outcomes[kind])
	}
}

func TestCall_OfNOrdersEqualsNCalls(t *testing.T)   { testSequence(t, []string{"place"}) }
func TestCall_OfNChargesEqualsNCalls(t *testing.T)  { testSequence(t, []string{"charge"}) }
func TestCall_OfNRestocksEqualsNCalls(t *testing.T) { testSequence(t, []string{"restock"}) }

func TestCall_OfNHeldOrdersEqualsNCalls(t *testing.T) {
	testSequence(t, []string{"reserve", "pay", "expire"}, "pay")
}

func TestCall_OfNCancelsEqualsNCalls(t *testing.T) {
	testSequence(t, []string{"cancel"}, "place", "reserve", "pay", "let go", "cancel")
}

func TestCall_OfNChangesOfCartsEqualsNCalls(t *testing.T) {
	testSequence(t, []string{"cart", "keyed cart"}, "place", "reserve")
}

func TestCall_OfNOfAnyKindEqualsNCalls(t *testing.T) {
	testSequence(t, nil, "place", "reserve", "pay", "cancel", "expire", "cart", "keyed cart", "charge", "restock", "let go")
}
