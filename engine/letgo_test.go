package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"stampede/engine"
)

// books are a stub of Postgres: they learn from the stream when they are told to, and never by themselves.
type books struct {
	r *room

	mu     sync.Mutex
	orders map[int64]engine.Order
	at     engine.Mark
	reads  atomic.Int64
	// late runs once, between a reader's look into the books and its return.
	late func()
	down atomic.Bool
}

func (b *books) archive(_ context.Context, id int64) (engine.Archived, error) {
	b.reads.Add(1)
	if b.down.Load() {
		return engine.Archived{}, fmt.Errorf("%w: Postgres is down", engine.ErrUnavailable)
	}
	b.mu.Lock()
	found, known := b.orders[id]
	events, late := b.at.Events, b.late
	b.late = nil
	b.mu.Unlock()
	if late != nil {
		late()
	}
	if !known {
		return engine.Archived{}, engine.ErrOrderNotFound
	}
	return engine.Archived{Order: found, Events: events}, nil
}

// write learns everything that the room's partition 0 wrote.
func (b *books) write(t testing.TB) {
	t.Helper()
	entries := entriesOf(t, b.r)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range eventsOf(t, entries) {
		if ev.Kind == engine.Ordered || ev.Kind == engine.Stepped {
			b.orders[ev.RefID] = ev.Order
		}
	}
	last := entries[len(entries)-1].Last
	b.at = engine.Mark{Position: last, Events: last.Seq}
}

// letGo has Redis let go what the books hold.
func (b *books) letGo(t testing.TB) {
	t.Helper()
	b.mu.Lock()
	var ended []engine.Ended
	for id, o := range b.orders {
		ended = append(ended, engine.Ended{OrderID: id, Status: o.Status})
	}
	mark := b.at
	b.mu.Unlock()
	if done, err := b.r.e.LetGo(context.Background(), 0, 1, mark, ended); err != nil || !done {
		t.Errorf("letting go: %t, %v", done, err)
	}
}

const (
	letGoFunds = 100_000
	letGoStock = 10_000
)

// letGoRoom is a room with books, a rich user and a product of price 7.
func letGoRoom(t *testing.T) (*books, *engine.Engine) {
	t.Helper()
	b := &books{orders: map[int64]engine.Order{}}
	b.r = lab.open(t).room(t, 0, engine.Config{Archive: b.archive})
	b.r.fund(t, letGoFunds, letGoFunds)
	b.r.stock(t, listing(1, 7, letGoStock))
	return b, b.r.run(t)
}

func (b *books) further(t *testing.T) *engine.Engine {
	t.Helper()
	e := lab.engine(t, 0, engine.Config{Archive: b.archive})
	e.Start()
	awaitReady(t, e)
	return e
}

func (b *books) held(id int64) bool {
	return b.r.redis.Exists(context.Background(), b.r.e.Keys().Order(0, id)).Val() == 1
}

func cancelOf(id int64, key string) engine.CancelRequest {
	return engine.CancelRequest{OrderID: id, UserID: 1, Key: key}
}

func TestLetGo_OrderIsReadAndReplayedFromTheBooks(t *testing.T) {
	b, e := letGoRoom(t)
	ctx := context.Background()
	order := mustPlace(t, e, 1, "key", lines(1, 2))
	b.write(t)
	b.letGo(t)
	if b.held(order.ID) {
		t.Fatal("Redis still has it")
	}
	for _, user := range []int64{1, 0} {
		if got, err := e.Order(ctx, order.ID, user); err != nil || describe(got) != describe(order) {
			t.Errorf("read for user %d: %s, %v", user, describe(got), err)
		}
	}
	_, err := e.Order(ctx, order.ID, 2)
	wantErr(t, "order of another", err, engine.ErrOrderNotFound)
	again, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: 1, Key: "key", Lines: lines(1, 2)})
	if err != nil || !replayed || describe(again) != describe(order) {
		t.Errorf("replay: %s, %t, %v", describe(again), replayed, err)
	}
	_, _, err = e.Pay(ctx, engine.PayRequest{UserID: 1, OrderID: order.ID, Key: "pay"})
	wantRefusal(t, "payment", err, engine.Refusal{Reason: engine.ErrNotPayable, Status: engine.Success})
	_, _, err = e.Pay(ctx, engine.PayRequest{UserID: 2, OrderID: order.ID, Key: "pay"})
	wantErr(t, "payment by another", err, engine.ErrOrderNotFound)
	_, _, err = e.Cancel(ctx, engine.CancelRequest{OrderID: order.ID, UserID: 2, Key: "cancel"})
	wantErr(t, "refund to another", err, engine.ErrOrderNotFound)

	refunded, replayed, err := e.Cancel(ctx, cancelOf(order.ID, "cancel"))
	if err != nil || replayed || refunded.Status != engine.Refunded || len(refunded.History) != 3 || !b.held(order.ID) {
		t.Fatalf("refund: %s, %t, %v", describe(refunded), replayed, err)
	}
	wantBalance(t, e, 1, letGoFunds)
	wantStock(t, e, 1, letGoStock)
	b.write(t)
	b.letGo(t)
	if b.held(order.ID) {
		t.Error("Redis still has what was refunded")
	}
	again, replayed, err = e.Cancel(ctx, cancelOf(order.ID, "cancel"))
	if err != nil || !replayed || describe(again) != describe(refunded) {
		t.Errorf("replay of the refund: %s, %t, %v", describe(again), replayed, err)
	}
	// The placement's answer stays what it was.
	again, replayed, err = e.Place(ctx, engine.PlaceRequest{UserID: 1, Key: "key", Lines: lines(1, 2)})
	if err != nil || !replayed || describe(again) != describe(order) {
		t.Errorf("replay: %s, %t, %v", describe(again), replayed, err)
	}
	_, _, err = e.Cancel(ctx, cancelOf(order.ID, "another"))
	wantRefusal(t, "second refund", err, engine.Refusal{Reason: engine.ErrNotCancelable, Status: engine.Refunded})
	wantBalance(t, e, 1, letGoFunds)
}

