package engine

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/tinylib/msgp/msgp"
)

var eventTime = time.UnixMilli(1_795_000_000_123).UTC()

// sampleEvents are one of each kind and shape, with the largest figures among them.
func sampleEvents() []Event {
	paid := paidAtOnce(math.MaxInt64, IDMax, []Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 1}},
		[]int64{PriceMax, 0}, PriceMax*QuantityMax, eventTime)
	held := paid
	held.Status, held.History, held.ExpiresAt = Pending, paid.History[:1:1], eventTime.Add(5*time.Minute)
	failed := held
	failed.Status = Failed
	failed.History = append(failed.History, Step{Status: Failed, Reason: "insufficient_balance", At: eventTime.Add(time.Minute)})
	refunded := sampleOrder()
	return []Event{
		{
			Kind: Ordered, UserID: IDMax, RefID: math.MaxInt64, Key: "key ü", Scope: IDMax, Fingerprint: Fingerprint{1, 2}, At: eventTime,
			Order: paid, StocksAfter: []int64{StockMax, 0}, Balance: BalanceMax,
		},
		{
			Kind: Credited, UserID: 7, RefID: 1, Key: strings.Repeat("ж", KeyMax), Scope: 7, Fingerprint: Fingerprint{3}, At: eventTime,
			Amount: BalanceMax, Balance: BalanceMax,
		},
		{Kind: Restocked, ProductID: 7, Key: "k", Fingerprint: Fingerprint{4}, At: eventTime, Delta: -StockMax, Reason: "loss", Stock: 0, Answered: 12},
		{Kind: Moved, ProductID: 7, Peer: 3, Delta: -9, Sent: Position{Epoch: 2, Seq: 40}, At: eventTime, Stock: 11},
		{Kind: Restocked, ProductID: 7, At: eventTime, Delta: 5, Reason: "initial stock", Stock: 5, Answered: 5},
		{
			Kind: Stepped, UserID: IDMax, RefID: math.MaxInt64, Key: "later", Scope: IDMax, Fingerprint: Fingerprint{5}, At: eventTime,
			Order: held, StocksAfter: []int64{0, StockMax}, Balance: BalanceUntouched,
		},
		{
			Kind: Stepped, UserID: IDMax, RefID: math.MaxInt64, Key: "pay", Scope: IDMax, Fingerprint: Fingerprint{6}, At: failed.UpdatedAt(),
			Order: failed, StocksAfter: []int64{1, 2}, Balance: 12,
		},
		{ // by an admin, and without a move of stock, as a payment
			Kind: Stepped, UserID: IDMax, RefID: math.MaxInt64, Key: "admin", Fingerprint: Fingerprint{7}, At: refunded.UpdatedAt(),
			Order: refunded, StocksAfter: []int64{}, Balance: BalanceMax,
		},
		{ // a sweeper has no key
			Kind: Stepped, UserID: IDMax, RefID: math.MaxInt64, Scope: IDMax, At: refunded.UpdatedAt(),
			Order: refunded, StocksAfter: []int64{1, 1}, Balance: BalanceUntouched,
		},
		{
			Kind: Carted, UserID: IDMax, Key: "cart", Scope: IDMax, Fingerprint: Fingerprint{8}, At: eventTime,
			Cart: []Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 1}}, Answer: string(sampleAnswer()),
		},
		{Kind: Carted, UserID: 7, Scope: 7, At: eventTime},
	}
}

// sampleAnswer is what lua/cart.lua stores of a cart under a key.
func sampleAnswer() []byte {
	b := msgp.AppendArrayHeader(nil, 8)
	for _, i := range sampleCart().Items {
		b = appendInt(appendInt(appendInt(b, i.ProductID), i.Quantity), i.Stock)
		b = msgp.AppendString(b, encodeCatalogue(Product{ID: i.ProductID, Name: i.Name, Price: i.Price, Version: 3, CreatedAt: eventTime}))
	}
	return b
}

func sampleCart() Cart {
	return Cart{UserID: 7, Items: []CartItem{
		{ProductID: IDMax, Name: "with: colons: in it", Price: PriceMax, Quantity: QuantityMax, Stock: StockMax},
		{ProductID: 1, Name: "ü", Price: 0, Quantity: 1, Stock: 0},
	}}
}

