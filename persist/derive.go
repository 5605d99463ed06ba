package persist

import (
	"fmt"
	"time"

	"stampede/engine"
)

// rows are the derived rows of a run of journal entries, column by column as unnest takes them.
type rows struct {
	orders struct { // placed in this run, as they are at its end
		id, user, total []int64
		status          []string
		created         []time.Time
		updated         []time.Time
		expires         []*time.Time
	}
	moved struct { // placed before it: their state before it, and at its end
		id          []int64
		was, status []string
		updated     []time.Time
	}
	items struct {
		order, product, quantity, price []int64
		line                            []int16
	}
	history struct {
		order  []int64
		step   []int16
		status []string
		reason []string
		at     []time.Time
	}
	balances struct {
		epoch, seq, user, amount, after, ref []int64
		kind                                 []string
		at                                   []time.Time
	}
	stocks struct {
		epoch, seq, product, delta, held []int64
		after, order                     []*int64
		kind, reason                     []string
		at                               []time.Time
		peer                             []*int16
		sentEpoch, sentSeq               []*int64
	}
	soldIn    map[hourProduct]sales
	balanceOf map[int64]int64 // the last one of each user
	deltaOf   map[int64]int64 // the sum of each product
	cartOf    map[int64]cart  // the last one of each user
	placedAt  map[int64]int   // where an order stands in orders
	movedAt   map[int64]int   // where an order stands in moved
	ended     []endedOrder
	nth       int64 // of the event that is added, in its run
}

// hourProduct is a row of sales_hours, but for its partition.
type hourProduct struct{ hour, product int64 } // Unix time in hours

// sales are what some orders of a product add to an hour; negative where they were given back.
type sales struct{ units, revenue, orders int64 }

// cart is what a user's cart held after an event.
type cart struct {
	at      engine.Position
	updated time.Time
	lines   []engine.Line
}

// endedOrder is an order that an event brought into a state in which Redis may let it go.
type endedOrder struct {
	at    engine.Position
	nth   int64 // event of the run, from 1
	buyer int64
	engine.Ended
}

func newRows() *rows {
	return &rows{
		soldIn: map[hourProduct]sales{}, balanceOf: map[int64]int64{}, deltaOf: map[int64]int64{}, cartOf: map[int64]cart{},
		placedAt: map[int64]int{}, movedAt: map[int64]int{},
	}
}

// derive turns entries into rows, but for the events that are in quarantine. The writer inserts them and the audit
// compares with them, so that the tables are a function of the journal.
func derive(entries []engine.Entry, without positions) (*rows, []poison, error) {
	r, err := newRun(entries, without)
	if err != nil {
		return nil, nil, err
	}
	return r.rows, r.poison, nil
}

// add derives one event. With an error it has added nothing.
func (r *rows) add(at engine.Position, e *engine.Event) error {
	switch e.Kind {
	case engine.Ordered:
		r.placeOrder(&e.Order)
		r.addHistory(&e.Order, 1)
		r.addBalance(at, e.UserID, -e.Order.Total, e.Balance, "order", e.RefID, e.At)
		r.addStocks(at, e, "order", -1, 0)
		r.sell(&e.Order, e.At, 1)
	case engine.Stepped:
		if err := r.addStep(at, e); err != nil {
			return fmt.Errorf("event %v: order %d: %w", at, e.RefID, err)
		}
	case engine.Credited:
		r.addBalance(at, e.UserID, e.Amount, e.Balance, "charge", e.RefID, e.At)
	case engine.Restocked:
		r.addStock(at, posting{product: e.ProductID, delta: e.Delta, after: &e.Stock, kind: "restock", reason: e.Reason, at: e.At})
	case engine.Moved:
		if err := r.addMove(at, e); err != nil {
			return fmt.Errorf("event %v: product %d: %w", at, e.ProductID, err)
		}
	case engine.Carted:
		r.cartOf[e.UserID] = cart{at: at, updated: e.At, lines: e.Cart}
	default:
		return fmt.Errorf("event %v: nothing is derived from kind %d", at, e.Kind)
	}
	if (e.Kind == engine.Ordered || e.Kind == engine.Stepped) && e.Order.Status != engine.Pending {
		r.ended = append(r.ended, endedOrder{
			at: at, nth: r.nth, buyer: e.UserID, Ended: engine.Ended{OrderID: e.RefID, Status: e.Order.Status},
		})
	}
	return nil
}