func TestLetGo_KeepsWhatIsUnpaidOrHasTakenAStepSince(t *testing.T) {
	b, e := letGoRoom(t)
	ctx := context.Background()
	unpaid, _, err := e.Place(ctx, engine.PlaceRequest{UserID: 1, Lines: lines(1, 1), Later: true, Key: "later"})
	if err != nil {
		t.Fatal(err)
	}
	paid, refunded := mustPlace(t, e, 1, "paid", lines(1, 1)), mustPlace(t, e, 1, "refunded", lines(1, 1))
	b.write(t)
	if _, _, err := e.Cancel(ctx, cancelOf(refunded.ID, "refund")); err != nil {
		t.Fatal(err)
	}
	v := look(t, e, 0)
	ended := []engine.Ended{{OrderID: paid.ID, Status: engine.Success}}
	for what, call := range map[string]struct {
		fence int64
		mark  engine.Mark
	}{
		"another epoch":           {2, b.at},
		"more events than it has": {1, engine.Mark{Position: v.Position, Events: v.Events() + 1}},
	} {
		if done, err := e.LetGo(ctx, 0, call.fence, call.mark, ended); err != nil || done {
			t.Errorf("%s: %t, %v", what, done, err)
		}
	}
	if now := look(t, e, 0); now.LetGo != (engine.Mark{}) || !b.held(paid.ID) {
		t.Errorf("a refused wish changed %+v", now.LetGo)
	}
	b.letGo(t)
	for id, want := range map[int64]bool{unpaid.ID: true, paid.ID: false, refunded.ID: true} {
		if b.held(id) != want {
			t.Errorf("order %d held %t, want %t", id, !want, want)
		}
	}
	// A writer that wakes up late does not move the mark back.
	earlier := engine.Mark{Position: engine.Position{Epoch: 1, Seq: 1}, Events: 1}
	if done, err := e.LetGo(ctx, 0, 1, earlier, nil); err != nil || !done {
		t.Errorf("an earlier mark: %t, %v", done, err)
	}
	if now := look(t, e, 0); now.LetGo != b.at {
		t.Errorf("the mark is %+v, want %+v", now.LetGo, b.at)
	}
}

// Engine A reads the books; before its call arrives B refunds the order, and Redis lets it go again. A's record says
// that it is paid, and nothing in Redis says otherwise: but the books were read too early.
func TestRefund_FromBooksReadTooEarlyIsJudgedAnew(t *testing.T) {
	for _, again := range []bool{true, false} {
		t.Run(fmt.Sprint("let go again ", again), func(t *testing.T) {
			b, e := letGoRoom(t)
			other, ctx := b.further(t), context.Background()
			order := mustPlace(t, e, 1, "key", lines(1, 3))
			b.write(t)
			b.letGo(t)
			b.late = func() {
				if _, _, err := other.Cancel(ctx, cancelOf(order.ID, "of B")); err != nil {
					t.Error(err)
				}
				b.write(t)
				if again {
					b.letGo(t)
				}
			}
			_, _, err := e.Cancel(ctx, cancelOf(order.ID, "of A"))
			wantRefusal(t, "second refund", err, engine.Refusal{Reason: engine.ErrNotCancelable, Status: engine.Refunded})
			wantBalance(t, e, 1, letGoFunds)
			wantStock(t, e, 1, letGoStock)
			if reads := b.reads.Load(); again != (reads == 3) { // A, B, and A again
				t.Errorf("the books were read %d times", reads)
			}
			if b.held(order.ID) == again {
				t.Errorf("order held: %t", !again)
			}
		})
	}
}

// Books that stay behind what Redis let go (a restored backup, say) refund nothing.
func TestRefund_FromBooksThatStayBehindIsUnavailable(t *testing.T) {
	b, e := letGoRoom(t)
	order := mustPlace(t, e, 1, "key", lines(1, 3))
	b.write(t)
	b.letGo(t)
	b.at.Events--
	from := position(t, e, 0)
	_, _, err := e.Cancel(context.Background(), cancelOf(order.ID, "cancel"))
	wantErr(t, "refund from books that are behind", err, engine.ErrUnavailable)
	if now := position(t, e, 0); now != from || b.held(order.ID) {
		t.Errorf("events moved from %v to %v, order held %t", from, now, b.held(order.ID))
	}
	wantBalance(t, e, 1, letGoFunds-21)
	b.at.Events++
	if _, replayed, err := e.Cancel(context.Background(), cancelOf(order.ID, "cancel")); err != nil || replayed {
		t.Errorf("once they have caught up: replayed %t, %v", replayed, err)
	}
	wantBalance(t, e, 1, letGoFunds)
}