func sampleOrder() Order {
	o := paidAtOnce(math.MaxInt64, IDMax, []Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 1}},
		[]int64{PriceMax, 0}, PriceMax*QuantityMax, eventTime)
	o.ExpiresAt = eventTime.Add(5 * time.Minute)
	o.Status = Refunded
	o.History = append(o.History, Step{Status: Refunded, Reason: "broken", At: eventTime.Add(time.Hour)})
	return o
}

func appendFingerprint(b []byte, f Fingerprint) []byte {
	if f == (Fingerprint{}) {
		return msgp.AppendString(b, "")
	}
	return msgp.AppendStringFromBytes(b, f[:])
}

// appendEvent writes an event as the scripts do.
func appendEvent(b []byte, e *Event) []byte {
	at := e.At.UnixMilli()
	switch e.Kind {
	case Ordered:
		b = append(b, '\x9b', 1)
		b = appendIDString(msgp.AppendInt64(b, e.UserID), e.RefID)
		var lines []Line
		var prices []int64
		for _, i := range e.Order.Items {
			lines, prices = append(lines, Line{ProductID: i.ProductID, Quantity: i.Quantity}), append(prices, i.Price)
		}
		b = appendLines(appendFingerprint(msgp.AppendString(b, e.Key), e.Fingerprint), lines)
		b = appendInts(msgp.AppendInt64(msgp.AppendInt64(b, at), e.Order.Total), prices)
		return appendInts(msgp.AppendInt64(b, e.Balance), e.StocksAfter)
	case Credited:
		b = append(b, '\x98', 2)
		b = appendIDString(msgp.AppendInt64(b, e.UserID), e.RefID)
		b = appendFingerprint(msgp.AppendString(b, e.Key), e.Fingerprint)
		return msgp.AppendInt64(msgp.AppendInt64(msgp.AppendInt64(b, e.Amount), at), e.Balance)
	case Stepped:
		b = append(b, '\x99', 4)
		b = appendIDString(msgp.AppendInt64(b, e.UserID), e.RefID)
		b = appendFingerprint(msgp.AppendString(b, e.Key), e.Fingerprint)
		b = msgp.AppendStringFromBytes(msgp.AppendInt64(b, e.Scope), encodeOrder(&e.Order))
		return appendInts(msgp.AppendInt64(b, e.Balance), e.StocksAfter)
	case Carted:
		b = append(b, '\x97', 5)
		b = appendFingerprint(msgp.AppendString(msgp.AppendInt64(b, e.UserID), e.Key), e.Fingerprint)
		cart := ""
		if len(e.Cart) > 0 {
			cart = encodeCart(e.Cart)
		}
		return msgp.AppendString(msgp.AppendString(msgp.AppendInt64(b, at), cart), e.Answer)
	case Moved:
		b = msgp.AppendInt64(msgp.AppendInt64(append(b, '\x98', 6), e.ProductID), int64(e.Peer))
		return msgp.AppendInt64(msgp.AppendInt64(appendPosition(msgp.AppendInt64(b, e.Delta), e.Sent), at), e.Stock)
	}
	b = append(b, '\x99', 3)
	b = appendFingerprint(msgp.AppendString(msgp.AppendInt64(b, e.ProductID), e.Key), e.Fingerprint)
	b = msgp.AppendString(msgp.AppendInt64(b, e.Delta), e.Reason)
	return msgp.AppendInt64(msgp.AppendInt64(msgp.AppendInt64(b, at), e.Stock), e.Answered)
}

func samplePayload() []byte {
	var b []byte
	for _, e := range sampleEvents() {
		b = appendEvent(b, &e)
	}
	return b
}

// samples is how many events samplePayload holds.
var samples = int64(len(sampleEvents()))

func entryOf(first, last int64, payload []byte) *Entry {
	return &Entry{Last: Position{Epoch: 1, Seq: last}, First: first, Version: EventVersion, Payload: payload}
}

