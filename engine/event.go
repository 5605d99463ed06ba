package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EventVersion is the version of the events that this program writes; it reads them and all earlier ones. A new kind of
// event, or a new field, takes a new version: an older program then stops at the entry instead of guessing.
//
// Version 1 had the kinds Ordered, Credited and Restocked. Version 2 added Stepped and Carted, version 3 Moved and the answer
// of Restocked.
const EventVersion = 3

// EventKind says what an event records. The numbers stand in the journal.
type EventKind int

// The events.
const (
	Ordered   EventKind = 1 // an order was placed and paid at once
	Credited  EventKind = 2
	Restocked EventKind = 3 // stock changed by hand, or started with units
	Stepped   EventKind = 4 // an order took a step: reserved, paid, failed, canceled, expired, refunded
	Carted    EventKind = 5 // a cart changed
	Moved     EventKind = 6 // units left a share for one in another partition, or came from there
)

// BalanceUntouched stands where a step of an order did not look at the balance.
const BalanceUntouched = -1

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
	UserID      int64 // of the buyer; 0 for restocked and moved
	RefID       int64 // order or charge
	Key         string
	Scope       int64 // whose key it is: a user's id, or 0 for the admins
	Fingerprint Fingerprint
	At          time.Time

	Order       Order   // ordered, stepped: as it was after the event
	StocksAfter []int64 // ordered, stepped: share left of each line's product; empty where stock did not move
	Amount      int64   // charged, minor units
	Balance     int64   // ordered, charged, stepped: after it, in minor units; BalanceUntouched for some steps

	ProductID int64 // restocked, moved
	Delta     int64 // restocked, moved: units, signed
	Reason    string
	Stock     int64 // restocked, moved: share after it
	Answered  int64 // restocked: the stock of all partitions together, as it was answered

	Peer int      // moved: the other partition
	Sent Position // moved: of the event with which the units left, which names the transfer

	Cart   []Line // carted: what the cart holds after it
	Answer string // carted under a key: what renders the answer again
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

// ErrNewer is the error of an entry that a newer program wrote. It is no fault of the entry.
var ErrNewer = errors.New("written by a newer version of Stampede")

// Events reads the entry's payload. Where an event cannot be read, neither can those behind it: the error comes with the
// events before it.
func (e *Entry) Events() ([]Event, error) {
	if e.Version > EventVersion {
		return nil, fmt.Errorf("entry %v has version %d, this program reads 1 to %d: %w", e.Last, e.Version, EventVersion, ErrNewer)
	}
	if e.Version < 1 {
		return nil, fmt.Errorf("entry %v has version %d", e.Last, e.Version)
	}
	n := e.Last.Seq - e.First + 1
	if e.First < 1 || n < 1 || n > int64(len(e.Payload)) {
		return nil, fmt.Errorf("entry %v cannot hold events %d to %d", e.Last, e.First, e.Last.Seq)
	}
	d := &decoder{b: e.Payload}
	events := make([]Event, 0, n)
	for int64(len(events)) < n {
		event := d.event()
		if d.err != nil {
			return events, fmt.Errorf("event %d of entry %v: %w", e.First+int64(len(events)), e.Last, d.err)
		}
		events = append(events, event)
	}
	if d.end(); d.err != nil {
		return events[:n-1], fmt.Errorf("event %d of entry %v: %w", e.Last.Seq, e.Last, d.err)
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
		e.UserID, e.RefID, e.Key, e.Fingerprint = d.int(), d.id(), d.string(), d.fingerprint()
		lines := d.lines()
		e.At = time.UnixMilli(d.int()).UTC()
		total, prices := d.int(), d.ints(LinesMax)
		e.Balance, e.StocksAfter = d.int(), d.ints(LinesMax)
		if d.err == nil && (len(prices) != len(lines) || len(e.StocksAfter) != len(lines)) {
			d.err = errors.New("an order's lines, prices and stocks differ in number")
		}
		if d.err == nil {
			e.Order = paidAtOnce(e.RefID, e.UserID, lines, prices, total, e.At)
		}
		e.Scope = e.UserID
	case Stepped:
		want = 9
		d.stepped(&e)
	case Carted:
		want = 7
		e.UserID, e.Key, e.Fingerprint, e.At = d.int(), d.string(), d.fingerprint(), time.UnixMilli(d.int()).UTC()
		cart := d.string()
		e.Answer, e.Scope = d.string(), e.UserID
		if d.err == nil {
			e.Cart, d.err = DecodeCart(cart)
		}
	case Credited:
		want = 8
		e.UserID, e.RefID, e.Key, e.Fingerprint = d.int(), d.id(), d.string(), d.fingerprint()
		e.Amount, e.At, e.Balance = d.int(), time.UnixMilli(d.int()).UTC(), d.int()
		e.Scope = e.UserID
	case Restocked:
		want = 9
		e.ProductID, e.Key, e.Fingerprint, e.Delta = d.int(), d.string(), d.fingerprint(), d.int()
		e.Reason, e.At, e.Stock = d.string(), time.UnixMilli(d.int()).UTC(), d.int()
		if e.Answered = e.Stock; fields == 8 { // before version 3, when a product lay in one partition
			want = 8
		} else {
			e.Answered = d.int()
		}
	case Moved:
		want = 8
		e.ProductID, e.Peer, e.Delta = d.int(), int(d.int()), d.int()
		e.Sent = Position{Epoch: d.int(), Seq: d.int()}
		e.At, e.Stock = time.UnixMilli(d.int()).UTC(), d.int()
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

func (d *decoder) stepped(e *Event) {
	e.UserID, e.RefID, e.Key, e.Fingerprint, e.Scope = d.int(), d.id(), d.string(), d.fingerprint(), d.int()
	record := d.string()
	e.Balance, e.StocksAfter = d.int(), d.ints(LinesMax)
	if d.err != nil {
		return
	}
	e.Order, d.err = DecodeOrder(e.RefID, record)
	if d.err == nil && len(e.StocksAfter) != 0 && len(e.StocksAfter) != len(e.Order.Items) {
		d.err = errors.New("an order's lines and stocks differ in number")
	}
	e.At = e.Order.UpdatedAt()
}

// paidAtOnce is the order that lua/place.lua places.
func paidAtOnce(id, user int64, lines []Line, prices []int64, total int64, at time.Time) Order {
	items := make([]Item, len(lines))
	for i, l := range lines {
		items[i] = Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: prices[i]}
	}
	return Order{
		ID: id, UserID: user, Status: Success, Total: total, Items: items, CreatedAt: at,
		History: []Step{{Status: Pending, At: at}, {Status: Success, At: at}},
	}
}

// idempotencyRecord is what the event's script stored under the key: fingerprint, then what renders the answer.
func (e *Event) idempotencyRecord() []byte {
	b := append([]byte(nil), e.Fingerprint[:]...)
	switch e.Kind {
	case Ordered:
		b = appendID(b, e.RefID)
	case Stepped:
		b = appendID(b, e.RefID)
		if e.Order.Status != Pending {
			b = appendInt(b, int64(e.Order.Status))
		}
		if e.Order.Status == Failed {
			b = appendInt(b, e.Balance)
		}
	case Credited:
		b = appendInt(appendID(b, e.RefID), e.Balance)
	case Restocked:
		b = appendInt(b, e.Answered)
	case Carted:
		b = append(b, e.Answer...)
	}
	return b
}

// Equal reports whether two entries are the same.
func (e *Entry) Equal(o *Entry) bool {
	return e.Last == o.Last && e.First == o.First && e.Version == o.Version && bytes.Equal(e.Payload, o.Payload)
}