// stepOf says which step of an order's history a state is, and what the step does with its units: an order's line adds so
// many times its quantity to the shelf and to what is held.
var stepOf = map[engine.Status]struct {
	step         int
	stocks       string // kind of the stock postings
	shelf, holds int64
}{
	engine.Pending:  {step: 1, stocks: "hold", shelf: -1, holds: 1},
	engine.Success:  {step: 2, stocks: "payment", holds: -1},
	engine.Failed:   {step: 2, stocks: "release", shelf: 1, holds: -1},
	engine.Canceled: {step: 2, stocks: "release", shelf: 1, holds: -1},
	engine.Expired:  {step: 2, stocks: "release", shelf: 1, holds: -1},
	engine.Refunded: {step: 3, stocks: "refund", shelf: 1},
}

// addStep derives one step of an order that is not paid at once.
func (r *rows) addStep(at engine.Position, e *engine.Event) error {
	o := &e.Order
	is, known := stepOf[o.Status]
	steps := len(o.History)
	switch {
	case !known || steps != is.step || o.History[steps-1].Status != o.Status:
		return fmt.Errorf("%v is no step number %d", o.Status, steps)
	case (is.shelf != 0) != (len(e.StocksAfter) > 0):
		return fmt.Errorf("a step to %v with %d stocks", o.Status, len(e.StocksAfter))
	}
	if o.Status == engine.Pending {
		r.placeOrder(o)
	} else {
		r.moveOrder(o)
	}
	r.addHistory(o, steps)
	switch o.Status {
	case engine.Success:
		r.addBalance(at, e.UserID, -o.Total, e.Balance, "order", e.RefID, e.At)
		r.sell(o, e.At, 1)
	case engine.Refunded:
		r.addBalance(at, e.UserID, o.Total, e.Balance, "refund", e.RefID, e.At)
		r.sell(o, o.PaidAt(), -1)
	}
	r.addStocks(at, e, is.stocks, is.shelf, is.holds)
	return nil
}

func (r *rows) placeOrder(o *engine.Order) {
	t := &r.orders
	r.placedAt[o.ID] = len(t.id)
	t.id, t.user, t.total = append(t.id, o.ID), append(t.user, o.UserID), append(t.total, o.Total)
	t.status = append(t.status, o.Status.String())
	t.created, t.updated = append(t.created, o.CreatedAt), append(t.updated, o.UpdatedAt())
	var expires *time.Time
	if !o.ExpiresAt.IsZero() {
		at := o.ExpiresAt
		expires = &at
	}
	t.expires = append(t.expires, expires)
	for n, i := range o.Items {
		t := &r.items
		t.order, t.product = append(t.order, o.ID), append(t.product, i.ProductID)
		t.quantity, t.price = append(t.quantity, i.Quantity), append(t.price, i.Price)
		t.line = append(t.line, int16(n+1)) //nolint:gosec // at most LinesMax
	}
}

// moveOrder notes a step of an order. Its row takes the last one of the run only.
func (r *rows) moveOrder(o *engine.Order) {
	if i, placed := r.placedAt[o.ID]; placed {
		r.orders.status[i], r.orders.updated[i] = o.Status.String(), o.UpdatedAt()
		return
	}
	t := &r.moved
	i, moved := r.movedAt[o.ID]
	if !moved {
		i = len(t.id)
		r.movedAt[o.ID] = i
		t.id, t.was = append(t.id, o.ID), append(t.was, o.History[len(o.History)-2].Status.String())
		t.status, t.updated = append(t.status, ""), append(t.updated, time.Time{})
	}
	t.status[i], t.updated[i] = o.Status.String(), o.UpdatedAt()
}