func TestEntry_GivesItsEventsExactly(t *testing.T) {
	want := sampleEvents()
	got, err := entryOf(5, 4+samples, samplePayload()).Events()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

func TestEntry_CutShortIsAnErrorAtEveryByte(t *testing.T) {
	payload := samplePayload()
	for n := range len(payload) {
		if _, err := entryOf(1, samples, payload[:n]).Events(); err == nil {
			t.Errorf("%d of %d bytes are all events", n, len(payload))
		}
	}
}

func TestEntry_OfAnotherNumberVersionOrKindIsAnError(t *testing.T) {
	payload := samplePayload()
	later := entryOf(1, samples, payload)
	later.Version++
	unknown := append(bytes.Clone(payload), '\x92', 9, 9)
	longer := append(bytes.Clone(payload), '\x99', 2)
	uneven, lacking, wrongCart := sampleEvents()[0], sampleEvents()[5], sampleEvents()[9]
	uneven.StocksAfter, lacking.StocksAfter = []int64{1}, []int64{1}
	cart := appendEvent(nil, &wrongCart)
	cart = bytes.Replace(cart, []byte(encodeCart(wrongCart.Cart)), bytes.Repeat([]byte{1}, len(encodeCart(wrongCart.Cart))), 1)
	for name, e := range map[string]*Entry{
		"a later version": later, "fewer events": entryOf(1, samples-1, payload), "more events": entryOf(1, samples+1, payload),
		"an unknown kind": entryOf(1, samples+1, unknown), "a field more": entryOf(1, samples+1, longer),
		"an order with a stock too few": entryOf(1, 1, appendEvent(nil, &uneven)),
		"a step with a stock too few":   entryOf(1, 1, appendEvent(nil, &lacking)),
		"a cart that is none":           entryOf(1, 1, cart), "no events": entryOf(1, 1, nil),
		"a scalar": entryOf(1, 1, []byte{1}),
	} {
		if events, err := e.Events(); err == nil {
			t.Errorf("%s: %+v", name, events)
		}
	}
}

// Before version 3 a product lay in one partition, and the answer to a change of stock was the share after it.
func TestEntry_OfAnOlderVersionTellsWhatWasAnswered(t *testing.T) {
	e := Event{Kind: Restocked, ProductID: 7, Key: "k", Fingerprint: Fingerprint{4}, At: eventTime, Delta: 5, Reason: "more", Stock: 9}
	payload := appendEvent(nil, &e)
	payload[0]--
	old := entryOf(1, 1, payload[:len(payload)-1])
	old.Version = 2
	events, err := old.Events()
	if e.Answered = 9; err != nil || !reflect.DeepEqual(events, []Event{e}) {
		t.Errorf("%+v, %v, want %+v", events, err, e)
	}
}

// A poison entry must end in an alarm, not in a panic of the writer.
func TestEntry_OfAnAbsurdRangeIsAnError(t *testing.T) {
	for _, r := range [][2]int64{{1, math.MaxInt64}, {1, 1 << 40}, {5, 1}, {math.MinInt64, math.MaxInt64}} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("events %d to %d: panic: %v", r[0], r[1], p)
				}
			}()
			if _, err := entryOf(r[0], r[1], []byte{'\x98'}).Events(); err == nil {
				t.Errorf("events %d to %d in one byte", r[0], r[1])
			}
		}()
	}
}

func TestParseEntry_RefusesWhatNoScriptWrites(t *testing.T) {
	good := func() map[string]any { return map[string]any{"v": "1", "f": "3", "d": "payload"} }
	e, err := ParseEntry("2-5", good())
	if err != nil || e.Last != (Position{Epoch: 2, Seq: 5}) || e.First != 3 || e.Version != 1 || string(e.Payload) != "payload" {
		t.Fatalf("%+v, %v", e, err)
	}
	if e.Bytes() != int64(len("payload"))+entryOverheadBytes {
		t.Errorf("%d bytes", e.Bytes())
	}
	for _, id := range []string{"", "2", "2-", "-5", "a-5", "2-a", "2-2", "99999999999999999999-1", "2-5-1"} {
		if _, err := ParseEntry(id, good()); err == nil {
			t.Errorf("id %q was accepted", id)
		}
	}
	for field, value := range map[string]any{"v": "", "f": "0", "d": nil} {
		values := good()
		values[field] = value
		if _, err := ParseEntry("2-5", values); err == nil {
			t.Errorf("%s = %v was accepted", field, value)
		}
		delete(values, field)
		if _, err := ParseEntry("2-5", values); err == nil {
			t.Errorf("an entry without %s was accepted", field)
		}
	}
}

