package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EventVersion is the version of events that this program writes and reads. A later version may append fields to
// an event and add kinds; both are read over by this one only after it is told so, by a new version number.
const EventVersion = 1

// EventKind says what an event records. The numbers stand in the journal.
type EventKind int

// The events.
const (
	Ordered   EventKind = 1 // an order was placed and paid at once
	Credited  EventKind = 2
	Restocked EventKind = 3 // stock changed by hand, or started with units
)

// Position is a place in a partition's events: the last event that counts.
type Position struct {
	Epoch int64
	Seq   int64
}

// Compare orders positions.
func (p Position) Compare(q Position) int {
	switch {
	case p.Epoch != q.Epoch:
		return sign(p.Epoch - q.Epoch)
	default:
		return sign(p.Seq - q.Seq)
	}
}

func sign(x int64) int {
	switch {
	case x < 0:
		return -1
	case x > 0:
		return 1
	}
	return 0
}

// String returns the stream id of the position.
func (p Position) String() string {
	return strconv.FormatInt(p.Epoch, 10) + "-" + strconv.FormatInt(p.Seq, 10)
}

// Event is one change as its script wrote it.
type Event struct {
	Kind        EventKind
	UserID      int64 // ordered, charged
	RefID       int64 // order or charge
	Key         string
	Fingerprint Fingerprint
	At          time.Time

	Lines       []Line  // ordered
	Prices      []int64 // ordered: of each line, minor units
	Total       int64   // ordered, minor units
	StocksAfter []int64 // ordered: share left of each line's product
	Amount      int64   // charged, minor units
	Balance     int64   // ordered, charged: after it, minor units

	ProductID int64 // restocked
	Delta     int64 // restocked, units
	Reason    string
	Stock     int64 // restocked: share after it
}

// Entry is a stream entry: the events of one script call.
type Entry struct {
	Last    Position
	First   int64 // seq
	Version int
	Payload []byte
}

// entryOverheadBytes is what lua/door.lua adds to a payload's length in the backlog.
const entryOverheadBytes = 96

// Bytes is what the entry counts for in the backlog.
func (e *Entry) Bytes() int64 { return int64(len(e.Payload)) + entryOverheadBytes }

// ParseEntry reads a stream entry.
func ParseEntry(id string, values map[string]any) (Entry, error) {
	epoch, seq, ok := strings.Cut(id, "-")
	var e Entry
	var errs [4]error
	e.Last.Epoch, errs[0] = strconv.ParseInt(epoch, 10, 64)
	e.Last.Seq, errs[1] = strconv.ParseInt(seq, 10, 64)
	version, _ := values["v"].(string)
	e.Version, errs[2] = strconv.Atoi(version)
	first, _ := values["f"].(string)
	e.First, errs[3] = strconv.ParseInt(first, 10, 64)
	payload, found := values["d"].(string)
	if err := errors.Join(errs[:]...); err != nil || !ok || !found || e.First < 1 || e.First > e.Last.Seq {
		return Entry{}, fmt.Errorf("stream entry %q is not one that a script writes", id)
	}
	e.Payload = []byte(payload)
	return e, nil
}

// Events reads the entry's payload.
func (e *Entry) Events() ([]Event, error) {
	if e.Version != EventVersion {
		return nil, fmt.Errorf("entry %v has version %d, this program reads %d", e.Last, e.Version, EventVersion)
	}
	if e.First < 1 || e.Last.Seq < e.First || e.Last.Seq-e.First >= int64(len(e.Payload)) {
		return nil, fmt.Errorf("entry %v cannot hold events %d to %d", e.Last, e.First, e.Last.Seq)
	}
	d := &decoder{b: e.Payload}
	events := make([]Event, 0, e.Last.Seq-e.First+1)
	for len(d.b) > 0 && d.err == nil {
		events = append(events, d.event())
	}
	if d.err != nil {
		return nil, fmt.Errorf("entry %v: %w", e.Last, d.err)
	}
	if int64(len(events)) != e.Last.Seq-e.First+1 {
		return nil, fmt.Errorf("entry %v holds %d events, %d expected", e.Last, len(events), e.Last.Seq-e.First+1)
	}
	return events, nil
}

func (d *decoder) event() Event {
	const fieldsMax = 16
	fields := d.array(fieldsMax)
	e := Event{Kind: EventKind(d.int())}
	var want int
	switch e.Kind {
	case Ordered:
		want = 11
		e.UserID, e.RefID, e.Key, e.Fingerprint, e.Lines = d.int(), d.id(), d.string(), d.fingerprint(), d.lines()
		e.At, e.Total, e.Prices = time.UnixMilli(d.int()).UTC(), d.int(), d.ints(LinesMax)
		e.Balance, e.StocksAfter = d.int(), d.ints(LinesMax)
		if d.err == nil && (len(e.Prices) != len(e.Lines) || len(e.StocksAfter) != len(e.Lines)) {
			d.err = errors.New("an order's lines, prices and stocks differ in number")
		}
	case Credited:
		want = 8
		e.UserID, e.RefID, e.Key, e.Fingerprint = d.int(), d.id(), d.string(), d.fingerprint()
		e.Amount, e.At, e.Balance = d.int(), time.UnixMilli(d.int()).UTC(), d.int()
	case Restocked:
		want = 8
		e.ProductID, e.Key, e.Fingerprint, e.Delta = d.int(), d.string(), d.fingerprint(), d.int()
		e.Reason, e.At, e.Stock = d.string(), time.UnixMilli(d.int()).UTC(), d.int()
	default:
		want = fields
		if d.err == nil {
			d.err = fmt.Errorf("unknown kind of event %d", e.Kind)
		}
	}
	if d.err == nil && fields != want {
		d.err = fmt.Errorf("an event of kind %d has %d fields, %d expected", e.Kind, fields, want)
	}
	return e
}

// Order is the order that an Ordered event placed.
func (e *Event) Order() Order {
	items := make([]Item, len(e.Lines))
	for i, l := range e.Lines {
		items[i] = Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: e.Prices[i]}
	}
	return Order{
		ID: e.RefID, UserID: e.UserID, Status: Success, Total: e.Total, Items: items, CreatedAt: e.At,
		History: []Step{{Status: Pending, At: e.At}, {Status: Success, At: e.At}},
	}
}

// idempotencyRecord is what the event's script stored under the key: fingerprint, then what renders the answer.
func (e *Event) idempotencyRecord() []byte {
	b := append([]byte(nil), e.Fingerprint[:]...)
	switch e.Kind {
	case Ordered:
		b = appendID(b, e.RefID)
	case Credited:
		b = appendInt(appendID(b, e.RefID), e.Balance)
	case Restocked:
		b = appendInt(b, e.Stock)
	}
	return b
}

// Equal reports whether two entries are the same.
func (e *Entry) Equal(o *Entry) bool {
	return e.Last == o.Last && e.First == o.First && e.Version == o.Version && bytes.Equal(e.Payload, o.Payload)
}
