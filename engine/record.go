package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"
)

const (
	orderRecordVersion = 1
	historyMax         = 16 // steps of an order; the machine allows three
)

// encodeOrder writes an order's record as lua/place.lua does. Times in it count from created, in ms, so that the
// common record stays small:
//
//	version, status, user id, created ms, total, [price ...], [product, quantity ...], expires ms or 0,
//	[status, ms after created, reason ...]
func encodeOrder(o *Order) []byte {
	created := o.CreatedAt.UnixMilli()
	b := make([]byte, 0, 48+12*len(o.Items))
	b = appendInt(b, orderRecordVersion)
	b = appendInt(b, int64(o.Status))
	b = appendInt(b, o.UserID)
	b = appendInt(b, created)
	b = appendInt(b, o.Total)
	b = msgp.AppendArrayHeader(b, uint32(len(o.Items)))
	for _, i := range o.Items {
		b = appendInt(b, i.Price)
	}
	b = msgp.AppendArrayHeader(b, uint32(2*len(o.Items)))
	for _, i := range o.Items {
		b = appendInt(b, i.ProductID)
		b = appendInt(b, i.Quantity)
	}
	expires := int64(0)
	if !o.ExpiresAt.IsZero() {
		expires = o.ExpiresAt.UnixMilli()
	}
	b = appendInt(b, expires)
	b = msgp.AppendArrayHeader(b, uint32(3*len(o.History)))
	for _, s := range o.History {
		b = appendInt(b, int64(s.Status))
		b = appendInt(b, s.At.UnixMilli()-created)
		b = msgp.AppendString(b, s.Reason)
	}
	return b
}

// DecodeOrder reads an order's record.
func DecodeOrder(id int64, record string) (Order, error) {
	d := &decoder{b: []byte(record)}
	if version := d.int(); d.err == nil && version != orderRecordVersion {
		d.err = fmt.Errorf("record version %d is newer than this program", version)
	}
	o := Order{ID: id, Status: Status(d.int()), UserID: d.int()}
	created := d.int()
	o.CreatedAt = time.UnixMilli(created).UTC()
	o.Total = d.int()
	prices, lines := d.ints(LinesMax), d.lines()
	if d.err == nil && len(prices) != len(lines) {
		d.err = errors.New("lines and prices differ in number")
	}
	if d.err == nil {
		o.Items = make([]Item, len(lines))
		for i, l := range lines {
			o.Items[i] = Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: prices[i]}
		}
	}
	if expires := d.int(); expires != 0 {
		o.ExpiresAt = time.UnixMilli(expires).UTC()
	}
	steps := d.array(3 * historyMax)
	if d.err == nil && steps%3 != 0 {
		d.err = fmt.Errorf("%d values are no steps of status, time and reason", steps)
	}
	o.History = make([]Step, steps/3)
	for i := range o.History {
		o.History[i] = Step{Status: Status(d.int()), At: time.UnixMilli(created + d.int()).UTC(), Reason: d.string()}
	}
	d.end()
	if d.err != nil || len(o.History) == 0 {
		return Order{}, fmt.Errorf("%w: record of order %d: %v", ErrCorrupt, id, d.err) //nolint:errorlint // for the log
	}
	return o, nil
}

const cartRecordVersion = 1

// encodeCart writes a cart's record as lua/cart.lua does: version, [product, quantity ...]. An empty cart has none.
func encodeCart(lines []Line) string {
	return string(appendLines(appendInt(nil, cartRecordVersion), lines))
}

// DecodeCart reads a cart's record; the empty one is that of an empty cart.
func DecodeCart(record string) ([]Line, error) {
	if record == "" {
		return nil, nil
	}
	d := &decoder{b: []byte(record)}
	if version := d.int(); d.err == nil && version != cartRecordVersion {
		d.err = fmt.Errorf("record version %d is newer than this program", version)
	}
	lines := d.lines()
	d.end()
	if d.err == nil && len(lines) == 0 {
		d.err = errors.New("an empty cart has no record")
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: record of a cart: %v", ErrCorrupt, d.err) //nolint:errorlint // for the log
	}
	return lines, nil
}
