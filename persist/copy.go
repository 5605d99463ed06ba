package persist

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5"
)

// copier builds the body of a COPY ... FROM STDIN (FORMAT binary), see the PostgreSQL manual, "COPY", "Binary Format".
type copier struct{ b []byte }

const copySignature = "PGCOPY\n\xff\r\n\x00"

func (c *copier) begin() {
	c.b = append(c.b[:0], copySignature...)
	c.b = append(c.b, make([]byte, 8)...) // no flags, no extension
}

// row begins one of so many fields.
func (c *copier) row(fields int) { c.b = binary.BigEndian.AppendUint16(c.b, uint16(fields)) } //nolint:gosec // columns of a table

func (c *copier) length(n int) { c.b = binary.BigEndian.AppendUint32(c.b, uint32(n)) } //nolint:gosec // below a protocol message

func (c *copier) null() { c.b = append(c.b, 0xff, 0xff, 0xff, 0xff) }

func (c *copier) int16(v int16) {
	c.length(2)
	c.b = binary.BigEndian.AppendUint16(c.b, uint16(v)) //nolint:gosec // two's complement
}

func (c *copier) int64(v int64) {
	c.length(8)
	c.b = binary.BigEndian.AppendUint64(c.b, uint64(v)) //nolint:gosec // two's complement
}

func (c *copier) int16OrNull(v *int16) {
	if v == nil {
		c.null()
		return
	}
	c.int16(*v)
}

func (c *copier) int64s(v ...int64) {
	for _, v := range v {
		c.int64(v)
	}
}

func (c *copier) int64OrNull(v *int64) {
	if v == nil {
		c.null()
		return
	}
	c.int64(*v)
}

func (c *copier) text(s string) {
	c.length(len(s))
	c.b = append(c.b, s...)
}

func (c *copier) bytes(b []byte) {
	c.length(len(b))
	c.b = append(c.b, b...)
}

// postgresEpoch is from when on PostgreSQL counts, in microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func (c *copier) time(t time.Time) { c.int64(t.UnixMicro() - postgresEpoch) }

func (c *copier) timeOrNull(t *time.Time) {
	if t == nil {
		c.null()
		return
	}
	c.time(*t)
}

// send copies what was built into a table, named with its columns.
func (c *copier) send(ctx context.Context, conn *pgx.Conn, table string) error {
	c.b = append(c.b, 0xff, 0xff) // the end
	_, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(c.b), "COPY "+table+" FROM STDIN (FORMAT binary)")
	return err
}
