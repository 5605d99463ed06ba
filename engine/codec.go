package engine

import (
	"fmt"
	"strconv"

	"github.com/tinylib/msgp/msgp"
)

// decoder reads msgpack values one after the other and keeps the first error, so that readers stay straight lines.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) int() int64 {
	if d.err != nil {
		return 0
	}
	var v int64
	v, d.b, d.err = msgp.ReadInt64Bytes(d.b)
	return v
}

// bytes returns a view into the input.
func (d *decoder) bytes() []byte {
	if d.err != nil {
		return nil
	}
	var v []byte
	v, d.b, d.err = msgp.ReadStringZC(d.b)
	return v
}

// intOrFalse reads an integer, or false where Redis has none.
func (d *decoder) intOrFalse() (v int64, there bool) {
	if d.err == nil && msgp.NextType(d.b) == msgp.BoolType {
		_, d.b, d.err = msgp.ReadBoolBytes(d.b)
		return 0, false
	}
	v = d.int()
	return v, d.err == nil
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) id() int64 {
	b := d.bytes()
	if d.err != nil {
		return 0
	}
	var id int64
	id, d.err = readID(b)
	return id
}

func (d *decoder) fingerprint() (f Fingerprint) {
	b := d.bytes()
	if d.err == nil && len(b) != len(f) && len(b) != 0 {
		d.err = fmt.Errorf("a fingerprint has %d bytes", len(b))
	}
	copy(f[:], b)
	return f
}

// array reads the head of an array of at most limit values.
func (d *decoder) array(limit int) int {
	if d.err != nil {
		return 0
	}
	var n uint32
	n, d.b, d.err = msgp.ReadArrayHeaderBytes(d.b)
	if d.err == nil && int64(n) > int64(limit) {
		d.err = fmt.Errorf("an array of %d values, at most %d expected", n, limit)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// end makes sure that nothing is left.
func (d *decoder) end() {
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes more than expected", len(d.b))
	}
}

func (d *decoder) ints(limit int) []int64 {
	n := d.array(limit)
	if d.err != nil {
		return nil
	}
	v := make([]int64, n)
	for i := range v {
		v[i] = d.int()
	}
	return v
}

// lines reads a flat array of product id and quantity.
func (d *decoder) lines() []Line {
	flat := d.ints(2 * LinesMax)
	if d.err == nil && len(flat)%2 != 0 {
		d.err = fmt.Errorf("%d values are no pairs of product and quantity", len(flat))
	}
	if d.err != nil {
		return nil
	}
	lines := make([]Line, len(flat)/2)
	for i := range lines {
		lines[i] = Line{ProductID: flat[2*i], Quantity: flat[2*i+1]}
	}
	return lines
}

// appendInt appends an integer in the form Lua's cmsgpack gives it, so that a record that Go writes in a repair is the
// same byte for byte.
func appendInt(b []byte, v int64) []byte {
	if v < 0 {
		return msgp.AppendInt64(b, v)
	}
	return msgp.AppendUint64(b, uint64(v))
}

func appendLines(b []byte, lines []Line) []byte {
	b = msgp.AppendArrayHeader(b, uint32(2*len(lines)))
	for _, l := range lines {
		b = appendInt(b, l.ProductID)
		b = appendInt(b, l.Quantity)
	}
	return b
}

func appendInts(b []byte, v []int64) []byte {
	b = msgp.AppendArrayHeader(b, uint32(len(v)))
	for _, x := range v {
		b = appendInt(b, x)
	}
	return b
}

// appendTexts appends numbers as an array of their decimal texts.
func appendTexts(b []byte, v []int64) []byte {
	b = msgp.AppendArrayHeader(b, uint32(len(v)))
	var digits [20]byte
	for _, x := range v {
		b = msgp.AppendStringFromBytes(b, strconv.AppendInt(digits[:0], x, 10))
	}
	return b
}

// appendIDString appends an id as a msgpack string of its 8 bytes.
func appendIDString(b []byte, id int64) []byte {
	b = append(b, 0xa8) // fixstr of 8
	return appendID(b, id)
}