// Two processes refund the same orders while Redis lets them go as fast as it can.
func TestRefund_RacedWhileOrdersAreLetGoHappensOnce(t *testing.T) {
	const orders, tries = 150, 4
	b, e := letGoRoom(t)
	engines := []*engine.Engine{e, b.further(t)}
	ctx := context.Background()
	ids := make([]int64, orders)
	for i := range ids {
		ids[i] = mustPlace(t, e, 1, fmt.Sprint("order ", i), lines(1, 1)).ID
	}
	b.write(t)
	b.letGo(t)
	stop := make(chan struct{})
	var writer, group sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				b.write(t)
				b.letGo(t)
			}
		}
	})
	refunds := make([]atomic.Int64, orders)
	gate := make(chan struct{}, 32)
	for i, id := range ids {
		for try := range tries {
			group.Go(func() {
				gate <- struct{}{}
				defer func() { <-gate }()
				_, replayed, err := engines[try%2].Cancel(ctx, cancelOf(id, fmt.Sprintf("%d, try %d", i, try)))
				var refusal *engine.Refusal
				switch {
				case err == nil && !replayed:
					refunds[i].Add(1)
				case errors.As(err, &refusal) && errors.Is(refusal.Reason, engine.ErrNotCancelable) && refusal.Status == engine.Refunded:
				case errors.Is(err, engine.ErrUnavailable): // the order moved too often: not done
				default:
					t.Errorf("refund: replayed %t, %v", replayed, err)
				}
			})
		}
	}
	group.Wait()
	close(stop)
	writer.Wait()
	for i, id := range ids {
		if _, _, err := e.Cancel(ctx, cancelOf(id, fmt.Sprint("last of ", i))); err == nil {
			refunds[i].Add(1)
		}
		if n := refunds[i].Load(); n != 1 {
			t.Errorf("order %d was refunded %d times", id, n)
		}
	}
	wantBalance(t, e, 1, letGoFunds)
	wantStock(t, e, 1, letGoStock)
}

// A buyer cancels while the payment is on its way: either comes first, and both answers say so.
func TestCancel_WhileTheOrderIsPaidHasOneOutcome(t *testing.T) {
	const orders = 200
	b, e := letGoRoom(t)
	other, ctx := b.further(t), context.Background()
	// Deterministically first: read unpaid, paid, then canceled.
	held, _, err := e.Place(ctx, engine.PlaceRequest{UserID: 1, Lines: lines(1, 1), Later: true, Key: "held"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.Pay(ctx, engine.PayRequest{UserID: 1, OrderID: held.ID, Key: "pay"}); err != nil {
		t.Fatal(err)
	}
	stale := e.Send(1, e.CancelOp(cancelOf(held.ID, "cancel"), held, nil))[0]
	wantErr(t, "an order that was paid after it was read", stale.Err, engine.ErrOrderChanged)
	refunded, _, err := e.Cancel(ctx, cancelOf(held.ID, "cancel"))
	if err != nil || refunded.Status != engine.Refunded {
		t.Errorf("read again: %s, %v", describe(refunded), err)
	}

	var group sync.WaitGroup
	outcomes := make([]string, orders)
	for i := range orders {
		group.Go(func() {
			o, _, err := e.Place(ctx, engine.PlaceRequest{UserID: 1, Lines: lines(1, 1), Later: true, Key: fmt.Sprint("held ", i)})
			if err != nil {
				t.Error(err)
				return
			}
			var both sync.WaitGroup
			var paid, canceled engine.Order
			var payErr, cancelErr error
			both.Go(func() {
				paid, _, payErr = e.Pay(ctx, engine.PayRequest{UserID: 1, OrderID: o.ID, Key: fmt.Sprint("pay ", i)})
			})
			both.Go(func() { canceled, _, cancelErr = other.Cancel(ctx, cancelOf(o.ID, fmt.Sprint("cancel ", i))) })
			both.Wait()
			switch {
			case cancelErr == nil && canceled.Status == engine.Canceled && errors.Is(payErr, engine.ErrNotPayable):
				outcomes[i] = "canceled"
			case cancelErr == nil && canceled.Status == engine.Refunded && payErr == nil && paid.Status == engine.Success:
				outcomes[i] = "refunded"
			default:
				t.Errorf("paid %v, canceled %v", payErr, cancelErr)
			}
		})
	}
	group.Wait()
	met := map[string]int{}
	for _, o := range outcomes {
		met[o]++
	}
	t.Logf("%v", met)
	wantBalance(t, e, 1, letGoFunds)
	wantStock(t, e, 1, letGoStock)
}
