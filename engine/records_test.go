package engine

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

func TestOrderRecord_ComesBackAsItWas(t *testing.T) {
	for _, o := range []Order{sampleOrder(), sampleEvents()[0].Order, sampleEvents()[5].Order, sampleEvents()[6].Order} {
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

func TestOrder_IsShownAsItWasInEachOfItsStates(t *testing.T) {
	o := sampleOrder()
	for i, status := range []Status{Pending, Success, Refunded} {
		got, err := o.when(status)
		if err != nil || got.Status != status || len(got.History) != i+1 || got.UpdatedAt() != o.History[i].At {
			t.Errorf("when %v: %+v, %v", status, got, err)
		}
	}
	if _, err := o.when(Expired); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an order that never expired: %v", err)
	}
	if o.PaidAt() != eventTime || !sampleEvents()[4].Order.PaidAt().IsZero() {
		t.Error("the time of a sale")
	}
}

func TestCartRecord_ComesBackAsItWas(t *testing.T) {
	full := make([]Line, LinesMax)
	for i := range full {
		full[i] = Line{ProductID: IDMax - int64(i), Quantity: QuantityMax}
	}
	for _, want := range [][]Line{{{ProductID: 1, Quantity: 1}}, full} {
		got, err := DecodeCart(encodeCart(want))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	if got, err := DecodeCart(""); err != nil || len(got) != 0 {
		t.Errorf("no record: %v, %v", got, err)
	}
}

func TestCartRecord_CutShortOrOfALaterVersionIsCorrupt(t *testing.T) {
	record := encodeCart([]Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 300}})
	for n := 1; n < len(record); n++ {
		if _, err := DecodeCart(record[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(record), err)
		}
	}
	odd := appendInts(appendInt(nil, cartRecordVersion), []int64{1, 2, 3})
	long := appendLines(appendInt(nil, cartRecordVersion), make([]Line, LinesMax+1))
	for what, record := range map[string]string{"a later version": "\x02" + record[1:], "half a pair": string(odd), "too long": string(long)} {
		if _, err := DecodeCart(record); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCartAnswer_ComesBackAsItWas(t *testing.T) {
	got, err := decodeCartAnswer(7, string(sampleAnswer()))
	if err != nil || !reflect.DeepEqual(got, sampleCart()) {
		t.Errorf("%+v, %v, want %+v", got, err, sampleCart())
	}
	empty, err := decodeCartAnswer(7, string(msgp.AppendArrayHeader(nil, 0)))
	if err != nil || len(empty.Items) != 0 || empty.Total() != 0 {
		t.Errorf("an empty cart: %+v, %v", empty, err)
	}
	if got.Total() != PriceMax*QuantityMax {
		t.Errorf("total %d", got.Total())
	}
}

func TestCartAnswer_CutShortIsCorrupt(t *testing.T) {
	answer := sampleAnswer()
	for n := range len(answer) {
		if _, err := decodeCartAnswer(7, string(answer[:n])); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(answer), err)
		}
	}
	unreadable := bytes.Replace(answer, []byte("3:0:"), []byte("3:x:"), 1)
	long := msgp.AppendArrayHeader(nil, 4*LinesMax+4)
	for what, answer := range map[string][]byte{"a catalogue record that is none": unreadable, "too long": long} {
		if _, err := decodeCartAnswer(7, string(answer)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
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
		for status := Pending; status <= Refunded; status++ {
			then, err := order.when(status)
			if err == nil && then.Status != status {
				t.Errorf("%v as it was when %v", then.Status, status)
			}
		}
		_ = order.PaidAt()
		_ = order.UpdatedAt()
		_ = fmt.Sprint(order)
	})
}

func FuzzDecodeCart(f *testing.F) {
	record := encodeCart([]Line{{ProductID: IDMax, Quantity: QuantityMax}, {ProductID: 1, Quantity: 300}})
	f.Add(record, string(sampleAnswer()))
	f.Add(record[:len(record)/2], "\xdd\xff\xff\xff\xff") // an array of 4 Gi values
	f.Add("", "")
	f.Fuzz(func(t *testing.T, record, answer string) {
		lines, err := DecodeCart(record)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("not called corrupt: %v", err)
		}
		encodeCart(lines)
		cart, err := decodeCartAnswer(1, answer)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("not called corrupt: %v", err)
		}
		if len(cart.Items) > LinesMax {
			t.Errorf("a cart of %d products", len(cart.Items))
		}
		_ = cart.Total()
	})
}

// Whatever byte is changed, nothing panics, and what is accepted can be written again.
func TestEntry_OfOneFlippedByteNeverPanics(t *testing.T) {
	payload := samplePayload()
	for at := range payload {
		for _, bit := range []byte{0x01, 0x10, 0x80, 0xff} {
			flipped := bytes.Clone(payload)
			flipped[at] ^= bit
			events, err := entryOf(1, samples, flipped).Events()
			if err != nil {
				continue
			}
			for i := range events {
				if again := appendEvent(nil, &events[i]); len(again) == 0 {
					t.Errorf("byte %d: event %d cannot be written again", at, i)
				}
			}
		}
	}
}
