package engine

import (
	"bytes"
	"errors"
	"fmt"
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

// sampleEvents are one of each kind, with the largest figures among them.
func sampleEvents() []Event {
	return []Event{
		{
			Kind: Ordered, UserID: IDMax, RefID: math.MaxInt64, Key: "key ü", Fingerprint: Fingerprint{1, 2}, At: eventTime,
			Lines:  []Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 1}},
			Prices: []int64{PriceMax, 0}, Total: PriceMax * QuantityMax, StocksAfter: []int64{StockMax, 0}, Balance: BalanceMax,
		},
		{
			Kind: Credited, UserID: 7, RefID: 1, Key: strings.Repeat("ж", KeyMax), Fingerprint: Fingerprint{3}, At: eventTime,
			Amount: BalanceMax, Balance: BalanceMax,
		},
		{Kind: Restocked, ProductID: 7, Key: "k", Fingerprint: Fingerprint{4}, At: eventTime, Delta: -StockMax, Reason: "loss", Stock: 0},
		{Kind: Restocked, ProductID: 7, At: eventTime, Delta: 5, Reason: "initial stock", Stock: 5},
	}
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
		b = appendLines(appendFingerprint(msgp.AppendString(b, e.Key), e.Fingerprint), e.Lines)
		b = appendInts(msgp.AppendInt64(msgp.AppendInt64(b, at), e.Total), e.Prices)
		return appendInts(msgp.AppendInt64(b, e.Balance), e.StocksAfter)
	case Credited:
		b = append(b, '\x98', 2)
		b = appendIDString(msgp.AppendInt64(b, e.UserID), e.RefID)
		b = appendFingerprint(msgp.AppendString(b, e.Key), e.Fingerprint)
		return msgp.AppendInt64(msgp.AppendInt64(msgp.AppendInt64(b, e.Amount), at), e.Balance)
	}
	b = append(b, '\x98', 3)
	b = appendFingerprint(msgp.AppendString(msgp.AppendInt64(b, e.ProductID), e.Key), e.Fingerprint)
	b = msgp.AppendString(msgp.AppendInt64(b, e.Delta), e.Reason)
	return msgp.AppendInt64(msgp.AppendInt64(b, at), e.Stock)
}

func samplePayload() []byte {
	var b []byte
	for _, e := range sampleEvents() {
		b = appendEvent(b, &e)
	}
	return b
}

func entryOf(first, last int64, payload []byte) *Entry {
	return &Entry{Last: Position{Epoch: 1, Seq: last}, First: first, Version: EventVersion, Payload: payload}
}

func TestEntry_GivesItsEventsExactly(t *testing.T) {
	want := sampleEvents()
	got, err := entryOf(5, 8, samplePayload()).Events()
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
		if _, err := entryOf(1, 4, payload[:n]).Events(); err == nil {
			t.Errorf("%d of %d bytes are four events", n, len(payload))
		}
	}
}

func TestEntry_OfAnotherNumberVersionOrKindIsAnError(t *testing.T) {
	payload := samplePayload()
	later := entryOf(1, 4, payload)
	later.Version++
	unknown := append(bytes.Clone(payload), '\x92', 9, 9)
	longer := append(bytes.Clone(payload), '\x99', 2)
	for name, e := range map[string]*Entry{
		"a later version": later, "fewer events": entryOf(1, 3, payload), "more events": entryOf(1, 5, payload),
		"an unknown kind": entryOf(1, 5, unknown), "a field more": entryOf(1, 5, longer), "no events": entryOf(1, 1, nil),
		"a scalar": entryOf(1, 1, []byte{1}),
	} {
		if events, err := e.Events(); err == nil {
			t.Errorf("%s: %+v", name, events)
		}
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

func sampleOrder() Order {
	e := sampleEvents()[0]
	o := e.Order()
	o.ExpiresAt = eventTime.Add(5 * time.Minute)
	o.History = append(o.History, Step{Status: Refunded, Reason: "broken", At: eventTime.Add(time.Hour)})
	return o
}

func TestOrderRecord_ComesBackAsItWas(t *testing.T) {
	for _, o := range []Order{sampleOrder(), func() Order { e := sampleEvents()[0]; return e.Order() }()} {
		got, err := DecodeOrder(o.ID, string(encodeOrder(&o)))
		if err != nil || !got.Equal(&o) {
			t.Errorf("%+v, %v, want %+v", got, err, o)
		}
	}
}

func TestOrderRecord_CutShortOrOfALaterVersionIsCorrupt(t *testing.T) {
	o := sampleOrder()
	record := string(encodeOrder(&o))
	for n := range len(record) {
		if _, err := DecodeOrder(1, record[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(record), err)
		}
	}
	if _, err := DecodeOrder(1, "\x02"+record[1:]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a later version: %v", err)
	}
}

func TestCatalogueRecord_ComesBackAsItWas(t *testing.T) {
	for _, name := range []string{"Thing", "with: colons: in it", "ü", ""} {
		p := Product{ID: 3, Name: name, Price: PriceMax, Version: 12, CreatedAt: eventTime}
		got, err := decodeCatalogue(3, encodeCatalogue(p))
		if err != nil || got != p {
			t.Errorf("%+v, %v, want %+v", got, err, p)
		}
	}
	for _, record := range []string{"", "1", "1:2:3", "a:2:3:x", "1:b:3:x", "1:2:c:x", "1:1e3:3:x"} {
		if _, err := decodeCatalogue(3, record); !errors.Is(err, ErrCorrupt) {
			t.Errorf("record %q: %v", record, err)
		}
	}
}

// An unreadable reply leaves no caller waiting, and claims nothing.
func TestReply_CutShortLeavesNobodyWithoutAnAnswer(t *testing.T) {
	reply := msgp.AppendInt64(nil, int64(codeOK))
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
		e.partitions[0].finish(chargeKind, string(reply[:n]), ops)
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
	f.Add(samplePayload(), uint16(4))
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
			if e.Kind == Ordered {
				o := e.Order()
				if len(o.Items) != len(e.Lines) {
					t.Errorf("an order of %d lines has %d items", len(e.Lines), len(o.Items))
				}
				encodeOrder(&o)
			}
			e.idempotencyRecord()
		}
	})
}

func FuzzDecodeOrder(f *testing.F) {
	o := sampleOrder()
	record := encodeOrder(&o)
	f.Add(record)
	f.Add(record[:len(record)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, record []byte) {
		order, err := DecodeOrder(1, string(record))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("not called corrupt: %v", err)
			}
			return
		}
		_ = order.asAnswered()
		_ = order.UpdatedAt()
		_ = fmt.Sprint(order)
	})
}

// unusedRedis is a client of no server.
func unusedRedis(t *testing.T) redis.UniversalClient {
	t.Helper()
	c, err := Connect("redis://127.0.0.1:1/0", 1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
