package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/engine"
)

// spreadRoom is a room of several partitions with a buyer in each, who can pay for anything.
type spreadRoom struct {
	*room
	buyers []int64 // by partition
}

func newSpreadRoom(t *testing.T, partitions int, c engine.Config) *spreadRoom {
	t.Helper()
	c.Partitions = partitions
	r := &spreadRoom{room: lab.open(t).room(t, 3, c), buyers: make([]int64, partitions)}
	r.run(t)
	for user, found := int64(1), 0; found < partitions; user++ {
		p := r.e.Keys().OfUser(user)
		if r.buyers[p] != 0 {
			continue
		}
		r.buyers[p] = user
		found++
		if err := r.e.EnrollBehind(p, 1, []int64{user}); err != nil {
			t.Fatal(err)
		}
		op := r.e.ChargeOp(engine.ChargeRequest{UserID: user, Amount: 1_000_000_000, Key: "funds"})
		op.SetID(user)
		r.send(t, op)
	}
	return r
}

// put lists a product whose units all lie in one partition, whatever its home is.
func (r *spreadRoom) put(t *testing.T, product, units int64, partition int) {
	t.Helper()
	r.stock(t, listing(product, 1, units))
	home := r.e.Keys().Home(product)
	if partition == home || units == 0 {
		return
	}
	moved, _, err := r.e.Lend(t.Context(), product, home, partition, units)
	if err != nil {
		t.Fatal(err)
	}
	at, err := r.e.Arrive(t.Context(), moved)
	if err == nil {
		err = r.e.Settle(t.Context(), moved, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantSupply makes sure that shares and what is on its way between them add up.
func (r *spreadRoom) wantSupply(t *testing.T, product, want int64) {
	t.Helper()
	shares, onItsWay, err := r.e.Shares(t.Context(), product)
	if err != nil {
		t.Fatal(err)
	}
	sum := onItsWay
	for _, units := range shares {
		if sum += units; units < 0 {
			t.Errorf("product %d has shares %v", product, shares)
		}
	}
	if sum != want {
		t.Errorf("product %d has shares %v and %d on its way, %d in all, want %d", product, shares, onItsWay, sum, want)
	}
}

func (r *spreadRoom) buy(ctx context.Context, partition int, key string, product, quantity int64) error {
	_, _, err := r.e.Place(ctx, engine.PlaceRequest{UserID: r.buyers[partition], Key: key, Lines: lines(product, quantity)})
	return err
}

// Wherever the last unit lies, one of the buyers who want it gets it, and the others hear that it is gone.
func TestSupply_TheLastUnitGoesToExactlyOne(t *testing.T) {
	const partitions = 4
	r := newSpreadRoom(t, partitions, engine.Config{Durable: slow(10 * time.Millisecond)})
	product := int64(0)
	for at := range partitions {
		for _, crowd := range []int{1, 3, 40} {
			product++
			r.put(t, product, 1, at)
			var sold, gone atomic.Int64
			var group sync.WaitGroup
			for b := range crowd {
				group.Go(func() {
					err := r.buy(t.Context(), (at+1+b)%partitions, fmt.Sprintf("%d by %d", product, b), product, 1)
					var refusal *engine.Refusal
					switch {
					case err == nil:
						sold.Add(1)
					case errors.As(err, &refusal) && errors.Is(err, engine.ErrOutOfStock) && refusal.Left == 0:
						gone.Add(1)
					default:
						t.Errorf("a unit in partition %d, %d buyers: %v", at, crowd, err)
					}
				})
			}
			group.Wait()
			if sold.Load() != 1 || gone.Load() != int64(crowd)-1 {
				t.Errorf("a unit in partition %d: of %d buyers %d got it, %d were refused", at, crowd, sold.Load(), gone.Load())
			}
			r.wantSupply(t, product, 0)
		}
	}
}

// slow is a journal that takes its time.
func slow(d time.Duration) func(context.Context, int, engine.Position) error {
	return func(context.Context, int, engine.Position) error {
		time.Sleep(d)
		return nil
	}
}

func TestSupply_OneLineTakesUnitsOfManyShares(t *testing.T) {
	const partitions = 4
	r := newSpreadRoom(t, partitions, engine.Config{})
	for p := range partitions {
		product := int64(p + 1)
		product0 := engine.Product{ID: product, Name: "Thing", Price: 1, Version: 1, CreatedAt: time.Now()}
		if err := r.e.List(t.Context(), product0, 43); err != nil { // 10 each, 13 at home
			t.Fatal(err)
		}
		wantErr(t, "more than there is", r.buy(t.Context(), p, fmt.Sprint("44 of ", product), product, 44), engine.ErrOutOfStock)
		if err := r.buy(t.Context(), p, fmt.Sprint("all of ", product), product, 43); err != nil {
			t.Errorf("all units for partition %d: %v", p, err)
		}
		wantErr(t, "one more", r.buy(t.Context(), p, fmt.Sprint("1 of ", product), product, 1), engine.ErrOutOfStock)
		r.wantSupply(t, product, 0)
	}
}

// An order takes several lines, each of which may lie elsewhere, or none of them.
func TestSupply_AllLinesOrNone(t *testing.T) {
	const partitions = 4
	r := newSpreadRoom(t, partitions, engine.Config{})
	r.put(t, 1, 5, 1)
	r.put(t, 2, 5, 2)
	r.put(t, 3, 5, 3)
	order := func(key string, flat ...int64) error {
		_, _, err := r.e.Place(t.Context(), engine.PlaceRequest{UserID: r.buyers[0], Key: key, Lines: lines(flat...), Later: key == "later"})
		return err
	}
	if err := order("now", 1, 2, 2, 2, 3, 2); err != nil {
		t.Error(err)
	}
	if err := order("later", 1, 1, 2, 1, 3, 1); err != nil {
		t.Error(err)
	}
	wantErr(t, "one line too large", order("too much", 1, 1, 2, 1, 3, 3), engine.ErrOutOfStock)
	for product := range int64(3) {
		r.wantSupply(t, product+1, 2)
	}
	placed := r.e.PlaceEach(t.Context(), []engine.PlaceRequest{
		{UserID: r.buyers[0], Key: "each 1", Lines: lines(1, 1)},
		{UserID: r.buyers[1], Key: "each 2", Lines: lines(2, 2)},
		{UserID: r.buyers[2], Key: "each 3", Lines: lines(1, 1, 3, 2)},
		{UserID: r.buyers[3], Key: "each 4", Lines: lines(1, 1)},
	})
	sold := int64(0)
	for i, p := range placed {
		switch {
		case p.Err == nil:
			for _, item := range p.Order.Items {
				if item.ProductID == 1 {
					sold += item.Quantity
				}
			}
		case !errors.Is(p.Err, engine.ErrOutOfStock):
			t.Errorf("order %d of a batch: %v", i, p.Err)
		}
	}
	if sold != 2 {
		t.Errorf("a batch bought %d of 2 units", sold)
	}
	r.wantSupply(t, 1, 0)
}

func TestSupply_WriteOffTakesWhatLiesElsewhere(t *testing.T) {
	const partitions = 4
	r := newSpreadRoom(t, partitions, engine.Config{})
	for at := range partitions {
		product := int64(at + 1)
		r.put(t, product, 10, at)
		change := func(key string, delta int64) (int64, error) {
			stock, _, err := r.e.Restock(t.Context(), engine.RestockRequest{ProductID: product, Delta: delta, Key: fmt.Sprintf("%s of %d", key, product)})
			return stock, err
		}
		var refusal *engine.Refusal
		if _, err := change("too much", -11); !errors.As(err, &refusal) || !errors.Is(err, engine.ErrOutOfStock) || refusal.Left != 10 {
			t.Errorf("a write-off of 11 of 10: %v", err)
		}
		if stock, err := change("off", -7); err != nil || stock != 3 {
			t.Errorf("a write-off: %d left, %v", stock, err)
		}
		if stock, err := change("on", 9); err != nil || stock != 12 {
			t.Errorf("a restock: %d, %v", stock, err)
		}
		r.wantSupply(t, product, 12)
		if _, err := change("beyond", engine.StockMax-11); !errors.Is(err, engine.ErrStockLimit) {
			t.Errorf("a restock beyond the limit, of all shares together: %v", err)
		}
	}
}

// Units that are held, given back and moved all the time are never less than one in all: nobody may hear that they are gone.
func TestSupply_NobodyIsToldThatItIsGoneWhileItMoves(t *testing.T) {
	const partitions, buyers, rounds = 4, 6, 20
	r := newSpreadRoom(t, partitions, engine.Config{Durable: slow(time.Millisecond)})
	r.put(t, 1, buyers, 2) // one for each
	var group sync.WaitGroup
	for b := range buyers {
		group.Go(func() {
			for i := range rounds {
				key := fmt.Sprintf("%d of %d", i, b)
				order, _, err := r.e.Place(t.Context(), engine.PlaceRequest{UserID: r.buyers[(b+i)%partitions], Key: key, Lines: lines(1, 1), Later: true})
				if err != nil {
					t.Errorf("%s: %v", key, err)
					continue
				}
				if _, _, err := r.e.Cancel(t.Context(), engine.CancelRequest{OrderID: order.ID, UserID: order.UserID, Key: key + " back"}); err != nil {
					t.Errorf("%s back: %v", key, err)
				}
			}
		})
	}
	group.Wait()
	r.wantSupply(t, 1, buyers)
}

// Two processes sell to buyers in all partitions, who all want the same few products together: one after the other gets all of
// its lines, none takes another's from under it.
func TestSupply_OrdersOfManyLinesDoNotStarveEachOther(t *testing.T) {
	const partitions, orders, each = 4, 24, 12
	r := newSpreadRoom(t, partitions, engine.Config{Durable: slow(2 * time.Millisecond), OperationTimeout: patience})
	other := lab.open(t).engine(t, 3, engine.Config{Partitions: partitions, Durable: slow(2 * time.Millisecond), OperationTimeout: patience})
	other.Start()
	awaitReady(t, other)
	for product := int64(1); product <= 3; product++ {
		r.put(t, product, each, int(product)%partitions)
	}
	var sold, gone atomic.Int64
	var group sync.WaitGroup
	for n := range orders {
		e := []*engine.Engine{r.e, other}[n%2]
		group.Go(func() {
			_, _, err := e.Place(t.Context(), engine.PlaceRequest{
				UserID: r.buyers[(n/2)%partitions], Key: fmt.Sprint("many ", n), Lines: lines(1+int64(n)%3, 1, 1+int64(n+1)%3, 1, 1+int64(n+2)%3, 1),
			})
			switch {
			case err == nil:
				sold.Add(1)
			case errors.Is(err, engine.ErrOutOfStock):
				gone.Add(1)
			default:
				t.Errorf("order %d: %v", n, err)
			}
		})
	}
	group.Wait()
	if sold.Load() != each || gone.Load() != orders-each {
		t.Errorf("%d orders got all of their lines, %d were refused, want %d and %d", sold.Load(), gone.Load(), each, orders-each)
	}
	for product := int64(1); product <= 3; product++ {
		r.wantSupply(t, product, 0)
	}
	await(t, "nobody says any more that he waits", func() bool {
		for product := int64(1); product <= 3; product++ {
			if n, err := r.redis.Exists(t.Context(), r.e.Keys().Wanted(r.e.Keys().Home(product), product)).Result(); err != nil || n > 0 {
				return false
			}
		}
		return true
	})
}

// What a process told of its waiting orders does not stand longer than they wait, also where nobody had time to take it back.
func TestSupply_ClaimsEndWithTheWait(t *testing.T) {
	r := newSpreadRoom(t, 4, engine.Config{})
	home := r.e.Keys().Home(1)
	r.put(t, 1, 1, home)
	release := r.e.HoldMovers()
	defer release()
	wantErr(t, "more than there is", r.buy(t.Context(), (home+1)%4, "two", 1, 2), engine.ErrOutOfStock)
	told := func() int64 { return r.redis.Exists(t.Context(), r.e.Keys().Wanted(home, 1)).Val() }
	if told() == 0 {
		t.Fatal("the order told nobody what it waits for")
	}
	release()
	await(t, "nobody says any more that he waits", func() bool { return told() == 0 })
}

// What nobody can prove is not refused as sold out: the units are on their way, and the journal hangs.
func TestSupply_UnprovenIsNoRefusal(t *testing.T) {
	var hangs atomic.Bool
	r := newSpreadRoom(t, 4, engine.Config{Durable: func(ctx context.Context, _ int, _ engine.Position) error {
		if !hangs.Load() {
			return nil
		}
		<-ctx.Done()
		return fmt.Errorf("%w: the journal hangs", engine.ErrUnavailable)
	}})
	home := r.e.Keys().Home(1)
	buyer := (home + 1) % 4
	r.put(t, 1, 3, home)
	hangs.Store(true)
	start := time.Now()
	wantErr(t, "while the journal hangs", r.buy(t.Context(), buyer, "first", 1, 1), engine.ErrElsewhere)
	if took := time.Since(start); took < time.Second || took > 4*time.Second {
		t.Errorf("it was waited for %v", took)
	}
	r.wantSupply(t, 1, 3)
	hangs.Store(false)
	if err := r.buy(t.Context(), buyer, "first", 1, 3); err != nil {
		t.Errorf("once it goes on: %v", err)
	}
}

// Whoever carries out a transfer may die after any step, and others may repeat any of them, late: the units come once.
func TestTransfer_LeftAtAnyStepEndsOnce(t *testing.T) {
	r := newSpreadRoom(t, 4, engine.Config{})
	type left struct {
		product  int64
		from, to int
		transfer engine.Transfer
		credited engine.Position
	}
	var all []left
	for steps := range 4 {
		for _, outward := range []bool{true, false} {
			l := left{product: int64(len(all) + 1)}
			l.from = r.e.Keys().Home(l.product)
			l.to = (l.from + 1) % 4
			if !outward {
				l.from, l.to = l.to, l.from
			}
			r.put(t, l.product, 10, l.from)
			l.transfer, l.credited = r.leave(t, l.product, l.from, l.to, steps)
			all = append(all, l)
		}
	}
	r.awaitSettled(t)
	for n, l := range all {
		next, open, err := r.e.Lend(t.Context(), l.product, l.from, l.to, 1)
		if err != nil || open || next.ID().Compare(l.transfer.ID()) <= 0 {
			t.Errorf("the next one: %+v, open %t, %v", next, open, err)
		}
		if _, err := r.e.Arrive(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		// Somebody wakes up who was about to credit and settle the first.
		if _, err := r.e.Arrive(t.Context(), l.transfer); err != nil {
			t.Fatal(err)
		}
		if err := r.e.Settle(t.Context(), l.transfer, l.credited); err != nil {
			t.Fatal(err)
		}
		shares, onItsWay, err := r.e.Shares(t.Context(), l.product)
		if err != nil || shares[l.from] != 5 || shares[l.to] != 5 || onItsWay != 0 {
			t.Errorf("left after %d steps from %d to %d: shares %v, %d on its way, %v", n/2, l.from, l.to, shares, onItsWay, err)
		}
	}
}

// leave sends 4 of 10 units and carries out some steps: none, the credit, the credit repeated, all of them repeated.
func (r *spreadRoom) leave(t *testing.T, product int64, from, to, steps int) (moved engine.Transfer, credited engine.Position) {
	t.Helper()
	ctx := t.Context()
	moved, open, err := r.e.Lend(ctx, product, from, to, 4)
	if err != nil || open || moved.Units() != 4 {
		t.Fatalf("lend: %d units, open %t, %v", moved.Units(), open, err)
	}
	again, open, err := r.e.Lend(ctx, product, from, to, 5)
	if err != nil || !open || again != moved {
		t.Errorf("lent once more while open: %+v, %t, %v", again, open, err)
	}
	for range steps {
		if credited, err = r.e.Arrive(ctx, moved); err != nil {
			t.Fatal(err)
		}
		r.wantSupply(t, product, 10)
	}
	if steps == 3 {
		if err := errors.Join(r.e.Settle(ctx, moved, credited), r.e.Settle(ctx, moved, credited)); err != nil {
			t.Fatal(err)
		}
	}
	return moved, credited
}

// awaitSettled waits until nothing is on its way any more: the sweeper ends what was left.
func (r *spreadRoom) awaitSettled(t *testing.T) {
	t.Helper()
	await(t, "every transfer is settled", func() bool {
		for p := range r.e.Keys().Partitions() {
			if n, err := r.redis.ZCard(t.Context(), r.e.Keys().Moving(p)).Result(); err != nil || n > 0 {
				return false
			}
		}
		return true
	})
}

// inTime asks again where units did not come from other partitions in time, as a client would.
func inTime(ask func() error) (err error) {
	for range 5 {
		if err = ask(); !errors.Is(err, engine.ErrElsewhere) {
			break
		}
	}
	return err
}

func (r *spreadRoom) placeInTime(ctx context.Context, request engine.PlaceRequest) (order engine.Order, err error) {
	err = inTime(func() error {
		order, _, err = r.e.Place(ctx, request)
		return err
	})
	return order, err
}

// Buyers, write-offs, restocks, refunds and expiring holds at once, in all partitions: what is left is what was there less what
// was sold.
func TestSupply_ConservesUnitsUnderConcurrency(t *testing.T) {
	const partitions, products, attempts = 4, 3, 90
	r := newSpreadRoom(t, partitions, engine.Config{Hold: 50 * time.Millisecond, Durable: slow(2 * time.Millisecond)})
	left := make([]atomic.Int64, products+1)
	for product := int64(1); product <= products; product++ {
		listed := engine.Product{ID: product, Name: "Thing", Price: 1, Version: 1, CreatedAt: time.Now()}
		if err := r.e.List(t.Context(), listed, 100*product); err != nil {
			t.Fatal(err)
		}
		left[product].Store(100 * product)
	}
	var group sync.WaitGroup
	var sold, short atomic.Int64
	for b := range 4 * partitions {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(b), 7))
			for i := range attempts {
				product, units := 1+random.Int64N(products), 1+random.Int64N(4)
				key := fmt.Sprintf("%d of %d", i, b)
				request := engine.PlaceRequest{UserID: r.buyers[b%partitions], Key: key, Lines: lines(product, units)}
				action, delta := random.IntN(10), random.Int64N(20)-10
				var err error
				switch {
				case action < 2:
					request.Later = true
					_, err = r.placeInTime(t.Context(), request) // expires
				case action == 2 && delta != 0:
					err = inTime(func() (err error) {
						_, _, err = r.e.Restock(t.Context(), engine.RestockRequest{ProductID: product, Delta: delta, Key: key})
						return err
					})
					if err == nil {
						left[product].Add(delta)
					}
				case action > 2:
					var order engine.Order
					if order, err = r.placeInTime(t.Context(), request); err == nil {
						sold.Add(1)
						left[product].Add(-units)
						if action == 3 {
							if _, _, err = r.e.Cancel(t.Context(), engine.CancelRequest{OrderID: order.ID, UserID: order.UserID, Key: key + " back"}); err == nil {
								left[product].Add(units)
							}
						}
					}
				}
				var refusal *engine.Refusal
				switch {
				case errors.As(err, &refusal) && errors.Is(err, engine.ErrOutOfStock):
					if short.Add(1); refusal.Left > 10 {
						t.Errorf("%s: %v", key, err)
					}
				case err != nil:
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	group.Wait()
	await(t, "every hold has expired", func() bool {
		held := int64(0)
		for p := range partitions {
			n, err := r.redis.ZCard(t.Context(), r.e.Keys().Holds(p)).Result()
			if err != nil {
				t.Fatal(err)
			}
			held += n
		}
		return held == 0
	})
	if sold.Load() == 0 || short.Load() == 0 {
		t.Errorf("%d sold, %d refused: the mix lacks something", sold.Load(), short.Load())
	}
	for product := int64(1); product <= products; product++ {
		r.wantSupply(t, product, left[product].Load())
	}
	r.awaitSettled(t)
}

// A share that sells is filled up before it is empty.
func TestPace_LendsAhead(t *testing.T) {
	r := newSpreadRoom(t, 4, engine.Config{})
	home := r.e.Keys().Home(1)
	buyer := (home + 1) % 4
	listed := engine.Product{ID: 1, Name: "Thing", Price: 1, Version: 1, CreatedAt: time.Now()}
	if err := r.e.List(t.Context(), listed, 400); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if err := r.buy(t.Context(), buyer, fmt.Sprint(i), 1, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	await(t, "units are lent ahead", func() bool {
		shares, _, err := r.e.Shares(t.Context(), 1)
		return err == nil && shares[buyer] > 100-60
	})
	r.wantSupply(t, 1, 340)
}
