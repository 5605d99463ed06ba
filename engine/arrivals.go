package engine

import "github.com/tinylib/msgp/msgp"

// Arrivals is the journal entry, the only one of an epoch, of units that came from other partitions: for books that bring
// what is under way to its end themselves, without a Redis.
func Arrivals(epoch int64, moved []Event) Entry {
	const fields = 8
	var b []byte
	for i := range moved {
		e := &moved[i]
		b = msgp.AppendArrayHeader(b, fields)
		for _, v := range []int64{int64(Moved), e.ProductID, int64(e.Peer), e.Delta, e.Sent.Epoch, e.Sent.Seq, e.At.UnixMilli(), e.Stock} {
			b = appendInt(b, v)
		}
	}
	return Entry{Last: Position{Epoch: epoch, Seq: int64(len(moved))}, First: 1, Version: EventVersion, Payload: b}
}