// addHistory adds an order's steps from one, which counts from 1, to the last.
func (r *rows) addHistory(o *engine.Order, from int) {
	t := &r.history
	for n := from; n <= len(o.History); n++ {
		s := &o.History[n-1]
		t.order, t.step = append(t.order, o.ID), append(t.step, int16(n)) //nolint:gosec // a few steps
		t.status, t.reason = append(t.status, s.Status.String()), append(t.reason, s.Reason)
		t.at = append(t.at, s.At)
	}
}

func (r *rows) addBalance(at engine.Position, user, amount, after int64, kind string, ref int64, when time.Time) {
	t := &r.balances
	t.epoch, t.seq, t.user = append(t.epoch, at.Epoch), append(t.seq, at.Seq), append(t.user, user)
	t.amount, t.after, t.ref = append(t.amount, amount), append(t.after, after), append(t.ref, ref)
	t.kind, t.at = append(t.kind, kind), append(t.at, when)
	r.balanceOf[user] = after
}

// addStocks adds the postings of an order's lines.
func (r *rows) addStocks(at engine.Position, e *engine.Event, kind string, shelf, holds int64) {
	for i, l := range e.Order.Items {
		p := posting{product: l.ProductID, delta: shelf * l.Quantity, held: holds * l.Quantity, kind: kind, order: &e.RefID, at: e.At}
		if shelf != 0 {
			p.after = &e.StocksAfter[i]
		}
		r.addStock(at, p)
	}
}

// addMove derives units that left the partition for another, or came from one.
func (r *rows) addMove(at engine.Position, e *engine.Event) error {
	kind := "received"
	if e.Delta < 0 {
		kind = "sent"
	}
	switch {
	case e.Delta == 0 || e.Peer < 0 || e.Peer >= engine.PartitionsMax:
		return fmt.Errorf("%d units moved by partition %d", e.Delta, e.Peer)
	case e.Delta < 0 && e.Sent != at:
		return fmt.Errorf("units sent under the name of event %v", e.Sent)
	}
	peer := int16(e.Peer) //nolint:gosec // below PartitionsMax
	r.addStock(at, posting{product: e.ProductID, delta: e.Delta, after: &e.Stock, kind: kind, at: e.At, peer: &peer, sent: &e.Sent})
	return nil
}

// posting is a row of stock_ledger.
type posting struct {
	product, delta, held int64
	after, order         *int64
	kind, reason         string
	at                   time.Time
	peer                 *int16           // of sent and received
	sent                 *engine.Position // ditto
}

func (r *rows) addStock(at engine.Position, p posting) {
	t := &r.stocks
	t.epoch, t.seq, t.product = append(t.epoch, at.Epoch), append(t.seq, at.Seq), append(t.product, p.product)
	t.delta, t.held = append(t.delta, p.delta), append(t.held, p.held)
	t.after, t.order = append(t.after, p.after), append(t.order, p.order)
	t.kind, t.reason, t.at = append(t.kind, p.kind), append(t.reason, p.reason), append(t.at, p.at)
	var epoch, seq *int64
	if p.sent != nil {
		epoch, seq = &p.sent.Epoch, &p.sent.Seq
	}
	t.peer, t.sentEpoch, t.sentSeq = append(t.peer, p.peer), append(t.sentEpoch, epoch), append(t.sentSeq, seq)
	if p.delta != 0 {
		r.deltaOf[p.product] += p.delta
	}
}

// sell adds an order to the hour of its sale, or takes it out of it.
func (r *rows) sell(o *engine.Order, at time.Time, sign int64) {
	for _, i := range o.Items {
		key := hourProduct{hour: at.Unix() / 3600, product: i.ProductID}
		s := r.soldIn[key]
		s.units += sign * i.Quantity
		s.revenue += sign * i.Quantity * i.Price
		s.orders += sign
		r.soldIn[key] = s
	}
}
