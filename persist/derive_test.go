package persist

import (
	"maps"
	"slices"
	"testing"
	"time"

	"stampede/engine"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// stepped is the event of an order's last step, in the order of the statuses given.
func stepped(id int64, stocks []int64, statuses ...engine.Status) *engine.Event {
	o := engine.Order{
		ID: id, UserID: 7, Total: 50, CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
		Items: []engine.Item{{ProductID: 9, Quantity: 2, Price: 20}, {ProductID: 3, Quantity: 1, Price: 10}},
	}
	for i, s := range statuses {
		o.Status = s
		o.History = append(o.History, engine.Step{Status: s, At: noon.Add(time.Duration(i) * time.Second)})
	}
	return &engine.Event{Kind: engine.Stepped, UserID: 7, RefID: id, Order: o, StocksAfter: stocks, Balance: 100, At: o.UpdatedAt()}
}

func derived(t *testing.T, events ...*engine.Event) *rows {
	t.Helper()
	r, err := newRows(), error(nil)
	for i, e := range events {
		if r.nth = int64(i + 1); err == nil {
			err = r.add(engine.Position{Epoch: 1, Seq: int64(i + 1)}, e)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDerive_StepsOfOneRunEndInOneRow(t *testing.T) {
	stocks := []int64{5, 6}
	r := derived(t,
		stepped(1, stocks, engine.Pending),
		stepped(1, nil, engine.Pending, engine.Success),
		stepped(2, nil, engine.Pending, engine.Success),
		stepped(2, stocks, engine.Pending, engine.Success, engine.Refunded),
		stepped(3, stocks, engine.Pending, engine.Expired),
	)
	if !slices.Equal(r.orders.id, []int64{1}) || !slices.Equal(r.orders.status, []string{"SUCCESS"}) ||
		!r.orders.updated[0].Equal(noon.Add(time.Second)) || !r.orders.expires[0].Equal(noon.Add(time.Minute)) {
		t.Errorf("placed in the run: %+v", r.orders)
	}
	if !slices.Equal(r.moved.id, []int64{2, 3}) || !slices.Equal(r.moved.was, []string{"PENDING", "PENDING"}) ||
		!slices.Equal(r.moved.status, []string{"REFUNDED", "EXPIRED"}) || !r.moved.updated[0].Equal(noon.Add(2*time.Second)) {
		t.Errorf("placed before it: %+v", r.moved)
	}
	if !slices.Equal(r.history.step, []int16{1, 2, 2, 3, 2}) {
		t.Errorf("steps %v", r.history.step)
	}
	if !slices.Equal(r.balances.kind, []string{"order", "order", "refund"}) || !slices.Equal(r.balances.amount, []int64{-50, -50, 50}) {
		t.Errorf("balance postings %v of %v", r.balances.kind, r.balances.amount)
	}
	if !slices.Equal(r.stocks.kind, []string{"hold", "hold", "payment", "payment", "payment", "payment", "refund", "refund", "release", "release"}) ||
		!slices.Equal(r.stocks.delta, []int64{-2, -1, 0, 0, 0, 0, 2, 1, 2, 1}) || !slices.Equal(r.stocks.held, []int64{2, 1, -2, -1, -2, -1, 0, 0, -2, -1}) {
		t.Errorf("stock postings %v of %v and %v", r.stocks.kind, r.stocks.delta, r.stocks.held)
	}
	if hour := noon.Unix() / 3600; !maps.Equal(r.soldIn, map[hourProduct]sales{{hour, 9}: {2, 40, 1}, {hour, 3}: {1, 10, 1}}) {
		t.Errorf("sold %v", r.soldIn)
	}
	if !slices.Equal(r.items.line, []int16{1, 2}) || !slices.Equal(r.items.product, []int64{9, 3}) {
		t.Errorf("items %+v", r.items)
	}
	var ended []int64
	for _, o := range r.ended {
		ended = append(ended, o.OrderID*10+o.nth)
	}
	if !slices.Equal(ended, []int64{12, 23, 24, 35}) {
		t.Errorf("ended, by order and event: %v", ended)
	}
}

func TestDerive_StepsThatNoMachineTakesAreRefused(t *testing.T) {
	stocks := []int64{5, 6}
	for name, e := range map[string]*engine.Event{
		"paid without a hold":       stepped(1, nil, engine.Success),
		"held twice":                stepped(1, stocks, engine.Pending, engine.Pending),
		"refunded unpaid":           stepped(1, stocks, engine.Pending, engine.Refunded),
		"canceled after it ended":   stepped(1, stocks, engine.Pending, engine.Success, engine.Canceled),
		"held without stock":        stepped(1, nil, engine.Pending),
		"paid with stock":           stepped(1, stocks, engine.Pending, engine.Success),
		"expired without its stock": stepped(1, nil, engine.Pending, engine.Expired),
		"no status":                 stepped(1, nil, engine.Status(9)),
	} {
		r := newRows()
		if err := r.add(engine.Position{Epoch: 1, Seq: 1}, e); err == nil {
			t.Errorf("%s: derived as %+v", name, r.history)
		}
	}
}

func TestDerive_LastCartOfEachUserStands(t *testing.T) {
	carted := func(user int64, lines ...engine.Line) *engine.Event {
		return &engine.Event{Kind: engine.Carted, UserID: user, Cart: lines, At: noon}
	}
	r := derived(t,
		carted(1, engine.Line{ProductID: 9, Quantity: 1}),
		carted(2, engine.Line{ProductID: 9, Quantity: 1}),
		carted(1, engine.Line{ProductID: 9, Quantity: 1}, engine.Line{ProductID: 3, Quantity: 4}),
		carted(2),
	)
	c := columnsOf(r.cartOf)
	slices.Sort(c.all)
	if !slices.Equal(c.all, []int64{1, 2}) || !slices.Equal(c.empty, []int64{2}) || !slices.Equal(c.user, []int64{1}) ||
		!slices.Equal(c.seq, []int64{3}) || !slices.Equal(c.product, []int64{9, 3}) || !slices.Equal(c.line, []int16{1, 2}) {
		t.Errorf("carts %+v", c)
	}
}

func TestDerive_MovesAreNamedByWhatSentThem(t *testing.T) {
	sent := engine.Position{Epoch: 1, Seq: 1}
	r := derived(t,
		&engine.Event{Kind: engine.Moved, ProductID: 9, Peer: 2, Delta: -5, Sent: sent, Stock: 7, At: noon},
		&engine.Event{Kind: engine.Moved, ProductID: 9, Peer: 3, Delta: 4, Sent: engine.Position{Epoch: 8, Seq: 6}, Stock: 11, At: noon},
	)
	s := &r.stocks
	if !slices.Equal(s.kind, []string{"sent", "received"}) || !slices.Equal(s.delta, []int64{-5, 4}) || *s.after[1] != 11 || r.deltaOf[9] != -1 {
		t.Errorf("postings %v of %v, %v in sum", s.kind, s.delta, r.deltaOf)
	}
	if *s.peer[0] != 2 || *s.sentEpoch[0] != 1 || *s.sentSeq[0] != 1 || *s.peer[1] != 3 || *s.sentEpoch[1] != 8 || *s.sentSeq[1] != 6 {
		t.Errorf("peers %d and %d, sent by %d-%d and %d-%d", *s.peer[0], *s.peer[1], *s.sentEpoch[0], *s.sentSeq[0], *s.sentEpoch[1], *s.sentSeq[1])
	}
	for name, e := range map[string]*engine.Event{
		"nothing":                       {Kind: engine.Moved, ProductID: 9, Peer: 2, Sent: sent},
		"to no partition":               {Kind: engine.Moved, ProductID: 9, Peer: engine.PartitionsMax, Delta: -5, Sent: sent},
		"sent under another event name": {Kind: engine.Moved, ProductID: 9, Peer: 2, Delta: -5, Sent: engine.Position{Epoch: 1, Seq: 2}},
	} {
		r := newRows()
		if err := r.add(sent, e); err == nil || len(r.stocks.kind) > 0 || len(r.deltaOf) > 0 {
			t.Errorf("%s: derived as %+v, %v", name, r.stocks, err)
		}
	}
}