func TestPosition_IsOrderedByEpochThenSeq(t *testing.T) {
	ordered := []Position{{}, {0, 5}, {1, 0}, {1, 3}, {2, 1}, {10, 0}}
	for i, p := range ordered {
		for j, q := range ordered {
			if got := p.Compare(q); got != sign(int64(i-j)) {
				t.Errorf("%v against %v: %d", p, q, got)
			}
		}
	}
}

// An unreadable reply leaves no caller waiting, and claims nothing.
func TestReply_CutShortLeavesNobodyWithoutAnAnswer(t *testing.T) {
	reply := msgp.AppendInt64(nil, 7) // the last seq
	reply = msgp.AppendInt64(reply, int64(codeOK))
	reply = msgp.AppendInt64(reply, 1234)
	reply = msgp.AppendInt64(reply, int64(codeBalanceLimit))
	reply = msgp.AppendInt64(reply, 99)
	reply = msgp.AppendInt64(reply, int64(codeOK))
	reply = msgp.AppendInt64(reply, 1235)
	e, err := New(Config{Redis: unusedRedis(t), Partitions: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(reply) + 1 {
		ops := make([]*operation, 3)
		for i := range ops {
			ops[i] = newDirect(chargeKind, &chargeOp{})
		}
		e.partitions[0].finish(&call{}, chargeKind, header{}, answer{reply: string(reply[:n]), kept: true}, ops)
		for i, op := range ops {
			select {
			case err := <-op.done:
				var refusal *Refusal
				if n < len(reply) && i == 2 && !errors.Is(err, ErrUnknown) {
					t.Errorf("operation %d after %d bytes: %v", i, n, err)
				}
				if n == len(reply) && (err != nil) != (i == 1) {
					t.Errorf("operation %d: %v", i, err)
				}
				if n == len(reply) && i == 1 && (!errors.As(err, &refusal) || refusal.Balance != 99) {
					t.Errorf("operation %d: %v", i, err)
				}
			default:
				t.Errorf("operation %d has no answer after %d bytes", i, n)
			}
			if len(op.done) != 0 {
				t.Errorf("operation %d has two answers after %d bytes", i, n)
			}
		}
	}
}

func TestReply_OfAnUnknownCodeIsUnknown(t *testing.T) {
	var order placeOp
	d := &decoder{b: msgp.AppendInt64(nil, 99)}
	if err := decodeReply(d, placeKind, &order); err != nil || d.err == nil {
		t.Errorf("code 99: %v, %v", err, d.err)
	}
}

func FuzzEntryEvents(f *testing.F) {
	f.Add(samplePayload(), uint16(samples)) //nolint:gosec // a handful
	for _, e := range sampleEvents() {
		payload := appendEvent(nil, &e)
		f.Add(payload, uint16(1))
		f.Add(payload[:len(payload)/2], uint16(1))
	}
	f.Add([]byte{'\x98', 3, 0xdb, 0xff, 0xff, 0xff, 0xff}, uint16(1)) // a string of 4 GiB
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, uint16(1))            // an array of 4 Gi values
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, payload []byte, n uint16) {
		events, err := entryOf(8, 7+int64(n), payload).Events()
		if err != nil {
			return
		}
		if len(events) != int(n) {
			t.Errorf("%d events, %d expected", len(events), n)
		}
		for i := range events {
			e := &events[i]
			if len(e.StocksAfter) > 0 && len(e.Order.Items) != len(e.StocksAfter) {
				t.Errorf("an order of %d lines leaves %d stocks", len(e.Order.Items), len(e.StocksAfter))
			}
			encodeOrder(&e.Order)
			encodeCart(e.Cart)
			e.idempotencyRecord()
		}
	})
}

// unusedRedis is a client of no server.
func unusedRedis(t *testing.T) redis.UniversalClient {
	t.Helper()
	c, err := Connect(Redis{URL: "redis://127.0.0.1:1/0"}, 1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
